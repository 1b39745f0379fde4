#!/usr/bin/env python3
"""What PyTorch needs for the training step that hift is timed against.

Trains a llama-shaped model on random tokens, fp32, on the CPU, and prints one JSON line:

    python tests/speed/torch_baseline.py --mode full --threads 2 --cycles 3
    python tests/speed/torch_baseline.py --mode hift --threads 2 --cycles 3

`full` trains all weights at every step; `hift` trains one group of `--m` layers (embedding, the blocks,
final norm + head) at each step, and a cycle gives every group its turn. A cycle of `full` has as many
steps, so that both modes process the same tokens. The first `--warmup` cycles are not counted.

`tokens_per_second` is the median over the cycles, `best_tokens_per_second` the fastest of them (the better figure
where other programs share the machine); `peak_resident_bytes` is VmHWM of the whole process,
of which `import_bytes` were there before the model. A figure is only good for a ratio against another
one measured on the same machine in the same minute. Needs torch and nothing else.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, hidden, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)  # [batch, seq, hidden]


def rotate(x, cos, sin):
    """Rotary positions in the half-split layout of Hugging Face's llama."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin  # [batch, heads, seq, head_dim]


class Block(nn.Module):
    def __init__(self, hidden, heads, ffn, eps):
        super().__init__()
        self.heads = heads
        self.input_norm = RMSNorm(hidden, eps)
        self.q, self.k, self.v, self.o = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))
        self.post_norm = RMSNorm(hidden, eps)
        self.gate = nn.Linear(hidden, ffn, bias=False)
        self.up = nn.Linear(hidden, ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, seq, hidden = x.shape
        normed = self.input_norm(x)  # [batch, seq, hidden]
        q, k, v = (
            linear(normed).view(batch, seq, self.heads, -1).transpose(1, 2) for linear in (self.q, self.k, self.v)
        )  # [batch, heads, seq, head_dim]
        mixed = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, seq, hidden))  # [batch, seq, hidden]
        normed = self.post_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))  # [batch, seq, hidden]


class Llama(nn.Module):
    def __init__(self, vocab, hidden, n_layers, heads, ffn, seq, eps=1e-5, theta=10000.0, std=0.02):
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, ffn, eps) for _ in range(n_layers))
        self.norm = RMSNorm(hidden, eps)
        self.head = nn.Linear(hidden, vocab, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=std)
        head_dim = hidden // heads
        frequency = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
        angle = torch.arange(seq)[:, None] * frequency.repeat(2)  # [seq, head_dim]
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def layers(self):
        """The units that take turns, from input to output, as lists of parameters."""
        layers = [list(self.embedding.parameters())]
        layers += [list(block.parameters()) for block in self.blocks]
        return layers + [[self.norm.weight, self.head.weight]]

    def forward(self, ids):
        seq = ids.shape[1]
        x = self.embedding(ids)  # [batch, seq, hidden]
        for block in self.blocks:
            x = block(x, self.cos[:seq], self.sin[:seq])
        return self.head(self.norm(x))  # [batch, seq, vocab]


def resident_peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["full", "hift"], required=True)
    parser.add_argument("--m", type=int, default=1, help="layers per group in mode hift")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="cycles before the clock starts")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--ffn", type=int, default=1376)
    parser.add_argument("--vocab", type=int, default=8192)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    import_bytes = resident_peak()
    model = Llama(args.vocab, args.hidden, args.layers, args.heads, args.ffn, args.seq)
    parameters = list(model.parameters())
    layers = model.layers()
    hift = [sum(layers[at : at + args.m], []) for at in range(0, len(layers), args.m)]
    groups = hift if args.mode == "hift" else [parameters] * len(hift)
    # A parameter without a gradient is left alone, so each keeps its own state and step count.
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    seconds, seconds_of_group, losses = [], [[] for _ in groups], []
    for cycle in range(args.warmup + args.cycles):
        begin = time.perf_counter()
        for group_idx, group in enumerate(groups):
            step_begin = time.perf_counter()
            active = set(group)
            for parameter in parameters:
                parameter.requires_grad_(parameter in active)
            ids = torch.randint(args.vocab, (args.batch, args.seq))  # [batch, seq]
            targets = F.pad(ids[:, 1:], (0, 1), value=-100)  # the token after each position
            loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            if cycle >= args.warmup:
                seconds_of_group[group_idx].append(time.perf_counter() - step_begin)
        if cycle >= args.warmup:
            seconds.append(time.perf_counter() - begin)

    tokens = len(groups) * args.batch * args.seq
    peak = resident_peak()
    result = {
        "engine": f"torch {torch.__version__}",
        "mode": args.mode,
        "m": args.m if args.mode == "hift" else None,
        "threads": args.threads,
        "batch": args.batch,
        "seq": args.seq,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "steps_per_cycle": len(groups),
        "cycles": args.cycles,
        "tokens_per_second": round(tokens / statistics.median(seconds), 1),
        "best_tokens_per_second": round(tokens / min(seconds), 1),
        "tokens_per_second_of_each_cycle": [round(tokens / second, 1) for second in seconds],
        "peak_resident_bytes": peak,
        "import_bytes": import_bytes,
        "first_loss": round(losses[0], 5),
        "last_loss": round(losses[-1], 5),
    }
    if args.mode == "hift":
        result["seconds_of_group"] = [round(statistics.median(group), 4) for group in seconds_of_group]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
