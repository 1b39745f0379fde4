#!/usr/bin/env python3
"""Makes the data of chat.hift out of the quickstart's numbers: conversations, and a table.

    python pipelines/chat/make.py

Writes `talks.jsonl` and `pairs.csv` beside itself. Both are in the repository already.
"""

import csv
import json
from pathlib import Path

HERE = Path(__file__).parent

rows = [json.loads(line) for line in open(HERE.parent / "quickstart" / "numbers.jsonl")]
talks, pairs = rows[:300], rows[300:600]

with open(HERE / "talks.jsonl", "w") as file:
    for first, second in zip(talks[::2], talks[1::2]):
        messages = []
        for row in (first, second):
            messages.append({"from": "human", "value": row["number"]})
            messages.append({"from": "gpt", "value": row["words"]})
        file.write(json.dumps({"conversations": messages}) + "\n")

with open(HERE / "pairs.csv", "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["number", "digits", "words"])
    writer.writerows([row["number"], len(row["number"]), row["words"]] for row in pairs)
