#!/usr/bin/env python3
"""Makes the data of entities.hift and answers.hift: small sentences about made-up people.

    python pipelines/words/make.py

Writes beside itself `entities.jsonl` (words and the class of each), `questions.jsonl` (as SQuAD has them) and
`tokenizer.json`. All three are in the repository already; run this to change them. The same seed gives the same bytes.
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
SEED = 11

FIRST = "Ada Ben Cleo Dan Eva Finn Gina Hugo Ida Jon Kim Lea".split()
LAST = "Brook Hill Stone Wood Field Marsh Lake Moor".split()
TOWNS = [town.split() for town in ["Paris", "Rome", "New York", "Oslo", "Cape Town", "Lima", "San Juan", "Bern"]]
FIRMS = [firm.split() for firm in ["Orbit Works", "Blue Mill", "Nova", "Red Harbour Lines", "Lumen", "Old Mill"]]
ENTITIES = [
    "{PER} lives in {LOC} .", "{PER} works for {ORG} in {LOC} .", "{ORG} has moved to {LOC} .",
    "yesterday {PER} met {PER} at {ORG} .", "from {LOC} to {LOC} it is far , says {PER} .", "nobody was there .",
]
STORIES = [
    "{PER} works for {ORG} in {LOC} .", "{PER} lives in {LOC} .", "{ORG} has moved to {LOC} .", "it was {PER} of {ORG} .",
]
BEFORE = ["", "yesterday it was far .", "from here it is far , far , far ."]
AFTER = ["", "nobody was there .", "yesterday nobody was there , it is far ."]
QUESTIONS = {"who is it ?": "PER", "where was it ?": "LOC", "which firm was it ?": "ORG"}
CLASSES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]


def entity(draw, kind):
    if kind == "PER":
        return [draw.choice(FIRST)] + ([draw.choice(LAST)] if draw.random() < 0.7 else [])
    return draw.choice(TOWNS if kind == "LOC" else FIRMS)


def entity_row(draw):
    tokens, labels = [], []
    for word in draw.choice(ENTITIES).split():
        kind = word.strip("{}")
        words = entity(draw, kind) if word.startswith("{") else [word]
        classes = ["O"] if not word.startswith("{") else [f"B-{kind}"] + [f"I-{kind}"] * (len(words) - 1)
        tokens += words
        labels += [CLASSES.index(name) for name in classes]
    return {"tokens": tokens, "ner_tags": labels}


def question_row(draw, id):
    question, kind = draw.choice(list(QUESTIONS.items()))
    words, answers = [], {"text": [], "answer_start": []}
    for word in f"{draw.choice(BEFORE)} {draw.choice(STORIES)} {draw.choice(AFTER)}".split():
        words_of_it = entity(draw, word.strip("{}")) if word.startswith("{") else [word]
        if word == "{" + kind + "}":
            answers = {"text": [" ".join(words_of_it)], "answer_start": [len(" ".join(words + [""]))]}
        words += words_of_it
    return {"id": str(id), "question": question, "context": " ".join(words), "answers": answers}


def tokenizer():
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word for sentence in ENTITIES for word in sentence.split() if not word.startswith("{")}
    words |= {word for text in BEFORE + AFTER + STORIES + list(QUESTIONS) for word in text.split() if word[0] != "{"}
    words |= set(FIRST) | set(LAST) | {word for name in TOWNS + FIRMS for word in name}
    vocab = {word: id for id, word in enumerate(marks + sorted(words))}
    special = lambda id, part: {"SpecialToken": {"id": id, "type_id": part}}
    text = lambda id, part: {"Sequence": {"id": id, "type_id": part}}
    known = {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in ["[CLS]", "[SEP]"]}
    added = [
        {"id": vocab[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for name in marks
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)],
            "special_tokens": known,
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    }


def main():
    draw = random.Random(SEED)
    lines = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
    (HERE / "entities.jsonl").write_text(lines(entity_row(draw) for _ in range(600)))
    (HERE / "questions.jsonl").write_text(lines(question_row(draw, id) for id in range(1000)))
    (HERE / "tokenizer.json").write_text(json.dumps(tokenizer(), indent=1) + "\n")
    vocab = len(tokenizer()["model"]["vocab"])
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": vocab, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
        "type_vocab_size": 2, "hidden_act": "gelu", "initializer_range": 0.1, "pad_token_id": 0,
    }
    (HERE / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
