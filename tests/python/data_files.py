"""Writes tests/data/files with pyarrow, Hugging Face's datasets and transformers, which hift is held against.

    pip install pyarrow datasets zstandard transformers jinja2
    python tests/python/data_files.py [TOKENIZERS]

TOKENIZERS is a folder with Hugging Face tokenizers; what they make of the conversations is kept as ids.
"""

import csv
import gzip
import json
import pathlib
import shutil
import sys

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import zstandard
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent.parent / "data" / "files"

ROWS = [
    {"text": "abc", "score": 0.25, "good": True, "ids": [3, 4], "note": None},
    {"text": 'd, "e"\nc', "score": 2.0, "good": False, "ids": [5], "note": "x"},
    {"text": "ca b", "score": 1.5, "good": True, "ids": [6, 7, 3], "note": ""},
]

CHATS = [
    [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}],
    [
        {"role": "system", "content": "e"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b d"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "dd"},
    ],
]

# Conversations for real templates: other alphabets, what HTML would escape, tools.
TALKS = [
    {"messages": [{"role": "user", "content": "Hi <b>&'\""}, {"role": "assistant", "content": "Grüße, 世界!\n\nBye."}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "  and 2+2?  "},
            {"role": "assistant", "content": "\n4"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "Weather in Köln?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "n": 1.5}}}
                ],
            },
            {"role": "tool", "content": '{"t": "<20>"}'},
            {"role": "assistant", "content": "20 degrees"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}},
            }
        ],
    },
]

# Templates of the usual kinds, in words of our own.
TEMPLATES = {
    # Marks what the assistant writes, so transformers itself can say where that is.
    "marked": (
        "{% for m in messages %}\n{{- '<|' + m['role'] + '|>\\n' }}\n"
        "    {%- if m['role'] == 'assistant' %}\n"
        "        {% generation %}{{ m['content'] + '</s>\\n' }}{% endgeneration %}\n"
        "    {%- else %}{{ m['content'] + '\\n' }}{% endif %}\n"
        "{%- endfor %}\n{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}\n"
    ),
    # Ends every text with a mark of its own.
    "tail": (
        "{% for m in messages %}{{ '<' + m.role + '>' + m.content.strip() + '</' + m.role + '>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    # System message inside the first user turn; refuses turns out of order; namespaces, slices and string methods.
    "folded": (
        "{{ bos_token }}{% set ns = namespace(n=0) %}"
        "{% if messages[0]['role'] == 'system' %}{% set system = '(' + messages[0]['content'] | trim + ') ' %}"
        "{% set loop_messages = messages[1:] %}{% else %}{% set system = '' %}{% set loop_messages = messages %}{% endif %}"
        "{% for m in loop_messages %}"
        "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
        "{% if m['role'] == 'user' %}{{ '[INST] ' + (system if ns.n == 0 else '') + m['content'] | trim + ' [/INST]' }}"
        "{% set ns.n = ns.n + 1 %}"
        "{% else %}{{ ' ' + m['content'].rstrip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "json": "{% if tools %}{{ tools | tojson }}\n{{ tools | tojson(indent=2) }}\n{% endif %}"
    "{% for m in messages %}{{ m.role | upper }}: {{ m | tojson }}\n{% endfor %}",
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def tables():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    types = pa.schema(
        [("text", pa.string()), ("score", pa.float64()), ("good", pa.bool_()), ("ids", pa.list_(pa.int32())), ("note", pa.string())]
    )
    table = pa.Table.from_pylist(ROWS, schema=types)
    pa.parquet.write_table(table, HERE / "rows.parquet", row_group_size=2)
    pa.parquet.write_table(table, HERE / "rows.zstd.parquet", compression="zstd")
    with pa.OSFile(str(HERE / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, types) as writer:
        writer.write_table(table, max_chunksize=2)
    with pa.OSFile(str(HERE / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, types) as writer:
        writer.write_table(table, max_chunksize=2)
    pa.feather.write_feather(table, HERE / "lz4.arrow", compression="lz4")
    flat = [{key: row[key] for key in ("text", "score", "good", "note")} for row in ROWS]
    for name, dialect in (("rows.csv", {}), ("rows.tsv", {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "escapechar": "\\"})):
        with open(HERE / name, "w", newline="") as file:
            writer = csv.DictWriter(file, flat[0].keys(), **dialect)
            writer.writeheader()
            # A table separated by tabs has no way to write a line break.
            writer.writerows(flat if name == "rows.csv" else [flat[0], flat[2]])
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    with gzip.GzipFile(HERE / "rows.jsonl.gz", "wb", mtime=0) as file:
        file.write(lines)
    (HERE / "rows.jsonl.zst").write_bytes(zstandard.compress(lines))
    Dataset.from_list(ROWS).save_to_disk(str(HERE / "saved"), num_shards=2)
    # Columns as datasets has them: a key that one message has, every message has.
    chats = [{"messages": chat} for chat in CHATS]
    chats[0]["messages"] = [{**chats[0]["messages"][0], "name": "z"}, *chats[0]["messages"][1:]]
    splits = DatasetDict({"train": Dataset.from_list(chats), "test": Dataset.from_list(chats[:1])})
    splits.save_to_disk(str(HERE / "splits"))
    pa.parquet.write_table(Dataset.from_list(chats).data.table, HERE / "chats.parquet")


def talks(tokenizers):
    made = {"talks": TALKS, "tokens": TOKENS, "templates": TEMPLATES, "texts": {}, "spans": {}, "ids": {}}
    for name, template in TEMPLATES.items():
        texts = []
        for talk in TALKS:
            try:
                rendered, spans = render_jinja_template(
                    [talk["messages"]],
                    tools=talk.get("tools"),
                    chat_template=template,
                    return_assistant_tokens_mask=name == "marked",
                    add_generation_prompt=False,
                    **TOKENS,
                )
                texts.append(rendered[0])
                if name == "marked":
                    # Characters to bytes.
                    cut = lambda at: len(rendered[0][:at].encode())
                    made["spans"].setdefault(name, []).append([[cut(a), cut(b)] for a, b in spans[0]])
            except Exception as error:
                texts.append({"error": str(error)})
        made["texts"][name] = texts
    for folder in sorted(pathlib.Path(tokenizers).glob("*/tokenizer_config.json")) if tokenizers else []:
        config = json.loads(folder.read_text())
        if "chat_template" not in config:
            continue
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder.parent / "tokenizer.json"))
        special = {key: config[key] for key in ("bos_token", "eos_token") if config.get(key)}
        made["ids"][folder.parent.name] = [
            tokenizer(
                render_jinja_template(
                    [talk["messages"]], tools=talk.get("tools"), chat_template=config["chat_template"], **special
                )[0][0],
                add_special_tokens=False,
            )["input_ids"]
            for talk in TALKS
        ]
    (HERE / "talks.json").write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    tables()
    talks(sys.argv[1] if len(sys.argv) > 1 else None)
