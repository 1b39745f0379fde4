#!/usr/bin/env python3
"""Makes the quickstart's data and tokenizer: numbers, and the English words for them.

    pip install tokenizers
    python pipelines/quickstart/make.py

Writes beside itself `numbers.jsonl`, `tokenizer.json` and `tokenizer_config.json`. All three are in the
repository already; run this to change them. The same seed gives the same bytes.
"""

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
SEED = 7

# How many numbers of each length; there are only 10, 90 and 900 of the short ones.
ROWS = {1: 10, 2: 90, 3: 800, 4: 2600, 5: 4500}

# The numbers that quickstart.hift asks for at the end. They never become training data.
ASKED = {385, 4821, 9070, 31415, 60012, 86420, 99999}

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


def spell(number):
    """4821 -> four thousand eight hundred twenty-one"""
    if number < 20:
        return ONES[number]
    if number < 100:
        rest = number % 10
        return TENS[number // 10] + ("-" + ONES[rest] if rest else "")
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = number % unit
    return f"{spell(number // unit)} {name}" + (" " + spell(rest) if rest else "")


def rows():
    draw = random.Random(SEED)
    numbers = []
    for digits, count in ROWS.items():
        lowest = 0 if digits == 1 else 10 ** (digits - 1)
        numbers += draw.sample(range(lowest, 10**digits), count)
    draw.shuffle(numbers)
    return [{"number": str(number), "words": spell(number)} for number in numbers if number not in ASKED]


def tokenizer(rows):
    """A small byte-pair encoding: a digit, a blank or a sign is a token, and so is each word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    # No token reaches from the prompt into the response: a blank never sticks to a word.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|[^a-z]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,  # never reached: merging ends when every word is a token
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789 =-"),
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{row['number']} = {row['words']}" for row in rows), trainer)
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[begin]
    )
    return tokenizer


def main():
    data = rows()
    with open(HERE / "numbers.jsonl", "w") as file:
        for row in data:
            file.write(json.dumps(row) + "\n")
    made = tokenizer(data)
    made.save(str(HERE / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 64,
        "clean_up_tokenization_spaces": False,
    }
    (HERE / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{len(data)} rows, {made.get_vocab_size()} tokens in the vocabulary")


if __name__ == "__main__":
    main()
