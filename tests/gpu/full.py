#!/usr/bin/env python3
"""A device that others have filled: what hift says, and that a run goes on once there is room again.

    python3 tests/gpu/full.py target/release/hift [--device 'cuda(0)']

A process with torch takes the device's memory: first before a run begins, which then ends with 75 and that process's name;
then when it has begun (its first event is written), so that it finds no room in the middle: 1, a sentence, and after
the same command again, 0. A model that no device has room for ends with 78. Exits with 77 where there is no torch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

CONFIG = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 16,
          "num_key_value_heads": 16, "intermediate_size": 5632, "vocab_size": 8192, "tie_word_embeddings": False,
          "max_position_embeddings": 512, "rms_norm_eps": 1e-5}
# Takes all but so many MiB when the file is there, says so, and lets go when its input ends.
TAKE = """
import os, sys, time, torch
torch.zeros(1, device="cuda")
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.001)
free, _ = torch.cuda.mem_get_info()
taken = torch.empty(max(0, free - (int(sys.argv[2]) << 20)), dtype=torch.uint8, device="cuda")
print("taken", flush=True)
sys.stdin.read()
"""


def taker(watched, left):
    process = subprocess.Popen([sys.executable, "-c", TAKE, watched, str(left)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    if process.stdout.readline().strip() != "ready":
        print("full  skipped: torch finds no device")
        sys.exit(77)
    return process


def let_go(process):
    process.stdin.close()
    process.wait(timeout=30)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hift")
    parser.add_argument("--device", default="cuda(0)")
    args = parser.parse_args()
    binary = os.path.abspath(args.hift)
    try:
        import torch
    except ImportError:
        print("full  skipped: there is no torch")
        sys.exit(77)
    if not torch.cuda.is_available():
        print("full  skipped: torch finds no device")
        sys.exit(77)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        def write(name, text):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)

        def pipeline(config, batch):
            write("config.json", json.dumps(config))
            write("rows.jsonl", "".join(json.dumps({"ids": [(7 * i + t) % 8000 for t in range(256)]}) + "\n" for i in range(64)))
            write("p.hift", f"""hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids") }}
model m {{ weights = random("config.json", seed = 1)  precision = mixed_hi(bf16) }}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-5)  states = host }}
optimizer adamw {{ }}
train t {{
    data = rows  model = m  groups = g  schedule = s  optimizer = adamw
    steps = 12  micro_batch = {batch}  device = {args.device}  checkpoint {{ every = 4 steps }}
}}
""")

        def run(*more):
            return subprocess.run([binary, "run", "p.hift", "--dir", "run", "--progress", "none", *more], cwd=folder,
                                  capture_output=True, text=True, timeout=120)

        def expect(what, done, code, *parts):
            said = " ".join(done.stderr.split())
            print(f"{what}: exit {done.returncode}: {said[:400]}", flush=True)
            missing = [part for part in parts if part not in said]
            if done.returncode != code or missing:
                wrong.append(f"{what}: exit {done.returncode}, not {code}" if done.returncode != code
                             else f"{what}: does not say {missing}")

        # Larger than an H200: 152 GiB of weights. Refused before anything is loaded.
        pipeline({**CONFIG, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
                  "num_key_value_heads": 64, "num_hidden_layers": 96}, 1)
        expect("too large", run("--new"), 78)

        pipeline(CONFIG, 16)
        there = os.path.join(folder, "there")
        open(there, "w").close()
        process = taker(there, 600)
        process.stdout.readline()
        expect("taken before", run("--new"), 75, "python")
        let_go(process)

        process = taker(os.path.join(folder, "run", "events.jsonl"), 300)
        done = run("--new")
        expect("taken meanwhile", done, 1, "no room")
        let_go(process)
        time.sleep(1)
        expect("there is room again", run(), 0)
    for what in wrong:
        print(f"WRONG {what}")
    print(f"full  {4 - len(wrong)} of 4 as they should be")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
