#!/usr/bin/env python3
"""Trains a tiny model of each family a cycle, a layer a step, and holds what it then writes against transformers.

    python tests/python/generate.py --hift target/debug/hift

Needs torch and transformers; without them it says so and does nothing. For each family it saves a small random model and a
tokenizer of made-up words, lets hift train it layer by layer, export it, and continue prompts of several lengths by greedy and
beam search. The export as transformers loads it has to write the same texts, and no tensor of it may be strange or missing.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(0)

VOCAB = 61
EOS = 3
DECODER = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=EOS, pad_token_id=0,
)
MARKS = dict(bos_token_id=None, eos_token_id=EOS, pad_token_id=0)
MODELS = [
    ("llama", "LlamaConfig", dict(DECODER)),
    ("mistral, a window", "MistralConfig", dict(DECODER, sliding_window=5)),
    ("qwen3", "Qwen3Config", dict(DECODER, head_dim=12)),
    # Prompts and their texts are within the original positions, grow beyond them, or are beyond them from the start.
    ("phi3, longrope", "Phi3Config", dict(
        DECODER, original_max_position_embeddings=8, sliding_window=None, rope_parameters=dict(
            rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.3, 1.7, 2.5],
            long_factor=[2.0, 3.0, 5.0, 9.0]))),
    ("phi3", "Phi3Config", dict(DECODER, sliding_window=6)),
    ("qwen2, a window", "Qwen2Config", dict(
        DECODER, tie_word_embeddings=True, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    ("gemma", "GemmaConfig", dict(DECODER, head_dim=12)),
    ("gemma3", "Gemma3TextConfig", dict(
        DECODER, num_hidden_layers=7, head_dim=12, query_pre_attn_scalar=9, sliding_window=5)),
    ("olmo2", "Olmo2Config", dict(DECODER)),
    ("gemma2", "Gemma2Config", dict(DECODER, head_dim=12, query_pre_attn_scalar=9, sliding_window=5)),
    ("gpt2", "GPT2Config", dict(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=64, **MARKS)),
    ("gpt_neo", "GPTNeoConfig", dict(
        vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=64, window_size=5,
        attention_types=[[["global", "local"], 1]], **MARKS)),
    ("gpt_neox", "GPTNeoXConfig", dict(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=64, **MARKS)),
    ("opt", "OPTConfig", dict(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=56, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, **MARKS)),
    ("opt, as 350m", "OPTConfig", dict(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=56, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=20, do_layer_norm_before=False, **MARKS)),
    ("gpt_neox, serial", "GPTNeoXConfig", dict(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=64, use_parallel_residual=False, **MARKS)),
]
SEARCHES = [
    ("", dict()),
    ("beams = 4", dict(num_beams=4)),
    ("beams = 3  length_penalty = 0", dict(num_beams=3, length_penalty=0.0)),
    ("beams = 3  length_penalty = 2.5  early_stopping = true", dict(num_beams=3, length_penalty=2.5, early_stopping=True)),
    ("temperature = 0.7  top_k = 1", dict()),
]
PIPELINE = """hift 1
data rows {{ source = json("rows.jsonl")  format = tokens  shuffle = none }}
tokenizer words {{ file = "tokenizer.json"  end = none }}
model tiny {{ weights = "model" }}
groups layers {{ split = by_layer(1) }}
schedule turns {{ rate = constant(0.02) }}
optimizer adamw {{ }}
train cycle {{
    data = rows  tokenizer = words  model = tiny  groups = layers  schedule = turns  optimizer = adamw
    steps = 9  micro_batch = 3  device = cpu
}}
export out {{ from = cycle  to = "out"  dtype = fp32 }}
"""
GENERATE = """generate texts{at} {{
    from = cycle  prompts = {prompts}  max_new_tokens = {n} tokens  micro_batch = 3  {search}
}}
"""


def tokenizer():
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {word: id for id, word in enumerate(marks + [f"w{id}" for id in range(5, VOCAB)])}
    return json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
                       "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hift", default="target/debug/hift")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    failed = tried = ended = 0
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    word = lambda id: marks[id] if id < 5 else f"w{id}"
    for name, kind, arguments in MODELS:
        torch.manual_seed(5)
        config = getattr(transformers, kind)(**arguments)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 1.2 / math.sqrt(min(parameter.shape)))
        generator = torch.Generator().manual_seed(3)
        prompts = [torch.randint(5, VOCAB, (n,), generator=generator).tolist() for n in [1, 4, 9, 2]]
        rows = [torch.randint(5, VOCAB, (n,), generator=generator).tolist() for n in [12, 17, 7, 20]]
        n = 16
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            model.save_pretrained(folder / "model")
            (folder / "tokenizer.json").write_text(tokenizer())
            (folder / "rows.jsonl").write_text("".join(json.dumps(dict(input_ids=ids)) + "\n" for ids in rows))
            texts = json.dumps([" ".join(map(word, ids)) for ids in prompts])
            stages = [GENERATE.format(at=at, prompts=texts, n=n, search=search) for at, (search, _) in enumerate(SEARCHES)]
            (folder / "g.hift").write_text(PIPELINE.format() + "".join(stages))
            run = subprocess.run([args.hift, "run", str(folder / "g.hift"), "--dir", str(folder / "run")],
                                 capture_output=True, text=True)
            if run.returncode != 0:
                print(f"OFF  {name}: hift ended with {run.returncode}: {run.stderr[-800:]}")
                failed += 1
                continue
            metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
            groups = {group for line in metrics for group in line["group"]}
            layers = getattr(config, "num_hidden_layers", None) or config.num_layers
            if not {"embedding", *(f"block.{i}" for i in range(layers))} <= groups:
                print(f"OFF  {name}: only {sorted(groups)} trained")
                failed += 1
            events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder / "out", attn_implementation="eager", output_loading_info=True)
            if any(info[kind] for kind in ["missing_keys", "unexpected_keys", "mismatched_keys"]):
                print(f"OFF  {name}: {info}")
                failed += 1
            model = model.float().eval()
            for at, (search, options) in enumerate(SEARCHES):
                found = [event["text"] for event in events if event["event"] == "generate" and event["stage"] == f"texts{at}"]
                wanted = []
                for ids in prompts:
                    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                                         max_new_tokens=n, do_sample=False, **options)[0, len(ids):].tolist()
                    if EOS in out:
                        out = out[: out.index(EOS)]
                        ended += 1
                    wanted.append(" ".join(map(word, out)))
                tried += 1
                same = found == wanted
                failed += not same
                print(f"{'ok  ' if same else 'OFF '} {name:18} {search or 'greedy'}", flush=True)
                if not same:
                    for a, b in zip(found, wanted):
                        if a != b:
                            print("   hift ", a, "\n   torch", b)
    print(f"{tried} searches, {failed} failed; {ended} texts ended by themselves")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
