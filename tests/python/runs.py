#!/usr/bin/env python3
"""Holds whole runs against PyTorch: every family, with an optimizer, an order and a schedule of its own.

    python tests/python/runs.py --hift target/debug/hift [--more N] [NAME ...]

Needs torch, transformers and pytorch-optimizer; without them it says so and does nothing. Each model of `families.py` is
trained by hift and by a loop over transformers' model and torch's optimizers, one for each tensor, so that states and counts
move with its own turns only. What is drawn for each: the optimizer, groups of one to three layers or all at once, rotating
ones, the last norm apart, frozen layers, the order, how long a turn lasts, accumulation, clipping, the course of the rate and
when it moves. Compared at every step: who trains, the rate, the loss, the norm of the gradient; and the weights in the end.
The loop computes in 64 bits, as far as transformers' models do, and once more in 32: where a run amplifies what is rounded, hift
may be off a few times as far as torch itself.
`--more N` goes through the families N times, with other draws each time.
"""

import argparse
import json
import math
import pathlib
import random
import re
import subprocess
import sys
import tempfile

try:
    import pytorch_optimizer as other
    import torch
    import transformers
    from safetensors.torch import load_file
    from transformers.optimization import Adafactor
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(0)

import families

# In the language; what it is; the rate; whether the loop decays what has two axes.
OPTIMIZERS = [
    ("adamw", "betas = [0.9, 0.99]  weight_decay = 0.1", torch.optim.AdamW, dict(betas=(0.9, 0.99)), 2e-3, 0.1),
    ("adam", "weight_decay = 0.01", torch.optim.Adam, {}, 2e-3, 0.01),
    ("sgd", "weight_decay = 0.01", torch.optim.SGD, {}, 2e-2, 0.01),
    ("sgdm", "momentum = 0.8  nesterov = true  weight_decay = 0.01", torch.optim.SGD, dict(momentum=0.8, nesterov=True), 1e-2, 0.01),
    ("adagrad", "weight_decay = 0", torch.optim.Adagrad, {}, 5e-3, 0.0),
    ("rmsprop", "alpha = 0.9  momentum = 0.5  weight_decay = 0.01", torch.optim.RMSprop, dict(alpha=0.9, momentum=0.5), 1e-3, 0.01),
    ("adafactor", "weight_decay = 0.1", Adafactor, dict(relative_step=False, warmup_init=False, scale_parameter=False), 2e-3, 0.1),
    ("lion", "weight_decay = 0.1", other.Lion, {}, 2e-4, 0.1),
    ("lars", "weight_decay = 0.01", other.LARS, {}, 0.5, 0.01),
]

PIPELINE = """hift 1
data rows {{ source = json("rows.jsonl")  format = {format}  shuffle = none }}
{tokenizer}
model tiny {{ weights = "model"  recompute = {recompute} }}
groups layers {{ split = {split}  rotate = {rotate}  freeze = {freeze} }}
schedule turns {{ order = {order}  dwell = {dwell} steps  advance = {advance}  {horizon}  rate = {rate} }}
optimizer {optimizer} {{ {settings} }}
train run {{
    data = rows  {use}  model = tiny  groups = layers  schedule = turns  optimizer = {optimizer}
    steps = {steps}  micro_batch = {micro}  accumulate = {accumulate}  clip = {clip}  device = cpu
}}
export out {{ from = run  to = "out"  dtype = fp32 }}
"""


def layer_of(name):
    """The layer of a tensor by its name, the last norm, pooler and head apart."""
    block = re.search(r"(?:^|\.)(?:h|layers|layer)\.(\d+)\.", name)
    if block:
        return f"block.{block[1]}"
    if "pooler" in name:
        return "pooler"
    if any(part in name for part in ["lm_head", "embed_out", "score", "classifier", "qa_outputs"]):
        return "head"
    if any(part in name for part in ["ln_f", "final_layer_norm", "model.norm.", "project_out"]):
        return "norm"
    return "embedding"


def layers_of(model, apart):
    layers = {}
    for name, parameter in model.named_parameters():
        layers.setdefault(layer_of(name), []).append(name)
    blocks = sorted((name for name in layers if name.startswith("block")), key=lambda name: int(name[6:]))
    tail = [name for name in ["norm", "pooler", "head"] if name in layers]
    names = ["embedding", *blocks, *tail]
    if not apart:
        rest = [name for part in tail for name in layers.pop(part)]
        # Where the head is the embedding's matrix, the norm joins the last block.
        names = ["embedding", *blocks]
        if "head" in tail:
            layers["head"], names = rest, names + ["head"]
        else:
            layers[blocks[-1]] += rest
    return names, layers


def drawn(draw, names):
    """What a run is like, in the language and as lists of layers and rates."""
    frozen = draw.choice([[], [], [draw.choice(names)]])
    queue = [name for name in names if name not in frozen]
    m = draw.choice([1, 1, 2, 3, None])
    rotate = m in [2, 3] and draw.random() < 0.5
    dwell = 1 if rotate else draw.choice([1, 1, 2])
    order = draw.choice(["bottom_up", "top_down", "list"]) if m else "bottom_up"
    if order == "top_down":
        queue.reverse()
    groups = [queue[i : i + m] for i in range(0, len(queue), m)] if m else [queue]
    said = order
    if order == "list" and (rotate or m == 1):
        draw.shuffle(queue)
        groups = [queue[i : i + m] for i in range(0, len(queue), m)]
        said = json.dumps(queue)
    elif order == "list":
        said = "bottom_up"
    return dict(frozen=frozen, queue=queue, m=m, rotate=rotate, dwell=dwell, said=said, groups=groups)


def rate_of(draw, steps, cycle, short, peak):
    """The rate in the language, when it moves, and what it is at each step: transformers' courses, counted in ticks."""
    course = draw.choice(["constant", "linear", "cosine"])
    advance = draw.choice(["per_cycle", "per_step", "per_cycle", "per_short_cycle"])
    tick = dict(per_cycle=cycle, per_step=1, per_short_cycle=short)[advance]
    # A rate that moves every step has but one.
    horizon = draw.choice(["cycles", "steps"]) if advance != "per_step" else "cycles"
    ticks = steps if horizon == "steps" else -(-steps // tick)
    warm = draw.choice([0, 0, 3])
    warmup = 0 if not warm else warm if horizon == "steps" else -(-warm // tick)

    def at(step):
        j = step // tick
        if j < warmup:
            return peak * ((j + 1) / (warmup + 1) if horizon == "cycles" else j / warmup)
        progress = min(1.0, (j - warmup) / max(1, ticks - warmup))
        return peak * dict(constant=1.0, linear=1.0 - progress, cosine=0.5 * (1 + math.cos(math.pi * progress)))[course]

    text = f"{course}({peak}{f', warmup = {warm} steps' if warm else ''})"
    return text, advance, horizon, [at(step) for step in range(steps)]


def count(rows, task):
    """What the mean loss is a mean over."""
    if task == "next":
        return sum(label != -100 for row in rows for label in row["labels"][1:])
    if task == "words":
        return sum(label != -100 for row in rows for label in row["labels"])
    return len(rows)


def check(name, config, task, hift, draw):
    auto = {"next": transformers.AutoModelForCausalLM, "class": transformers.AutoModelForSequenceClassification,
            "words": transformers.AutoModelForTokenClassification,
            "answer": transformers.AutoModelForQuestionAnswering}[task]
    model = families.build(config, auto)
    rows = families.rows_of(task)
    split_tail = draw.random() < 0.5
    names, layers = layers_of(model, split_tail)
    run = drawn(draw, names)
    optimizer, settings, kind, options, peak, decay = draw.choice(OPTIMIZERS)
    queue, m, groups = run["queue"], run["m"], run["groups"]
    cycle, short = len(groups) * run["dwell"], max(1, len(queue) // m if m else 1) * run["dwell"]
    steps = draw.choice([7, 11, 14])
    rate, advance, horizon, rates = rate_of(draw, steps, cycle, short, peak)
    micro, accumulate = draw.choice([(3, 1), (1, 3), (2, 1), (1, 2), (2, 2)])
    clip = draw.choice([None, 0.5])
    split = "all()" if m is None else f"by_layer({m}{', tail = split' if split_tail else ''})"
    if m is None:
        # Everything is one group; what is frozen goes by its layer's name.
        names, layers = layers_of(model, False)
        if any(part not in names for part in run["frozen"]):
            run["frozen"] = []
        queue = [layer for layer in names if layer not in run["frozen"]]
        groups = [queue]
    what = f"{optimizer}, {split}{', rotate' if run['rotate'] else ''}, {run['said']}, dwell {run['dwell']}, {rate} {advance} " \
           f"{horizon}, {micro} x {accumulate}, clip {clip}, frozen {run['frozen']}"

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save_pretrained(folder / "model")
        if name == "gemma3, beside pictures":
            families.beside_pictures(folder / "model")
        form, lines = families.lines_of(rows, task, config, folder)
        (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        text = PIPELINE.format(
            format=form, recompute=draw.choice(["none", "blocks"]), split=split, rotate=str(run["rotate"]).lower(),
            freeze=json.dumps(run["frozen"]), order=run["said"], dwell=run["dwell"], advance=advance, rate=rate,
            horizon=f"horizon = {horizon}" if advance != "per_step" else "",
            optimizer=optimizer, settings=settings, steps=steps, micro=micro, accumulate=accumulate, clip=clip or "none",
            tokenizer='tokenizer words { file = "tokenizer.json" }' if task == "answer" else "",
            use="tokenizer = words" if task == "answer" else "")
        (folder / "run.hift").write_text(text)
        done = subprocess.run([hift, "run", str(folder / "run.hift"), "--dir", str(folder / "run")], capture_output=True, text=True)
        if done.returncode != 0:
            return f"hift ended with {done.returncode}: {done.stderr.strip()[-900:]}\n{text}", math.inf
        metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        after = load_file(folder / "out" / "model.safetensors")

    batches = [rows[i : i + micro] for i in range(0, len(rows), micro)]
    epoch = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    results = []
    for dtype in [torch.float64, torch.float32]:
        model.to(dtype).load_state_dict(start)
        results.append(loop(model, run, groups, layers, rates, epoch, task, clip, lambda p: kind(
            [p], lr=peak, weight_decay=decay if p.dim() > 1 else 0.0, **options)))
    for step, (said, (active, *_)) in enumerate(zip(metrics, results[0][0])):
        if set(said["group"]) != set(active):
            return f"step {step}: {said['group']} trained, not {active}; {what}", math.inf
        if abs(said["lr"] - rates[step]) > 1e-6 * peak:
            return f"step {step}: the rate is {said['lr']}, not {rates[step]}; {what}", math.inf
    theirs = [(None, said["loss"], said["grad_norm"]) for said in metrics]
    after = {key: after.get(key, after.get(key.replace("lm_head", "embed_out"))) for key in results[0][1]}
    off, where = apart(theirs, after, *results[0])
    noise, _ = apart(*results[1], *results[0])
    return f"{off:.1e} ({where}), torch itself {noise:.1e}; {what}", 0.0 if off < 4 * noise else off


def loop(model, run, groups, layers, rates, epoch, task, clip, optimizer):
    """Who trains at each step, its loss and norm; and the weights in the end."""
    parameters = dict(model.named_parameters())
    queue, seen = run["queue"], []
    own = {key: optimizer(parameter) for key, parameter in parameters.items()}
    for step, rate in enumerate(rates):
        if run["rotate"]:
            active, queue = queue[: run["m"]], queue[run["m"] :] + queue[: run["m"]]
        else:
            active = groups[step // run["dwell"] % len(groups)]
        keys = [key for layer in active for key in layers[layer]]
        for key, parameter in parameters.items():
            parameter.requires_grad_(key in keys)
            parameter.grad = None
        parts = epoch[step % len(epoch)]
        total = sum(count(part, task) for part in parts)
        loss = 0.0
        for part in parts:
            mean = families.torch_loss(model, part, task) * count(part, task) / total
            mean.backward()
            loss += mean.item()
        keys = [key for key in keys if parameters[key].grad is not None]
        norm = math.sqrt(sum(parameters[key].grad.double().square().sum().item() for key in keys))
        for key in keys:
            parameters[key].grad *= min(1.0, clip / (norm + 1e-6)) if clip else 1.0
            own[key].param_groups[0]["lr"] = rate
            own[key].step()
        seen.append((active, loss, norm))
    return seen, {key: parameter.detach().clone() for key, parameter in parameters.items()}


def apart(steps, weights, right_steps, right_weights):
    """The largest part that a loss is off, or a norm or a tensor, for which more is allowed."""
    found = []
    for step, ((_, loss, norm), (_, right, right_norm)) in enumerate(zip(steps, right_steps)):
        found.append((abs(loss - right) / abs(right), f"loss of step {step}"))
        found.append((0.03 * abs(norm - right_norm) / right_norm, f"norm of step {step}"))
    for key, right in right_weights.items():
        # What all keys have in common, and all beginnings or ends of answers, changes nothing: these have no gradient but noise.
        if not re.search(r"(k_proj|key|k_lin|c_attn|query_key_value|qa_outputs)\.bias$", key):
            found.append((0.1 * ((weights[key] - right).norm() / right.norm()).item(), key))
    return max(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these families")
    parser.add_argument("--hift", default="target/debug/hift")
    parser.add_argument("--more", type=int, default=1)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    failed = tried = 0
    tasks = [("next", families.CAUSAL), ("class", families.CLASSIFIERS), ("words", families.WORDS), ("answer", families.ANSWERS)]
    for round in range(args.more):
        for task, of in tasks:
            for name, kind, arguments in of:
                if args.names and name not in args.names:
                    continue
                draw = random.Random(f"{round} {name}")
                what, off = check(name, getattr(transformers, kind)(**arguments), task, args.hift, draw)
                tried += 1
                failed += not off < args.tolerance
                print(f"{'ok  ' if off < args.tolerance else 'OFF '} {name:28} {what}", flush=True)
    print(f"{tried} runs, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
