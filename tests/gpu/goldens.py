#!/usr/bin/env python3
"""The golden runs of tests/golden by a built hift, on whatever device: the traces of an independent PyTorch program.

    python3 tests/gpu/goldens.py target/release/hift [--device 'cuda(0)'] [--all] [--seconds 120]

In fp32 every loss is within 1e-4 of its trace, every norm within 1 part in 1,000, every final weight within the noise that
the trace has itself; in half numbers a run strays from that in 32 bits no farther than three times what transformers'
model does in the same type; the same run twice leaves the same bits. Weights and states rest in turn on the device, on the
host and on disk. Without --all every third run: all optimizers, orders and numbers of layers a turn are among them.

Needs nothing but Python. Prints a line for each run that fails and one in the end; exits with 1 if any did, with 2 if the time
was up before all were made.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
MODELS = {
    "llama-tiny": ("batches-lm.json", 'tokens(labels = "labels")'),
    "gpt2-tiny": ("batches-lm.json", 'tokens(labels = "labels")'),
    "bert-cls-tiny": ("batches-cls.json", 'tokens(label = "labels", mask = "attention_mask")'),
}
RESTING = ["states = host  weights = host", "states = device", "states = disk  weights = disk"]
LOSS = 1e-4
NORM = 1e-3


def read(name):
    with open(os.path.join(HERE, name)) as file:
        return json.load(file)


def tensors(path):
    """The 32-bit numbers of a safetensors file, by name."""
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    head, body = json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]
    of = {name: about["data_offsets"] for name, about in head.items() if name != "__metadata__"}
    return {name: body[begin:end].cast("f") for name, (begin, end) in of.items()}


def pipeline(model, case, golden, device, precision, resting):
    config = {**golden["defaults"], **case["config"]}
    units = golden["units"]["split_head"]
    names = {"embed": "embedding", "classifier": "head"}
    queue = [names.get(units[at][0], units[at][0]) for at in case["queue"]]
    order = {"bottom2up": "bottom_up", "top2down": "top_down", "random": json.dumps(queue)}[config["strategy"]]
    settings = {
        "adamw": f"betas = {config['betas']}  eps = {config['eps']}  weight_decay = {config['weight_decay']}",
        "sgdm": f"momentum = {config['momentum']}  weight_decay = {config['weight_decay']}",
        "adafactor": f"weight_decay = {config['weight_decay']}",
    }[config["optimizer"]]
    clip = config["grad_clip"] or "none"
    return f"""hift 1
data rows {{ source = json("rows.jsonl")  format = {MODELS[model][1]}  shuffle = none }}
model tiny {{ weights = "{HERE}/models/{model}"  precision = {precision} }}
groups layers {{ split = by_layer({config['m']}, tail = split)  rotate = true }}
schedule turns {{ order = {order}  rate = constant({config['lr']})  {resting} }}
optimizer {config['optimizer']} {{ {settings} }}
train sft {{
    data = rows  model = tiny  groups = layers  schedule = turns  optimizer = {config['optimizer']}
    steps = {config['max_steps']}  micro_batch = 4  clip = {clip}  device = {device}
}}
export final {{ from = sft  to = "final"  dtype = fp32 }}
"""


def run(binary, folder, text, rows, limit):
    """Losses, norms and the bytes of the final weights."""
    for name, content in (("p.hift", text), ("rows.jsonl", rows)):
        with open(os.path.join(folder, name), "w") as file:
            file.write(content)
    done = subprocess.run([binary, "run", "p.hift", "--dir", "run", "--new", "--progress", "none"],
                          cwd=folder, capture_output=True, text=True, timeout=limit)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {' / '.join(done.stderr.strip().splitlines()[:3])[:300]}")
    with open(os.path.join(folder, "run/metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    return [line["loss"] for line in lines], [line["grad_norm"] for line in lines], os.path.join(folder, "final/model.safetensors")


def off(got, expected):
    """The mean and the largest difference."""
    apart = [abs(a - b) for a, b in zip(got, expected)]
    return sum(apart) / len(apart), max(apart)


def compare(case, golden, losses, norms, weights):
    """What is wrong, or the largest difference of a loss."""
    if len(losses) != len(case["loss"]):
        return f"{len(losses)} steps, not {len(case['loss'])}", None
    worst = 0.0
    for step, (loss, expected) in enumerate(zip(losses, case["loss"])):
        worst = max(worst, abs(loss - expected))
        if not abs(loss - expected) < LOSS:
            return f"step {step + 1}: a loss of {loss}, not {expected}", None
    for step, (norm, expected) in enumerate(zip(norms, case["grad_norm"])):
        if not abs(norm - expected) < NORM * expected:
            return f"step {step + 1}: a norm of {norm}, not {expected}", None
    numbers = tensors(weights)
    for name, trace in zip(golden["tensors"], case["final"]):
        n, allowed = len(numbers[name]), 4.0 * trace[4] + 1e-7
        for what, total, expected in (("sum", math.fsum(numbers[name]), trace[0]),
                                      ("absolute sum", math.fsum(map(abs, numbers[name])), trace[1])):
            if not abs(total - expected) / n <= allowed:
                return f"{name}: its {what} is off by {abs(total - expected) / n:.1e} an element, {allowed:.1e} allowed", None
    return None, worst


def rows_of(model):
    rows = []
    for batch in read(MODELS[model][0])["batches"]:
        masks = batch.get("attention_mask") or [None] * len(batch["input_ids"])
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], masks):
            rows.append(json.dumps({"input_ids": ids, "labels": labels, "attention_mask": mask}))
    return "\n".join(rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hift")
    parser.add_argument("--device", default="cuda(0)")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seconds", type=float, default=600, help="in all")
    args = parser.parse_args()
    binary, began = os.path.abspath(args.hift), time.time()
    half = read("precision.json")
    jobs = []
    for nth, model in enumerate(MODELS):
        cases = read(f"{model}.json")["cases"]
        for at, case in enumerate(cases):
            if args.all or (at // 3 + at // 9 + at + nth) % 3 == 0:
                jobs.append((model, case, "fp32", RESTING[at % 3]))
        case = next(case for case in cases if case["id"] == half["case"])
        jobs += [(model, case, precision, "states = host") for precision in ("mixed_hi(bf16)", "mixed(fp16)")]
    # Those that tell the most come first: a run of each model in each type of numbers.
    jobs.sort(key=lambda job: (job[2] == "fp32") and job[1]["id"] != "adamw-bottom2up-m1")
    made, failed, worst, twice = 0, 0, 0.0, set()
    for model, case, precision, resting in jobs:
        left = args.seconds - (time.time() - began)
        if left < 2:
            break
        golden, rows = read(f"{model}.json"), rows_of(model)
        text = pipeline(model, case, golden, args.device, precision, resting)
        try:
            with tempfile.TemporaryDirectory() as folder:
                losses, norms, weights = run(binary, folder, text, rows, left)
                if precision == "fp32":
                    wrong, apart = compare(case, golden, losses, norms, weights)
                    worst = max(worst, apart or 0.0)
                else:
                    theirs = half[model]["bf16" if "bf16" in precision else "fp16"]
                    wrong = None
                    for what, got, known in (("loss", losses, "loss"), ("norm", norms, "grad_norm")):
                        ours, other = off(got, case[known]), off(theirs[known], case[known])
                        if not all(0.0 < a < 3.0 * b for a, b in zip(ours, other)):
                            wrong = f"{what}: off by {ours}, transformers' model by {other}"
                if wrong is None and (model, precision) not in twice:
                    twice.add((model, precision))
                    with tempfile.TemporaryDirectory() as again, open(weights, "rb") as first:
                        _, _, other = run(binary, again, text, rows, left)
                        with open(other, "rb") as second:
                            if first.read() != second.read():
                                wrong = "the same run twice leaves different weights"
        except subprocess.TimeoutExpired:
            break
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            wrong = str(error)
        made += 1
        if wrong is not None:
            failed += 1
            print(f"goldens  {model} {case['id']} in {precision}, {resting}: {wrong}", flush=True)
    print(f"goldens  {made - failed} of {len(jobs)} runs follow PyTorch on {args.device}; losses in fp32 within {worst:.1e}; "
          f"twice the same bits: {len(twice)} of {3 * len(MODELS)}; {time.time() - began:.0f} s", flush=True)
    sys.exit(1 if failed else 2 if made < len(jobs) else 0)


if __name__ == "__main__":
    main()
