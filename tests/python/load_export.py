#!/usr/bin/env python3
"""Loads a directory that hift exported with transformers, as a user would.

    python tests/python/load_export.py DIR [--prompt "4821 = "] [--rows ROWS.jsonl] [--reference reference.json]

Ends with status 1 if the directory does not load, if a tensor is missing, unexpected or of another shape than the
configuration says, if a number is not finite, or if a result differs from the reference.

Prints a JSON object: `prompt`, its `ids`, the `logits` of the next token (the five largest as [id, token, logit]), the
greedy `text` that follows (none of these where the directory has no tokenizer, as after training on rows of token
ids), and with `--rows` (JSON lines of `input_ids` and perhaps `labels`) the mean `loss`.
`--reference` is such an object, by another program: each of `ids`, `text` and `loss` that it has is compared, and
`next_logits` ([[id, logit], ...]), numbers up to `--tolerance`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open

import compare_full


def tensors_of(directory):
    """The names and shapes of all tensors in the directory's safetensors files, and those that are not finite."""
    shapes, broken = {}, []
    for path in sorted(Path(directory).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                if not torch.isfinite(tensor.float()).all():
                    broken.append(name)
    return shapes, broken


def check_tensors(directory, model, report):
    shapes, broken = tensors_of(directory)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    optional = set(getattr(model, "_tied_weights_keys", None) or []) if model.config.tie_word_embeddings else set()
    for name in sorted(wanted.keys() - shapes.keys() - optional):
        report(f"tensor {name} is missing")
    for name in sorted(shapes.keys() - wanted.keys()):
        report(f"tensor {name} is not part of the model")
    for name in sorted(shapes.keys() & wanted.keys()):
        if shapes[name] != wanted[name]:
            report(f"tensor {name} has shape {shapes[name]}, the configuration says {wanted[name]}")
    for name in broken:
        report(f"tensor {name} holds numbers that are not finite")


@torch.no_grad()
def answer_of(model, tokenizer, args):
    ids = tokenizer(args.prompt, return_tensors="pt")["input_ids"]  # [1, seq]
    logits = model(input_ids=ids).logits[0, -1].float()  # [vocab]
    top = logits.topk(min(5, logits.numel()))
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=args.max_new_tokens,
        pad_token_id=tokenizer.eos_token_id,
    )
    answer = {
        "prompt": args.prompt,
        "ids": ids[0].tolist(),
        "logits": [
            [idx, tokenizer.convert_ids_to_tokens(idx), round(value, 5)]
            for idx, value in zip(top.indices.tolist(), top.values.tolist())
        ],
        "text": tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True),
    }
    return answer, logits


def compare(results, logits, reference, tolerance, report):
    for key in ("ids", "text"):
        if key in reference and reference[key] != results.get(key):
            report(f"{key}: {results.get(key)!r}, the reference has {reference[key]!r}")
    if "loss" in reference:
        if "loss" not in results:
            report("the reference has a loss: say with --rows on what it was measured")
        elif not abs(reference["loss"] - results["loss"]) <= tolerance:
            report(f"loss: {results['loss']}, the reference has {reference['loss']}")
    next_logits = reference.get("next_logits", [])
    if next_logits and logits is None:
        report("the reference has logits of a prompt, but the directory has no tokenizer")
        return
    for idx, value in next_logits:
        if not abs(logits[idx].item() - value) <= tolerance:
            report(f"logit of token {idx}: {logits[idx].item():.6f}, the reference has {value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--prompt", default="4821 = ")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--rows")
    parser.add_argument("--reference")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    args = parser.parse_args()

    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    faults = []
    model, loading = AutoModelForCausalLM.from_pretrained(
        args.directory, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    for kind, found in loading.items():
        if found:
            faults.append(f"transformers reports {kind}: {found}")
    check_tensors(args.directory, model, faults.append)
    model.eval()
    results, logits = {}, None
    if Path(args.directory, "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(args.directory, local_files_only=True)
        if len(tokenizer) > model.config.vocab_size:
            faults.append(f"the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}")
        results, logits = answer_of(model, tokenizer, args)
    if args.rows:
        rows = compare_full.read(args.rows)
        results["loss"] = round(compare_full.held_out_loss(model, rows, 8), 6)
    if args.reference:
        compare(results, logits, json.loads(Path(args.reference).read_text()), args.tolerance, faults.append)
    print(json.dumps(results))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
