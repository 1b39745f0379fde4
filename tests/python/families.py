#!/usr/bin/env python3
"""Holds every model family against transformers: the loss and one step's gradients of a tiny random model.

    python tests/python/families.py --hift target/debug/hift [NAME ...]

Needs torch and transformers; without them it says so and does nothing. For each family it builds a small model with weights
far from zero, saves it as transformers does, lets hift make one step of plain descent at a huge rate over all weights, and
reads the gradients off the export. Prints a line for each: the loss, and the largest difference of a tensor's gradient as a
part of its norm. The exported model is loaded by transformers again, which must know all of its tensors, and gives the
loss of torch's own step.

NAME is one of the names that are printed. Ends with 1 if one is off by more than `--tolerance`.
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
    import torch.nn.functional as F
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(0)

# A power of two, so that taking the gradient off the weights loses nothing else.
RATE = 2.0**10

DECODER = dict(
    vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None, pad_token_id=None,
)
ENCODER = dict(
    vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=64, num_labels=3, pad_token_id=0,
)
MARKS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)

# Name, class of the configuration, its arguments.
CAUSAL = [
    ("llama", "LlamaConfig", dict(DECODER)),
    ("llama, as 3.1", "LlamaConfig", dict(
        DECODER, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=12,
        rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=16))),
    ("llama, linear", "LlamaConfig", dict(DECODER, rope_parameters=dict(
        rope_type="linear", rope_theta=10000.0, factor=4.0))),
    ("llama, dynamic", "LlamaConfig", dict(DECODER, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, factor=4.0))),
    ("llama, yarn", "LlamaConfig", dict(DECODER, head_dim=12, rope_parameters=dict(
        rope_type="yarn", rope_theta=100.0, factor=4.0, beta_fast=4.0, original_max_position_embeddings=16))),
    ("qwen2, yarn as deepseek", "Qwen2Config", dict(DECODER, rope_parameters=dict(
        rope_type="yarn", rope_theta=50.0, factor=8.0, mscale=0.7, mscale_all_dim=1.3, truncate=False,
        original_max_position_embeddings=32))),
    ("phi3, longrope", "Phi3Config", dict(
        DECODER, original_max_position_embeddings=32, rope_parameters=dict(
            rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.3, 1.7, 2.5],
            long_factor=[2.0, 3.0, 5.0, 9.0], original_max_position_embeddings=32))),
    # Rows have 17 tokens: one more than the original positions, and as many.
    ("phi3, longrope, long", "Phi3Config", dict(
        DECODER, original_max_position_embeddings=16, rope_parameters=dict(
            rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.3, 1.7, 2.5],
            long_factor=[2.0, 3.0, 5.0, 9.0]))),
    ("phi3, longrope, at the end", "Phi3Config", dict(
        DECODER, original_max_position_embeddings=17, rope_parameters=dict(
            rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.3, 1.7, 2.5],
            long_factor=[2.0, 3.0, 5.0, 9.0]))),
    ("llama, longrope, long", "LlamaConfig", dict(DECODER, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, factor=4.0, short_factor=[1.0, 1.3, 1.7, 2.5],
        long_factor=[2.0, 3.0, 5.0, 9.0], original_max_position_embeddings=8))),
    ("phi4-mini, longrope, long", "Phi3Config", dict(
        DECODER, num_attention_heads=2, num_key_value_heads=1, original_max_position_embeddings=8, sliding_window=6,
        rope_parameters=dict(
            rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
            short_factor=[1.0, 1.3, 1.7, 2.5, 3.0, 3.5], long_factor=[2.0, 3.0, 5.0, 9.0, 9.0, 9.0]))),
    ("phi4-mini, longrope", "Phi3Config", dict(
        DECODER, num_attention_heads=2, num_key_value_heads=1, original_max_position_embeddings=32,
        rope_parameters=dict(
            rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, attention_factor=1.2,
            short_factor=[1.0, 1.3, 1.7, 2.5, 3.0, 3.5], long_factor=[2.0, 3.0, 5.0, 9.0, 9.0, 9.0],
            original_max_position_embeddings=32))),
    ("smollm", "LlamaConfig", dict(DECODER, num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True)),
    ("mistral", "MistralConfig", dict(DECODER, sliding_window=5)),
    ("mistral, no window", "MistralConfig", dict(DECODER, sliding_window=None, head_dim=10)),
    ("qwen2", "Qwen2Config", dict(DECODER)),
    ("qwen2.5, tied, window", "Qwen2Config", dict(
        DECODER, tie_word_embeddings=True, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    ("qwen3", "Qwen3Config", dict(DECODER, head_dim=12)),
    ("phi3", "Phi3Config", dict(DECODER, sliding_window=6)),
    ("phi4-mini", "Phi3Config", dict(
        DECODER, tie_word_embeddings=True, num_attention_heads=2, num_key_value_heads=1,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75))),
    ("gemma", "GemmaConfig", dict(DECODER, head_dim=12)),
    ("gemma2", "Gemma2Config", dict(
        DECODER, head_dim=12, query_pre_attn_scalar=9, sliding_window=5, attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0)),
    ("gemma3", "Gemma3TextConfig", dict(
        DECODER, num_hidden_layers=7, head_dim=12, query_pre_attn_scalar=9, sliding_window=5)),
    ("gemma3, beside pictures", "Gemma3TextConfig", dict(
        DECODER, num_hidden_layers=7, head_dim=256, query_pre_attn_scalar=9, sliding_window=5, rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0)))),
    ("olmo2", "Olmo2Config", dict(DECODER)),
    ("gpt2", "GPT2Config", dict(vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64, **MARKS)),
    ("gpt2, scaled by depth", "GPT2Config", dict(
        vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64, n_inner=40, tie_word_embeddings=False,
        scale_attn_by_inverse_layer_idx=True, activation_function="gelu", **MARKS)),
    ("gpt_neo", "GPTNeoConfig", dict(
        vocab_size=61, hidden_size=32, num_layers=4, num_heads=4, max_position_embeddings=64, window_size=5,
        attention_types=[[["global", "local"], 2]], **MARKS)),
    ("gpt_neox", "GPTNeoXConfig", dict(
        vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=64, **MARKS)),
    ("gpt_neox, serial", "GPTNeoXConfig", dict(
        vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=64, use_parallel_residual=False, attention_bias=False,
        rope_parameters=dict(rope_type="default", rope_theta=5000.0, partial_rotary_factor=1.0), **MARKS)),
    ("opt", "OPTConfig", dict(
        vocab_size=61, hidden_size=32, ffn_dim=56, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, dropout=0.0, attention_dropout=0.0, bos_token_id=None, eos_token_id=None,
        pad_token_id=None)),
    ("opt, as 350m", "OPTConfig", dict(
        vocab_size=61, hidden_size=32, ffn_dim=56, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=20, do_layer_norm_before=False, bos_token_id=None,
        eos_token_id=None, pad_token_id=None)),
]
# Classifiers. A causal one reads the last token that is not padding.
CLASSIFIERS = [
    ("bert", "BertConfig", dict(ENCODER)),
    ("roberta", "RobertaConfig", dict(ENCODER, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1)),
    ("bert for a number", "BertConfig", dict(ENCODER, num_labels=1)),
    ("distilbert", "DistilBertConfig", dict(
        vocab_size=61, dim=32, hidden_dim=56, n_layers=3, n_heads=4, max_position_embeddings=64, num_labels=3)),
    ("llama for classes", "LlamaConfig", dict(DECODER, num_labels=3, pad_token_id=0)),
    ("phi3 for classes, longrope, long", "Phi3Config", dict(
        DECODER, num_labels=3, pad_token_id=0, original_max_position_embeddings=12, rope_parameters=dict(
            rope_type="longrope", rope_theta=10000.0, short_factor=[1.0, 1.3, 1.7, 2.5],
            long_factor=[2.0, 3.0, 5.0, 9.0]))),
    ("gpt2 for classes", "GPT2Config", dict(
        vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64, num_labels=3, bos_token_id=None,
        eos_token_id=None, pad_token_id=0)),
    ("opt, as 350m, for classes", "OPTConfig", dict(
        vocab_size=61, hidden_size=32, ffn_dim=56, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=20, do_layer_norm_before=False, num_labels=3,
        bos_token_id=None, eos_token_id=None, pad_token_id=0)),
]
# Classes of words.
WORDS = [
    ("bert for words", "BertConfig", dict(ENCODER)),
    ("roberta for words", "RobertaConfig", dict(ENCODER, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1)),
    ("distilbert for words", "DistilBertConfig", dict(
        vocab_size=61, dim=32, hidden_dim=56, n_layers=3, n_heads=4, max_position_embeddings=64, num_labels=3)),
    ("llama for words", "LlamaConfig", dict(DECODER, num_labels=3, pad_token_id=0)),
    ("qwen2 for words", "Qwen2Config", dict(DECODER, num_labels=3, pad_token_id=0)),
    ("gpt2 for words", "GPT2Config", dict(
        vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=64, num_labels=3, bos_token_id=None,
        eos_token_id=None, pad_token_id=0)),
    ("gpt_neox for words", "GPTNeoXConfig", dict(
        vocab_size=61, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=64, num_labels=3, bos_token_id=None, eos_token_id=None, pad_token_id=0)),
]
# Answers in a text. A tokenizer puts question and text together.
ANSWERS = [
    ("bert for answers", "BertConfig", dict(ENCODER, num_labels=2)),
    ("roberta for answers", "RobertaConfig", dict(ENCODER, num_labels=2, num_hidden_layers=2, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1)),
    ("distilbert for answers", "DistilBertConfig", dict(
        vocab_size=61, dim=32, hidden_dim=56, n_layers=2, n_heads=4, max_position_embeddings=64)),
]


def build(config, auto):
    """A model whose every tensor matters: matrices of unit gain, norms around one, biases around zero."""
    torch.manual_seed(7)
    model = auto.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 1.2 / math.sqrt(min(parameter.shape)))
            elif "norm" in name.lower() or "ln_" in name:
                mean = 0.0 if name.endswith("bias") or "gemma" in config.model_type else 1.0
                parameter.normal_(mean, 0.3)
            else:
                parameter.normal_(0.0, 0.3)
    return model


def rows_of(task):
    """Rows of ids with their labels, a class, classes of words, or the ends of an answer. Ids below 5 are marks and padding."""
    classifier = task == "class"
    generator = torch.Generator().manual_seed(3)
    draw = lambda n, low, high: torch.randint(low, high, (n,), generator=generator).tolist()
    rows = []
    for length in [17, 17, 17] if task in ["next", "answer"] else [17, 9, 12]:
        ids = draw(length, 5, 61)
        if task == "words":
            labels = [-100 if skip == 0 else label for label, skip in zip(draw(length, 0, 3), draw(length, 0, 4))]
            rows.append(dict(input_ids=ids, labels=labels))
        elif task == "answer":
            # Four words of a question, and ten of a text.
            ids = [2] + ids[:4] + [3] + ids[5:15] + [3]
            begin = draw(1, 6, 16)[0]
            end = draw(1, begin, 16)[0]
            rows.append(dict(input_ids=ids, begin=begin, end=end))
        elif classifier:
            rows.append(dict(input_ids=ids, label=draw(1, 0, 3)[0]))
        else:
            labels = [-100 if skip == 0 else id for id, skip in zip(ids, draw(length, 0, 5))]
            rows.append(dict(input_ids=ids, labels=labels))
    return rows


def torch_loss(model, rows, task):
    if task == "answer":
        ids = torch.tensor([row["input_ids"] for row in rows])
        begins, ends = (torch.tensor([row[end] for row in rows]) for end in ["begin", "end"])
        types = torch.tensor([[0] * 6 + [1] * 11] * len(rows))
        typed = getattr(model.config, "type_vocab_size", 1) > 1
        extra = dict(token_type_ids=types) if typed else {}
        return model(input_ids=ids, start_positions=begins, end_positions=ends, **extra).loss
    if task == "next":
        ids = torch.tensor([row["input_ids"] for row in rows])
        labels = torch.tensor([row["labels"] for row in rows])
        logits = model(input_ids=ids, use_cache=False).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    seq = max(len(row["input_ids"]) for row in rows)
    pad = model.config.pad_token_id or 0
    ids = torch.tensor([row["input_ids"] + [pad] * (seq - len(row["input_ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (seq - len(row["input_ids"])) for row in rows])
    if task == "words":
        labels = torch.tensor([row["labels"] + [-100] * (seq - len(row["labels"])) for row in rows])
        return model(input_ids=ids, attention_mask=mask, labels=labels).loss
    logits = model(input_ids=ids, attention_mask=mask).logits
    labels = torch.tensor([row["label"] for row in rows])
    if model.config.num_labels == 1:
        return F.mse_loss(logits.squeeze(-1), labels.float())
    return F.cross_entropy(logits, labels)


PIPELINE = """hift 1
data rows {{ source = json("rows.jsonl")  format = {format}  shuffle = none }}
{tokenizer}
model tiny {{ weights = "model"  recompute = {recompute} }}
groups all {{ split = all() }}
schedule once {{ rate = constant({rate}) }}
optimizer sgd {{ weight_decay = 0 }}
train step {{
    data = rows  {use}  model = tiny  groups = all  schedule = once  optimizer = sgd
    steps = 1  micro_batch = 3  device = cpu
}}
export out {{ from = step  to = "out"  dtype = fp32 }}
"""


def beside_pictures(folder):
    """Makes the text model in a folder the text part of one that sees pictures, as the Hub has Gemma 3."""
    weights = load_file(folder / "model.safetensors")
    weights = {f"language_model.{name}": tensor for name, tensor in weights.items()}
    weights["vision_tower.vision_model.embeddings.position_embedding.weight"] = torch.zeros(4, 8)
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    text = {key: config[key] for key in [
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings", "query_pre_attn_scalar", "sliding_window", "model_type"]}
    text["rope_scaling"] = dict(factor=8.0, rope_type="linear")
    whole = dict(architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3", text_config=text, vision_config={})
    (folder / "config.json").write_text(json.dumps(whole))


def tokenizer(typed):
    """The words `w5` to `w60`; a question and a text between marks, as bert has them."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {word: id for id, word in enumerate(marks + [f"w{id}" for id in range(5, 61)])}
    special = lambda id, part: {"SpecialToken": {"id": id, "type_id": part}}
    text = lambda id, part: {"Sequence": {"id": id, "type_id": part}}
    second = 1 if typed else 0
    known = {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in [("[CLS]", 2), ("[SEP]", 3)]}
    return json.dumps({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", second), special("[SEP]", second)],
            "special_tokens": known},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}})


def answer_line(row):
    words = lambda ids: " ".join(f"w{id}" for id in ids)
    context = row["input_ids"][6:16]
    before = words(context[: row["begin"] - 6])
    text = words(context[row["begin"] - 6 : row["end"] - 5])
    start = len(before) + 1 if before else 0
    return dict(question=words(row["input_ids"][1:5]), context=words(context),
                answers=dict(text=[text], answer_start=[start]))


def lines_of(rows, task, config, folder):
    """How hift is to read the rows, and what they are in the file; with a tokenizer beside it where one is needed."""
    if task == "class":
        seq = max(len(row["input_ids"]) for row in rows)
        lines = []
        for row in rows:
            rest = seq - len(row["input_ids"])
            mask = [1] * len(row["input_ids"]) + [0] * rest
            lines.append(dict(input_ids=row["input_ids"] + [0] * rest, label=row["label"], attention_mask=mask))
        return 'tokens(label = "label", mask = "attention_mask")', lines
    if task == "answer":
        typed = getattr(config, "type_vocab_size", 1) > 1
        (folder / "tokenizer.json").write_text(tokenizer(typed))
        return "question", [answer_line(row) for row in rows]
    return 'tokens(labels = "labels")', rows


def check(name, config, task, hift):
    auto = {"next": transformers.AutoModelForCausalLM, "class": transformers.AutoModelForSequenceClassification,
            "words": transformers.AutoModelForTokenClassification,
            "answer": transformers.AutoModelForQuestionAnswering}[task]
    model = build(config, auto)
    rows = rows_of(task)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save_pretrained(folder / "model")
        before = load_file(folder / "model" / "model.safetensors")
        if name == "gemma3, beside pictures":
            beside_pictures(folder / "model")
        form, lines = lines_of(rows, task, config, folder)
        (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        block = 'tokenizer words { file = "tokenizer.json" }' if task == "answer" else ""
        text = PIPELINE.format(format=form, rate=RATE, recompute="blocks" if len(name) % 2 else "none",
                               tokenizer=block, use="tokenizer = words" if block else "")
        (folder / "step.hift").write_text(text)
        run = subprocess.run([hift, "run", str(folder / "step.hift"), "--dir", str(folder / "run")],
                             capture_output=True, text=True)
        if run.returncode != 0:
            return f"hift ended with {run.returncode}: {run.stderr.strip()[-600:]}", math.inf
        metrics = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[0])
        after = load_file(folder / "out" / "model.safetensors")

        loss = torch_loss(model, rows, task)
        loss.backward()
        worst, where = abs(metrics["loss"] - loss.item()) / loss.item(), "loss"
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        total = math.sqrt(sum(g.square().sum().item() for g in gradients.values() if g is not None))
        if set(before) != set(after):
            return f"other tensors: {sorted(set(before) ^ set(after))}", math.inf
        for tensor, gradient in gradients.items():
            # gpt_neox's head has an older name in the file.
            names = [tensor, tensor.replace("lm_head", "embed_out")]
            key = next((name for name in names if name in before), None)
            if key is None:
                return f"{tensor} is not in the checkpoint", math.inf
            found = (before[key].double() - after[key].double()) / RATE
            size = max(gradient.double().norm().item(), 1e-3 * total)
            # What single precision leaves of a weight when the gradient is taken off it.
            rounding = 1.2e-7 * (before[key].double().norm().item() / RATE + size)
            off = max(0.0, (found - gradient.double()).norm().item() - rounding) / size
            if off > worst:
                worst, where = off, tensor

        # The export as transformers sees it gives the loss that torch's own step gives.
        again, info = auto.from_pretrained(folder / "out", attn_implementation="eager", output_loading_info=True)
        if any(info[kind] for kind in ["missing_keys", "unexpected_keys", "mismatched_keys"]):
            return f"transformers: {info}", math.inf
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= RATE * parameter.grad
            own, theirs = torch_loss(model, rows, task), torch_loss(again.float().eval(), rows, task)
        off = abs(own.item() - theirs.item()) / abs(own.item())
        if off > max(worst, 1e-3):
            return f"the export's loss is {theirs.item()}, not {own.item()}", math.inf
    return f"loss {loss.item():.6f}, at most {worst:.1e} ({where})", worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these families")
    parser.add_argument("--hift", default="target/debug/hift")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    failed = 0
    tasks = [("next", CAUSAL), ("class", CLASSIFIERS), ("words", WORDS), ("answer", ANSWERS)]
    cases = [(*case, task) for task, of in tasks for case in of]
    for name, kind, arguments, task in cases:
        if args.names and name not in args.names:
            continue
        what, off = check(name, getattr(transformers, kind)(**arguments), task, args.hift)
        failed += not off < args.tolerance
        print(f"{'ok  ' if off < args.tolerance else 'OFF '} {name:28} {what}", flush=True)
    print(f"{len(cases) if not args.names else len(args.names)} families, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
