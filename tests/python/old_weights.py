#!/usr/bin/env python3
"""Writes tests/weights: the same few tensors in every form in which torch saves them, and as safetensors.

    python tests/python/old_weights.py

Needs torch and safetensors. The files are committed; this says how they came about.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file

folder = pathlib.Path(__file__).parent.parent / "weights"
folder.mkdir(exist_ok=True)
CONFIG = dict(
    model_type="llama", hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, vocab_size=5, max_position_embeddings=16, tie_word_embeddings=False,
)
SHAPES = {
    "model.embed_tokens.weight": (5, 4),
    "model.layers.0.input_layernorm.weight": (4,),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.0.self_attn.k_proj.weight": (2, 4),
    "model.layers.0.self_attn.v_proj.weight": (2, 4),
    "model.layers.0.self_attn.o_proj.weight": (4, 4),
    "model.layers.0.post_attention_layernorm.weight": (4,),
    "model.layers.0.mlp.gate_proj.weight": (6, 4),
    "model.layers.0.mlp.up_proj.weight": (6, 4),
    "model.layers.0.mlp.down_proj.weight": (4, 6),
    "model.norm.weight": (4,),
}
torch.manual_seed(1)
state = {name: torch.randn(shape) for name, shape in SHAPES.items()}
# One storage for two names, views at an offset, a transposed one, an expanded one, halves, a parameter.
state["lm_head.weight"] = state["model.embed_tokens.weight"]
both = torch.randn(4, 4)
state["model.layers.0.self_attn.k_proj.weight"] = both[:2]
state["model.layers.0.self_attn.v_proj.weight"] = both[2:]
state["model.layers.0.mlp.down_proj.weight"] = torch.randn(6, 4).t()
state["model.layers.0.self_attn.q_proj.weight"] = torch.randn(4, 8)[:, ::2]
state["model.norm.weight"] = torch.full((1,), 0.5).expand(4)
state["model.layers.0.mlp.up_proj.weight"] = state["model.layers.0.mlp.up_proj.weight"].bfloat16()
state["model.layers.0.mlp.gate_proj.weight"] = state["model.layers.0.mlp.gate_proj.weight"].half()
state["model.layers.0.input_layernorm.weight"] = torch.nn.Parameter(torch.randn(4))
# Old checkpoints keep the positions, too.
state["model.position_ids"] = torch.arange(16)

(folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
torch.save(state, folder / "zip.bin")
torch.save(state, folder / "zip-protocol-4.bin", pickle_protocol=4)
torch.save(state, folder / "pickles.bin", _use_new_zipfile_serialization=False)
save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, folder / "plain.safetensors")

names = sorted(state)
half = len(names) // 2
for at, part in enumerate([names[:half], names[half:]], 1):
    torch.save({name: state[name] for name in part}, folder / f"shard-{at}.bin")


class Command:
    """A pickle that would run a command where it is loaded as Python does."""

    def __reduce__(self):
        import os
        return os.system, ("touch i_was_run",)


torch.save({"model.norm.weight": Command(), "lm_head.weight": torch.ones(5, 4)}, folder / "command.bin")
