"""Weights after a few updates by other people's optimizers, for tests/optimizers.rs.

    python -m venv venv && venv/bin/pip install torch transformers bitsandbytes pytorch-optimizer
    venv/bin/python tests/python/optimizers.py > tests/golden/optimizers.json

Sources: torch.optim (AdamW, Adam, SGD, Adagrad, RMSprop), transformers' Adafactor, pytorch-optimizer's Lion, LARS and
Adam-mini, bitsandbytes' 8-bit values around torch's formulas; LAMB as its paper's algorithm 2 says it.
"""

import json
import math

import bitsandbytes.functional as bnb
import pytorch_optimizer as other
import torch
from transformers.optimization import Adafactor

RATE = 0.01
STEPS = 5
# As they are in the model of tests/optimizers.rs; 8-bit states begin at 4,096 elements.
TENSORS = {
    "block.0.norm.mlp": [64],
    "block.0.attention.q": [64, 64],
    "block.0.mlp.down": [64, 96],
    "embedding.tokens": [90, 64],
}
HEADS = 4


def weights(n):
    return torch.tensor([0.5 * math.cos(0.37 * i) for i in range(n)], dtype=torch.float32)


def gradient(n, step):
    # Sizes differ along the tensor, so that scales and averages do.
    return torch.tensor(
        [math.sin(0.11 * i * step + 0.7 * step) * math.exp(-3.0 * (i % 97) / 97) for i in range(n)],
        dtype=torch.float32,
    )


def run(name, shape, update):
    """`update(p, step)` changes `p`, whose gradient is `p.grad`."""
    n = math.prod(shape)
    p = torch.nn.Parameter(weights(n).reshape(shape))
    for step in range(1, STEPS + 1):
        p.grad = gradient(n, step).reshape(shape)
        with torch.no_grad():
            update(p, step)
    return p.detach().flatten()


def optimizer(make):
    def case(name, shape):
        made = []

        def update(p, step):
            if not made:
                made.append(make([p], len(shape) > 1))
            with torch.enable_grad():
                made[0].step()

        return run(name, shape, update)

    return case


def torch_like(cls, decay=0.0, **settings):
    """Tensors with one axis do not decay."""
    return optimizer(lambda params, matrix: cls(params, lr=RATE, weight_decay=decay if matrix else 0.0, **settings))


def lamb(decay, beta1=0.9, beta2=0.999, eps=1e-6):
    def case(name, shape):
        state = {}

        def update(p, step):
            m, v = state.setdefault("m", torch.zeros_like(p)), state.setdefault("v", torch.zeros_like(p))
            m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            u = (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
            u += (decay if p.dim() > 1 else 0.0) * p
            p.sub_(RATE * p.norm() / u.norm() * u)

        return run(name, shape, update)

    return case


def adam_mini(decay, beta1=0.9, beta2=0.999, eps=1e-8):
    def case(name, shape):
        state = {}
        parts = {"block.0.norm.mlp": 1, "block.0.attention.q": HEADS}.get(name, shape[0])

        def update(p, step):
            p.mul_(1 - RATE * (decay if p.dim() > 1 else 0.0))
            other.AdamMini.step_attn_proj(
                p, p.grad, state, p.numel() // parts, RATE, beta1, beta2,
                1 - beta1**step, math.sqrt(1 - beta2**step), eps,
            )

        return run(name, shape, update)

    return case


BLOCK = 256
SIGNED, UNSIGNED = bnb.create_dynamic_map(True), bnb.create_dynamic_map(False)


class Quantised:
    """A moment between two updates: 8 bits if the tensor is large enough."""

    def __init__(self, like, code):
        self.code, self.shape = code, like.shape
        self.value = torch.zeros_like(like)
        self.small = like.numel() < 4096

    def get(self):
        return self.value.clone()

    def put(self, x):
        if self.small:
            self.value = x
            return
        # The nearest value, as the optimizers' GPU kernels have it; `quantize_blockwise` on a CPU is coarser.
        blocks = torch.nn.functional.pad(x.flatten(), (0, -x.numel() % BLOCK)).reshape(-1, BLOCK)
        scales = blocks.abs().amax(1, keepdim=True)
        shares = blocks / scales.clamp(min=1e-38)
        codes = (shares[..., None].double() - self.code.double()).abs().argmin(-1)
        # And what is negative keeps its sign.
        codes -= ((blocks < 0) & (self.code[codes] >= 0)).long()
        self.value = (self.code[codes] * scales).flatten()[: x.numel()].reshape(self.shape)


def adam_8bit(decay, decoupled, beta1=0.9, beta2=0.999, eps=1e-8):
    def case(name, shape):
        state = {}

        def update(p, step):
            own = decay if p.dim() > 1 else 0.0
            g = p.grad if decoupled else p.grad + own * p
            if decoupled:
                p.mul_(1 - RATE * own)
            if not state:
                state["m"], state["v"] = Quantised(p, SIGNED), Quantised(p, UNSIGNED)
            m, v = state["m"].get(), state["v"].get()
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            p.addcdiv_(m, v.sqrt() / math.sqrt(1 - beta2**step) + eps, value=-RATE / (1 - beta1**step))
            state["m"].put(m)
            state["v"].put(v)

        return run(name, shape, update)

    return case


def lion_8bit(decay, beta1=0.9, beta2=0.99):
    def case(name, shape):
        state = {}

        def update(p, step):
            if not state:
                state["m"] = Quantised(p, SIGNED)
            m = state["m"].get()
            p.mul_(1 - RATE * (decay if p.dim() > 1 else 0.0))
            p.sub_(RATE * torch.sign(beta1 * m + (1 - beta1) * p.grad))
            state["m"].put(beta2 * m + (1 - beta2) * p.grad)

        return run(name, shape, update)

    return case


def adafactor(decay, **settings):
    return torch_like(Adafactor, decay, relative_step=False, warmup_init=False, **settings)


# The block in the language, and what it must come to.
CASES = {
    "adamw weight_decay = 0.1": torch_like(torch.optim.AdamW, 0.1, foreach=False),
    "adamw betas = [0.8, 0.95] eps = 1e-3": torch_like(torch.optim.AdamW, 0.01, betas=(0.8, 0.95), eps=1e-3),
    "adam weight_decay = 0.1": torch_like(torch.optim.Adam, 0.1, foreach=False),
    "sgd weight_decay = 0.1": torch_like(torch.optim.SGD, 0.1),
    "sgdm weight_decay = 0.1": torch_like(torch.optim.SGD, 0.1, momentum=0.9),
    "sgdm nesterov = true momentum = 0.8": torch_like(torch.optim.SGD, momentum=0.8, nesterov=True),
    "adagrad weight_decay = 0.1": torch_like(torch.optim.Adagrad, 0.1),
    "adagrad eps = 1e-2": torch_like(torch.optim.Adagrad, eps=1e-2),
    "rmsprop weight_decay = 0.1": torch_like(torch.optim.RMSprop, 0.1),
    "rmsprop alpha = 0.9 momentum = 0.5": torch_like(torch.optim.RMSprop, alpha=0.9, momentum=0.5),
    "rmsprop centered = true eps = 1e-4": torch_like(torch.optim.RMSprop, centered=True, eps=1e-4),
    "rmsprop centered = true momentum = 0.5 eps = 1e-4": torch_like(
        torch.optim.RMSprop, centered=True, momentum=0.5, eps=1e-4
    ),
    "adafactor": adafactor(0.0, scale_parameter=False),
    "adafactor decay_rate = 0.6 clip_threshold = 0.5 weight_decay = 0.1": adafactor(
        0.1, scale_parameter=False, decay_rate=-0.6, clip_threshold=0.5
    ),
    "adafactor beta1 = 0.9 scale_parameter = true": adafactor(0.0, scale_parameter=True, beta1=0.9),
    "lion weight_decay = 0.1": torch_like(other.Lion, 0.1),
    "lamb weight_decay = 0.1": lamb(0.1),
    "lars weight_decay = 0.1": torch_like(other.LARS, 0.1),
    "lars nesterov = true trust = 0.02 momentum = 0.5": torch_like(
        other.LARS, nesterov=True, trust_coefficient=0.02, momentum=0.5
    ),
    "adam_mini weight_decay = 0.1": adam_mini(0.1),
    "adamw8bit weight_decay = 0.1": adam_8bit(0.1, True),
    "adam8bit weight_decay = 0.1": adam_8bit(0.1, False),
    "lion8bit weight_decay = 0.1": lion_8bit(0.1),
}

cases = []
for block, case in CASES.items():
    for name, shape in TENSORS.items():
        p = case(name, shape).double()
        # A few of the weights, and all of them in two sums.
        values = [float(f"{x:.8g}") for x in p[:: 7 if len(p) < 1000 else 61].tolist()]
        cases.append({
            "optimizer": block, "tensor": name, "sum": p.sum().item(), "absolute": p.abs().sum().item(), "values": values,
        })
lines = ",\n".join(json.dumps(case) for case in cases)
print(f'{{"rate": {RATE}, "steps": {STEPS},\n"cases": [\n{lines}\n]}}')
