#!/usr/bin/env python3
"""The golden runs in half numbers, by PyTorch: writes `tests/golden/precision.json`.

    python tests/python/precision.py

Needs torch and transformers. For each model under `tests/golden` and each half type it makes the case
`adamw-bottom2up-m1` again with half weights and activations and 32-bit masters: the model is transformers' own in
bfloat16 or float16; the gradients of the active layer, scaled by 65,536 for float16, become 32 bits wide, are unscaled and
clipped, change the masters by AdamW, and the weights become the nearest half numbers. What comes out is no norm for
single numbers, since every library rounds at places of its own. It says how far from the 32-bit run half numbers go.
"""

import json
import pathlib

import torch
import transformers

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
CASE = "adamw-bottom2up-m1"
MODELS = {
    "llama-tiny": ("batches-lm.json", transformers.AutoModelForCausalLM),
    "gpt2-tiny": ("batches-lm.json", transformers.AutoModelForCausalLM),
    "bert-cls-tiny": ("batches-cls.json", transformers.AutoModelForSequenceClassification),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(name, dtype):
    batches_file, auto = MODELS[name]
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    case = next(case for case in golden["cases"] if case["id"] == CASE)
    config = golden["defaults"] | case["config"]
    batches = json.loads((GOLDEN / batches_file).read_text())["batches"]
    path = GOLDEN / "models" / name
    masters = dict(auto.from_pretrained(path, dtype=torch.float32).named_parameters())
    model = auto.from_pretrained(path, dtype=dtype)
    model.eval()
    weights = dict(model.named_parameters())
    tensors, units = golden["tensors"], golden["units"]["split_head"]
    scale = 65536.0 if dtype == torch.float16 else 1.0
    states, losses, norms = {}, [], []
    for step, active in enumerate(case["active"]):
        names = [tensors[i] for unit in active for i in units[unit][1] if tensors[i] in weights]
        for key, weight in weights.items():
            weight.requires_grad_(key in names)
            weight.grad = None
        batch = {key: torch.tensor(value) for key, value in batches[step].items() if value is not None}
        if golden["batches"] == "batches-lm.json":
            logits = model(batch["input_ids"]).logits.float()
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, logits.shape[-1]), batch["labels"][:, 1:].reshape(-1), ignore_index=-100
            )
        else:
            logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
            loss = torch.nn.functional.cross_entropy(logits, batch["labels"])
        (loss * scale).backward()
        gradients = {key: weights[key].grad.float() / scale for key in names}
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients.values())).item()
        losses.append(loss.item())
        norms.append(norm)
        factor = min(1.0, config["grad_clip"] / (norm + 1e-6)) if config["grad_clip"] > 0 else 1.0
        beta1, beta2 = config["betas"]
        with torch.no_grad():
            for key, g in gradients.items():
                p, g = masters[key], g * factor
                m, v, t = states.get(key, (torch.zeros_like(p), torch.zeros_like(p), 0))
                t += 1
                if p.dim() >= 2:
                    p.mul_(1 - config["lr"] * config["weight_decay"])
                m = beta1 * m + (1 - beta1) * g
                v = beta2 * v + (1 - beta2) * g * g
                denominator = v.sqrt() / (1 - beta2**t) ** 0.5 + config["eps"]
                p.sub_(config["lr"] / (1 - beta1**t) * m / denominator)
                states[key] = (m, v, t)
                weights[key].copy_(p.to(dtype))
    if dtype == torch.float32:
        # The program is the one that made the golden runs.
        off = max(abs(a - b) for a, b in zip(losses, case["loss"]))
        assert off < 2e-5, f"{name}: {off}"
    return {"loss": losses, "grad_norm": norms}, case


def main():
    made = {"case": CASE, "torch": torch.__version__}
    for name in MODELS:
        made[name] = {}
        for word, dtype in DTYPES.items():
            result, case = run(name, dtype)
            off = [abs(a - b) for a, b in zip(result["loss"], case["loss"])]
            off_norm = [abs(a / b - 1) for a, b in zip(result["grad_norm"], case["grad_norm"])]
            print(f"{name} {word}: loss off by {sum(off) / len(off):.2e}, at most {max(off):.2e}; "
                  f"norm by {sum(off_norm) / len(off_norm):.2e}, at most {max(off_norm):.2e}")
            if dtype != torch.float32:
                made[name][word] = {key: [float(f"{x:.7g}") for x in values] for key, values in result.items()}
    (GOLDEN / "precision.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
