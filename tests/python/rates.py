"""The rates of transformers' schedulers, for tests/rates.rs.

    python -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tests/python/rates.py > tests/golden/rates.json
"""

import json

import torch
from transformers import get_scheduler

STEPS, PEAK = 50, 2e-3

# The rate in the language, and the scheduler's name and settings.
CASES = {
    "constant(2e-3)": ("constant", {}),
    "constant(2e-3, warmup = 7 steps)": ("constant_with_warmup", {"num_warmup_steps": 7}),
    "linear(2e-3, warmup = 7 steps)": ("linear", {"num_warmup_steps": 7}),
    "cosine(2e-3)": ("cosine", {"num_warmup_steps": 0}),
    "cosine(2e-3, warmup = 10 %)": ("cosine", {"num_warmup_steps": 5}),
    "cosine(2e-3, warmup = 5 steps, end = 2e-4)": (
        "cosine_with_min_lr", {"num_warmup_steps": 5, "scheduler_specific_kwargs": {"min_lr": 2e-4}},
    ),
    "cosine_with_restarts(2e-3, warmup = 6 steps)": ("cosine_with_restarts", {"num_warmup_steps": 6}),
    "cosine_with_restarts(2e-3, warmup = 6 steps, periods = 3)": (
        "cosine_with_restarts", {"num_warmup_steps": 6, "scheduler_specific_kwargs": {"num_cycles": 3}},
    ),
    "polynomial(2e-3, warmup = 4 steps, end = 1e-7)": ("polynomial", {"num_warmup_steps": 4}),
    "polynomial(2e-3, warmup = 4 steps, end = 1e-4, power = 2.5)": (
        "polynomial", {"num_warmup_steps": 4, "scheduler_specific_kwargs": {"power": 2.5, "lr_end": 1e-4}},
    ),
    "inverse_sqrt(2e-3, warmup = 8 steps)": ("inverse_sqrt", {"num_warmup_steps": 8}),
    "inverse_sqrt(2e-3)": ("inverse_sqrt", {"num_warmup_steps": 0}),
    "inverse_sqrt(2e-3, warmup = 8 steps, timescale = 20 steps)": (
        "inverse_sqrt", {"num_warmup_steps": 8, "scheduler_specific_kwargs": {"timescale": 20}},
    ),
    "wsd(2e-3, warmup = 5 steps, decay = 12 steps)": (
        "warmup_stable_decay", {"num_warmup_steps": 5, "scheduler_specific_kwargs": {"num_decay_steps": 12}},
    ),
    "wsd(2e-3, warmup = 5 steps, decay = 20 %, shape = linear)": (
        "warmup_stable_decay",
        {"num_warmup_steps": 5, "scheduler_specific_kwargs": {"num_decay_steps": 10, "decay_type": "linear"}},
    ),
    "wsd(2e-3, decay = 12 steps, shape = sqrt, end = 2e-4)": (
        "warmup_stable_decay",
        {
            "num_warmup_steps": 0,
            "scheduler_specific_kwargs": {"num_decay_steps": 12, "decay_type": "1-sqrt", "min_lr_ratio": 0.1},
        },
    ),
}

cases = {}
for text, (name, settings) in CASES.items():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = get_scheduler(name, optimizer, num_training_steps=STEPS, **settings)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    cases[text] = rates
lines = ",\n".join(f"{json.dumps(text)}: {json.dumps(rates)}" for text, rates in cases.items())
print(f'{{"steps": {STEPS}, "cases": {{\n{lines}\n}}}}')
