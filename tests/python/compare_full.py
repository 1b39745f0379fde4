#!/usr/bin/env python3
"""Trains a Hugging Face causal language model in PyTorch, to compare a run of hift with.

    python tests/python/compare_full.py MODEL ROWS.jsonl --holdout 64 --steps 200 --batch 8 --lr 1e-3
    python tests/python/compare_full.py MODEL ROWS.jsonl --holdout 64 --steps 200 --batch 8 --lr 1e-3 --m 1

Without `--m`, every step trains all weights; with it, m layers (embedding, each block, final norm + head), one
group after the other, and the rate moves when every group has had its turn. A row of the file is an object with
`input_ids` and, if not every token is learned, `labels` (aligned with the ids, -100 is ignored).

hift sees the same batches, in the same order, with

    data rows { source = json("ROWS.jsonl")  format = tokens(labels = "labels")  holdout = 64 rows  shuffle = none }

the last rows are held out, an epoch's last batch may be smaller, padding is on the right. Then losses agree step
by step up to rounding. `--pack TEXT TOKENIZER` writes such a file from plain text: windows of `--length` tokens.

Prints JSON lines: the training loss of each step that `--print-steps` asks for, and the held-out loss (mean over the
learned tokens) before the first step and after every `--every` steps. `--save DIR` writes the result.
"""

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F


def read(path):
    with open(path) as file:
        rows = [json.loads(line) for line in file if line.strip()]
    return [(row["input_ids"], row.get("labels") or row["input_ids"]) for row in rows]


def batch_of(rows):
    """`[batch, seq]` ids, and the token that each position is to predict, -100 where none is learned."""
    seq = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (seq - len(ids)) for ids, _ in rows])
    targets = torch.tensor([labels[1:] + [-100] * (seq - len(labels) + 1) for _, labels in rows])
    return ids, targets


def loss_of(model, rows, reduction="mean"):
    ids, targets = batch_of(rows)
    # Padding is on the right and attention is causal: no learned position sees it.
    logits = model(input_ids=ids, use_cache=False).logits  # [batch, seq, vocab]
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction=reduction)


@torch.no_grad()
def held_out_loss(model, rows, batch):
    total = sum(loss_of(model, rows[at : at + batch], "sum").item() for at in range(0, len(rows), batch))
    return total / sum(label != -100 for _, labels in rows for label in labels[1:])


def layers_of(model):
    """Lists of parameters from input to output; a tied head leaves the final norm to the last block."""
    layers = {}
    n_blocks = model.config.num_hidden_layers
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if parameter is model.get_input_embeddings().weight:
            at = 0
        elif "layers" in parts:
            at = 1 + int(parts[parts.index("layers") + 1])
        else:
            at = n_blocks if tied else n_blocks + 1
        layers.setdefault(at, []).append(parameter)
    return [layers[at] for at in sorted(layers)]


def rate_at(tick, ticks, warmup, args):
    """The rate of a cycle: up to the peak in `warmup` ticks, then down to zero at the end of the run."""
    if tick < warmup:
        return args.lr * (tick + 1) / (warmup + 1)
    progress = (tick - warmup) / max(1, ticks - warmup)
    height = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return args.lr * height[args.schedule]


def pack(text, tokenizer, length, out):
    from tokenizers import Tokenizer

    with open(text) as file:
        ids = Tokenizer.from_file(tokenizer).encode(file.read(), add_special_tokens=False).ids
    with open(out, "w") as file:
        for at in range(0, len(ids) - length + 1, length):
            file.write(json.dumps({"input_ids": ids[at : at + length]}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Hugging Face directory")
    parser.add_argument("rows", help="JSON lines with input_ids and perhaps labels")
    parser.add_argument("--pack", metavar="TEXT", help="make the rows from this text and the model's tokenizer")
    parser.add_argument("--length", type=int, default=128, help="tokens of a window, for --pack")
    parser.add_argument("--holdout", type=int, default=64, help="so many rows at the end are only measured")
    parser.add_argument("--m", type=int, help="layers per group; without it, all layers train at every step")
    parser.add_argument("--order", choices=["bottom_up", "top_down"], default="bottom_up")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--schedule", choices=["constant", "linear", "cosine"], default="constant")
    parser.add_argument("--warmup", type=float, default=0.0, help="share of the run, from 0 to 1")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="of tensors with two or more axes")
    parser.add_argument("--clip", type=float, help="largest norm of the active group's gradient")
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--print-steps", type=int, default=0, help="print the loss of the first so many steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", help="write the trained model to this directory")
    args = parser.parse_args()
    if args.pack:
        pack(args.pack, f"{args.model}/tokenizer.json", args.length, args.rows)

    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    rows = read(args.rows)
    held_out, rows = rows[len(rows) - args.holdout :], rows[: len(rows) - args.holdout]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.eval()  # no dropout

    parameters = list(model.parameters())
    layers = layers_of(model)
    size = args.m or len(layers)
    groups = [sum(layers[at : at + size], []) for at in range(0, len(layers), size)]
    if args.order == "top_down":
        groups.reverse()
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    # A parameter without a gradient is left alone, so each keeps its own state and step count.
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": args.weight_decay}, {"params": vectors, "weight_decay": 0.0}], lr=args.lr
    )
    cycles = math.ceil(args.steps / len(groups))
    warmup = math.ceil(args.warmup * cycles)
    batches = [rows[at : at + args.batch] for at in range(0, len(rows), args.batch)]

    def show(**values):
        print(json.dumps(values), flush=True)

    show(step=0, held_out_loss=round(held_out_loss(model, held_out, args.batch), 6))
    seconds, tokens = 0.0, 0
    for step in range(args.steps):
        begin = time.perf_counter()
        group = groups[step % len(groups)]
        active = {id(parameter) for parameter in group}
        for parameter in parameters:
            parameter.requires_grad_(id(parameter) in active)
        for options in optimizer.param_groups:
            options["lr"] = rate_at(step // len(groups), cycles, warmup, args)
        batch = batches[step % len(batches)]
        loss = loss_of(model, batch)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in group]).item()
        if args.clip:
            torch.nn.utils.clip_grad_norm_(group, args.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - begin
        tokens += sum(len(ids) for ids, _ in batch)
        if step < args.print_steps:
            show(step=step + 1, loss=round(loss.item(), 6), grad_norm=round(norm, 6))
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            show(step=step + 1, held_out_loss=round(held_out_loss(model, held_out, args.batch), 6))
    show(seconds=round(seconds, 2), tokens_per_second=round(tokens / seconds, 1), groups=len(groups))
    if args.save:
        model.save_pretrained(args.save)


if __name__ == "__main__":
    main()
