#!/usr/bin/env python3
"""HiFT on a GPU, by hift and by PyTorch, one after the other: tokens a second over a cycle, and memory.

    python3 tests/gpu/speed.py target/release/hift [--only NAME] [--seconds 420] [--to rows.jsonl]

Every group of layers has one turn a cycle (m = 1) with AdamW. Models have the shapes of Qwen2.5-0.5B, TinyLlama-1.1B and
Llama-2-7B (4 of its 32 blocks, so that drawing its weights takes seconds), random weights and random tokens. hift is
told by its own metrics, PyTorch by its own clock; the first cycle of each is not counted. PyTorch's side is the method as its
reference implementation has it, with scaled_dot_product_attention: 16-bit weights on the device, masters and moments of
the group in turn brought there for its step. The ceiling is what a product of two 8192 x 8192 matrices reaches there.

Rows come in the order in which one would miss them. One that fails, or runs out of its share of the time, leaves its reason
in its place and nothing else. Needs torch and transformers; without them only hift's columns are filled. Prints a table, how
it stands beside what is wanted and, with --json or into a file with --to, the rows.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

SHAPES = {
    "Qwen2.5-0.5B": (
        {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
         "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
         "max_position_embeddings": 2048, "rope_theta": 1e6, "rms_norm_eps": 1e-6}, 8),
    "TinyLlama-1.1B": (
        {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32,
         "num_key_value_heads": 4, "intermediate_size": 5632, "vocab_size": 32000, "tie_word_embeddings": False,
         "max_position_embeddings": 2048, "rms_norm_eps": 1e-5}, 8),
    "Llama-2-7B, 4 blocks": (
        {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 32,
         "num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 32000, "tie_word_embeddings": False,
         "max_position_embeddings": 2048, "rms_norm_eps": 1e-5}, 8),
}
# To try this script itself, with --only tiny --device cpu.
TINY = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 320, "tie_word_embeddings": False,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5}
SEQ = 512
# What one would miss the most comes first: model, numbers, where hift's weights rest.
RUNS = [
    ("Qwen2.5-0.5B", "bf16", "device"),
    ("Llama-2-7B, 4 blocks", "bf16", "device"),
    ("TinyLlama-1.1B", "bf16", "device"),
    ("Llama-2-7B, 4 blocks", "bf16", "host"),
    ("Qwen2.5-0.5B", "tf32", "device"),
    ("Llama-2-7B, 4 blocks", "tf32", "device"),
    ("Qwen2.5-0.5B", "fp32", "device"),
    ("TinyLlama-1.1B", "tf32", "device"),
    ("TinyLlama-1.1B", "bf16", "host"),
    ("Llama-2-7B, 4 blocks", "fp32", "device"),
]
# The most that either side of a row may take.
SHARE = 75
GIB = 1024**3


def groups(config):
    """Turns of a cycle: embedding, blocks, and the final norm with the head."""
    return config["num_hidden_layers"] + 2


def hift(binary, config, batch, precision, weights, device, folder, limit):
    cycles = 2
    steps = cycles * groups(config)
    rows = random.Random(1)
    with open(f"{folder}/rows.jsonl", "w") as file:
        for _ in range(64):
            ids = [rows.randrange(config["vocab_size"]) for _ in range(SEQ)]
            file.write(json.dumps({"ids": ids}) + "\n")
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file)
    setting = {"bf16": "precision = mixed_hi(bf16)", "tf32": "precision = fp32  tf32 = true",
               "fp32": "precision = fp32"}[precision]
    with open(f"{folder}/p.hift", "w") as file:
        file.write(f"""hift 1
data rows {{ source = json("rows.jsonl") format = tokens(input = "ids") }}
model m {{ weights = random("config.json", seed = 1)  {setting} }}
groups g {{ split = by_layer(1) }}
schedule s {{ rate = constant(1e-5)  states = host  weights = {weights} }}
optimizer adamw {{ weight_decay = 0.01 }}
train t {{
    data = rows  model = m  groups = g  schedule = s  optimizer = adamw
    steps = {steps}  micro_batch = {batch}  device = {device}
}}
""")
    began = time.time()
    done = subprocess.run([binary, "run", "p.hift", "--dir", "run", "--new", "--progress", "plain"],
                          cwd=folder, capture_output=True, text=True, timeout=limit)
    if done.returncode != 0:
        return {"error": f"exit {done.returncode}: " + " / ".join(done.stderr.strip().splitlines() or ["?"])[-300:]}
    lines = [json.loads(line) for line in open(f"{folder}/run/metrics.jsonl")]
    lines = [line for line in lines if "seconds" in line][groups(config):]
    tokens, seconds = (sum(line[key] for line in lines) for key in ("tokens", "seconds"))
    plan = json.load(open(f"{folder}/run/plan.json"))
    foretold = max(group["peak"] for group in plan["estimate"]["stages"][0]["groups"])
    measured = max(line["device_peak_bytes"] for line in lines)
    events = [json.loads(line) for line in open(f"{folder}/run/events.jsonl")]
    process = ([event.get("process") for event in events if event["event"] == "memory"] or [None])[-1]
    beside = (plan["estimate"]["stages"][0].get("beside") or {}).get("process")
    work = plan["estimate"]["stages"][0]["flops"] / cycles
    return {"tokens_per_second": tokens / seconds, "peak": measured, "foretold": foretold,
            "process": process, "foretold_process": beside, "flops_per_second": work / seconds, "wall": time.time() - began}


def pytorch(config, batch, precision, limit):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    kind = config["model_type"]
    shape = AutoConfig.for_model(kind, **{key: value for key, value in config.items() if key != "model_type"})
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa").to(dtype)
    model.config.use_cache = False
    parts = [[model.model.embed_tokens]] + [[block] for block in model.model.layers]
    parts.append([model.model.norm, model.lm_head])
    turns = [list(dict.fromkeys(p for part in layer for p in part.parameters())) for layer in parts]
    kept = {}  # of each parameter the master (16-bit weights) and both moments, at rest in pinned memory
    for parameter in model.parameters():
        masters = [parameter.detach().float().cpu().pin_memory()] if precision == "bf16" else []
        kept[parameter] = masters + [torch.zeros(parameter.shape).pin_memory() for _ in range(2)]
    data = torch.randint(0, config["vocab_size"], (8, batch, SEQ), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    began, counted, step = time.time(), 0, 0
    for cycle in range(2):
        if cycle == 1:
            torch.cuda.synchronize()
            counted = time.time()
        for parameters in turns:
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            ids = data[step % 8]
            model(input_ids=ids, labels=ids).loss.backward()
            step += 1
            for parameter in parameters:
                here = [tensor.to("cuda", non_blocking=True) for tensor in kept[parameter]]
                *master, m, v = here
                target = master[0] if master else parameter.data
                grad = parameter.grad.float()
                m.lerp_(grad, 0.1)
                v.mul_(0.999).addcmul_(grad, grad, value=0.001)
                t = cycle + 1
                target.mul_(1 - 1e-7)
                denominator = (v.sqrt() / (1 - 0.999**t) ** 0.5).add_(1e-8)
                target.addcdiv_(m, denominator, value=-1e-5 / (1 - 0.9**t))
                if master:
                    parameter.data.copy_(target)
                for home, tensor in zip(kept[parameter], here):
                    home.copy_(tensor, non_blocking=True)
                parameter.grad = None
            if time.time() - began > limit:
                return {"error": "out of time"}
    torch.cuda.synchronize()
    seconds = time.time() - counted
    return {"tokens_per_second": len(turns) * batch * SEQ / seconds, "peak": torch.cuda.max_memory_allocated()}


def ceiling(precision):
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    began = time.time()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.time() - began)


def torch_part(name, batch, precision, limit):
    """PyTorch in a process of its own, so that its memory is gone afterwards."""
    code = [sys.executable, os.path.abspath(__file__), "--torch", name, precision, str(batch), str(limit)]
    try:
        done = subprocess.run(code, capture_output=True, text=True, timeout=limit + 30)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": "out of time"}
    except (IndexError, ValueError):
        return {"error": " / ".join(done.stderr.strip().splitlines()[-2:])[-200:] or "no result"}


def wanted(rows):
    """How the rows stand beside what is wanted of them; the last line has it all."""
    def told(row, key):
        return row["hift"].get(key)

    said = []
    faster = [row for row in rows if row["weights"] == "device" and told(row, "tokens_per_second")
              and "tokens_per_second" in row["torch"]]
    ratios = [told(row, "tokens_per_second") / row["torch"]["tokens_per_second"] for row in faster]
    said.append(f"as fast as PyTorch in {sum(ratio >= 1.0 for ratio in ratios)} of {len(ratios)}")
    exact = [told(row, "peak") == told(row, "foretold") for row in rows if told(row, "peak")]
    said.append(f"tensors to the byte in {sum(exact)} of {len(exact)}")
    near = [told(row, "process") / told(row, "foretold_process") - 1 for row in rows
            if told(row, "process") and told(row, "foretold_process")]
    said.append(f"the process within 1 % in {sum(abs(part) <= 0.01 for part in near)} of {len(near)}")
    resident = {(row["model"], row["numbers"]): told(row, "tokens_per_second") for row in rows if row["weights"] == "device"}
    streamed = [(told(row, "tokens_per_second"), resident.get((row["model"], row["numbers"]))) for row in rows
                if row["weights"] == "host"]
    streamed = [ours / other for ours, other in streamed if ours and other]
    said.append(f"streamed at half the speed or more in {sum(part >= 0.5 for part in streamed)} of {len(streamed)}")
    print("speed  " + "; ".join(said), flush=True)


def main():
    if sys.argv[1:2] == ["--torch"]:
        name, precision, batch, limit = sys.argv[2:6]
        config, _ = SHAPES[name]
        try:
            result = {**pytorch(config, int(batch), precision, float(limit)), "ceiling": ceiling(precision)}
        except Exception as error:  # what it was is the result
            result = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(result))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hift")
    parser.add_argument("--only")
    parser.add_argument("--seconds", type=float, default=420, help="in all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--to", help="a file that gets a line of JSON for each row")
    parser.add_argument("--device", default="cuda(0)", help="of hift")
    args = parser.parse_args()
    binary = os.path.abspath(args.hift)
    began = time.time()
    runs = RUNS
    if args.only == "tiny":
        SHAPES["tiny"], runs = (TINY, 2), [("tiny", "bf16", "host"), ("tiny", "tf32", "device")]
    rows, sides = [], {}
    head = f"{'model':22} {'numbers':8} {'weights':7} {'hift tok/s':>11} {'torch tok/s':>11} {'ratio':>6} "
    print(head + f"{'MFU':>5} {'peak GiB':>9} {'foretold':>9} {'off':>7} {'process':>8} {'off':>7} {'torch GiB':>9}", flush=True)
    for name, precision, weights in runs:
        left = args.seconds - (time.time() - began)
        if args.only and args.only not in name:
            continue
        if left < 20:
            print(f"{name:22} {precision:8} {weights:7} no time was left", flush=True)
            continue
        config, batch = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:
            try:
                ours = hift(binary, config, batch, precision, weights, args.device, folder, min(left, SHARE))
            except subprocess.TimeoutExpired:
                ours = {"error": "out of time"}
            except (OSError, ValueError, KeyError, IndexError) as error:
                ours = {"error": f"{type(error).__name__}: {error}"[:200]}
        # Where hift's weights rest is no matter of PyTorch's: it is measured once.
        left = args.seconds - (time.time() - began)
        if (name, precision) not in sides and left > 10:
            sides[name, precision] = torch_part(name, batch, precision, min(left, SHARE))
        theirs = sides.get((name, precision), {"error": "no time was left"})
        row = {"model": name, "numbers": precision, "weights": weights, "hift": ours, "torch": theirs}
        rows.append(row)
        if args.to:
            with open(args.to, "a") as file:
                file.write(json.dumps(row) + "\n")
        if args.json:
            print(json.dumps(row), flush=True)
            continue

        def number(side, key, by=1.0, digits=0):
            return f"{side[key] / by:.{digits}f}" if side.get(key) is not None else "-"

        both = "tokens_per_second" in ours and "tokens_per_second" in theirs
        ratio = f"{ours['tokens_per_second'] / theirs['tokens_per_second']:.2f}" if both else "-"
        mfu = f"{ours['flops_per_second'] / theirs['ceiling']:.2f}" if "flops_per_second" in ours and "ceiling" in theirs else "-"
        off = f"{(ours['peak'] / ours['foretold'] - 1) * 100:+.2f}%" if "peak" in ours else "-"
        process, off_process = number(ours, "process", GIB, 2), "-"
        if ours.get("process") and ours.get("foretold_process"):
            off_process = f"{(ours['process'] / ours['foretold_process'] - 1) * 100:+.2f}%"
        print(f"{name:22} {precision:8} {weights:7} {number(ours, 'tokens_per_second'):>11} "
              f"{number(theirs, 'tokens_per_second'):>11} {ratio:>6} {mfu:>5} {number(ours, 'peak', GIB, 2):>9} "
              f"{number(ours, 'foretold', GIB, 2):>9} {off:>7} {process:>8} {off_process:>7} {number(theirs, 'peak', GIB, 2):>9}", flush=True)
        for side, result in (("hift", ours), ("torch", theirs)):
            if "error" in result:
                print(f"    {side}: {result['error']}", flush=True)
    if not args.json:
        wanted(rows)
    if not any("tokens_per_second" in row["hift"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
