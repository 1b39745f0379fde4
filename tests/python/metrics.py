#!/usr/bin/env python3
"""Metrics by other people's programs, for tests/metrics.rs.

    python -m venv venv && venv/bin/pip install scikit-learn scipy seqeval nltk sacrebleu rouge-score torchmetrics
    venv/bin/python tests/python/metrics.py > tests/golden/metrics.json

Without one of these it says so on stderr and writes nothing. Sources: scikit-learn (accuracy, F1, Matthews), scipy (Pearson,
Spearman), torchmetrics (exact match and F1 of answers, as SQuAD counts them), seqeval (entities), sacrebleu (BLEU),
rouge-score (ROUGE), nltk (NIST, over the tokens of sacrebleu's 13a). Inputs are drawn, and chosen: nothing given, one class
only, constant numbers, ties, letters of other alphabets. Where the other program gives no number (a correlation with a
constant, a text of no words), 0 stands here.
"""

import json
import math
import random
import sys
import warnings

try:
    from nltk.translate.nist_score import corpus_nist
    from rouge_score import rouge_scorer
    from sacrebleu.metrics import BLEU
    from scipy.stats import pearsonr, spearmanr
    from seqeval.metrics import f1_score as entity_f1, precision_score, recall_score
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
    from torchmetrics.functional.text import squad
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(0)

warnings.simplefilter("ignore")
draw = random.Random(11)


def number(x):
    x = float(x)
    return 0.0 if math.isnan(x) else x


def classes():
    """Accuracy, F1 of class 1, the mean of all, Matthews' correlation."""
    inputs = [
        (2, [0, 0, 0], [0, 0, 0]), (2, [1, 1, 1], [1, 1, 1]), (2, [1, 1, 1], [0, 0, 0]), (2, [0, 1, 0, 1], [1, 1, 1, 1]),
        (2, [0, 1, 0, 1], [1, 0, 1, 0]), (2, [1], [1]), (5, [0, 4, 4, 0], [4, 4, 0, 0]), (3, [2, 2, 2], [0, 1, 2]),
    ]
    for n, rows in [(2, 7), (2, 50), (3, 40), (5, 200), (9, 30)]:
        right = [draw.randrange(n) for _ in range(rows)]
        inputs.append((n, right, [r if draw.random() < 0.6 else draw.randrange(n) for r in right]))
    for n, right, given in inputs:
        yield dict(classes=n, right=right, given=given, expected=[
            accuracy_score(right, given),
            f1_score(right, given, labels=[1], average="macro", zero_division=0),
            f1_score(right, given, average="macro", zero_division=0),
            matthews_corrcoef(right, given),
        ])


def numbers():
    """Pearson's and Spearman's correlations. Given and right are numbers of 32 bits, as a model gives them."""
    import numpy
    single = lambda xs: [float(numpy.float32(x)) for x in xs]
    inputs = [
        ([0.1] * 7, [1, 2, 3, 4, 5, 6, 7]), ([1, 2, 3], [0.7] * 3), ([0.1] * 3, [0.3] * 3), ([1, 2], [2, 1]),
        ([0.0, -0.0, 0.0, 1.0], [1, 2, 3, 4]), ([1, 1, 2, 2, 3, 3], [1, 2, 1, 2, 1, 2]), ([1e8, 1e8 + 8, 1e8 + 16], [1, 3, 2]),
        ([1e-30, 2e-30, 4e-30], [3, 5, 9]), ([5, 5, 5, 5, 1], [5, 5, 5, 5, 2]),
    ]
    for rows in [3, 20, 100]:
        given = [draw.gauss(0, 1) for _ in range(rows)]
        inputs.append((given, [x + draw.gauss(0, 1) for x in given]))
        # As in STS-B: labels with many ties.
        inputs.append((given, [round(2 * x) / 2 for x in given]))
        inputs.append(([round(x) for x in given], [draw.randrange(3) for _ in given]))
    for given, right in inputs:
        given, right = single(given), single(right)
        yield dict(given=given, right=right, expected=[
            number(pearsonr(given, right).statistic), number(spearmanr(given, right).statistic)])


def answers():
    """Exact match and F1 of an answer."""
    inputs = [
        ("", [""]), ("", []), ("Paris", []), ("", ["Paris"]), ("the", ["a"]), ("the", ["the", "cat"]), ("", ["the", "cat"]),
        ("The  cat, the-cat!", ["thecat cat"]), ("don't", ["dont"]), ("A.B.C.", ["abc"]), ("an\u2013apple", ["\u2013apple"]),
        ("\u201cthe cat\u201d", ["\u201c cat\u201d"]), ("the\u00a0cat", ["cat"]), ("Stra\u00dfe \u00c4", ["stra\u00dfe \u00e4"]),
        ("a\u00e9 an\u00e9", ["a\u00e9"]), ("caf\u00e9 the", ["cafe\u0301"]), ("\u0399\u03a3 a", ["\u03b9\u03c2"]), ("1,000", ["1000"]),
        ("x x y", ["x y y"]), ("x y z", ["z y x"]), ("!!!", ["???"]), ("a_b the_c", ["ab thec"]), ("\u4e2dthe\u4e2d the", ["\u4e2dthe\u4e2d"]),
        ("10\u20ac the\u20ac", ["10\u20ac \u20ac"]),
    ]
    words = ["the", "a", "An", "cat", "cats,", "Dog", "on", "in-on", "x.y", "42", "\u00e9t\u00e9", "\u2014", "the\u2014"]
    for _ in range(60):
        text = lambda: " ".join(draw.choice(words) for _ in range(draw.randrange(6)))
        inputs.append((text(), [text() for _ in range(draw.randrange(1, 4))]))
    def measure(text, answers):
        return squad(dict(prediction_text=text, id="0"), dict(id="0", answers=dict(text=answers, answer_start=[0] * len(answers))))
    for given, right in inputs:
        # As evaluate-v2.0.py does: answers of no words do not count, and without any the right one is empty.
        some = [answer for answer in right if not measure(answer, [""])["exact_match"]] or [""]
        found = measure(given, some)
        yield dict(given=given, right=right, expected=[found["exact_match"].item() / 100, found["f1"].item() / 100])


def entities():
    """Precision, recall and F1 of entities."""
    schemes = [
        ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
        ["O", "B-X", "I-X", "E-X", "S-X", "B-Y-Z", "I-Y-Z", "E-Y-Z", "S-Y-Z"],
        ["O", "B", "I"],
        ["O", "I-PER", "I-LOC"],
        ["O", "B-", "I-", "B-Y", "I-Y"],
        ["I-PER", "O", "."],
    ]
    for tags in schemes:
        for rows, share in [(1, 1.0), (6, 0.7), (12, 0.4), (3, 0.0)]:
            right = [[draw.choice(tags) for _ in range(draw.randrange(1, 9))] for _ in range(rows)]
            given = [[tag if draw.random() < share else draw.choice(tags) for tag in row] for row in right]
            of = lambda texts: [[tags.index(tag) for tag in row] for row in texts]
            yield dict(tags=tags, right=of(right), given=of(given), expected=[
                precision_score(right, given, zero_division=0), recall_score(right, given, zero_division=0),
                entity_f1(right, given, zero_division=0)])
    for right, given in [([["O", "O"]], [["O", "O"]]), ([["O"]], [["B-PER"]]), ([["B-PER"]], [["O"]])]:
        tags = schemes[0]
        of = lambda texts: [[tags.index(tag) for tag in row] for row in texts]
        yield dict(tags=tags, right=of(right), given=of(given), expected=[
            precision_score(right, given, zero_division=0), recall_score(right, given, zero_division=0),
            entity_f1(right, given, zero_division=0)])


def texts():
    """BLEU, NIST, ROUGE-1, ROUGE-2, ROUGE-L of texts, each with its references."""
    inputs = [
        [("", ["a b"])], [("", [""])], [("a", ["a"])], [("a b", ["a b"])], [("a b c d", ["a b c d"])], [("a b c", ["", "a b c"])],
        [("!!!", ["???"])], [("a b c d e f", ["f e d c b a"])], [("x-\n", ["x-"]), ("one two three four five", ["one two three four"])],
        [("The Eagle is a coffee shop, near Burger King - 5-star (\u00a325).", [
            "Near Burger King there is a coffee shop: The Eagle; it's rated 5 stars.", "The Eagle, a 5-star coffee shop (\u00a325)."])],
        [("\u00dcber 3.5 &amp; 1,000.0 &quot;x&quot;", ["\u00fcber 3.5 & 1,000.0 \"x\""]), ("a.b.c ,d", ["a . b . c , d"])],
        [("  spaced   out  \n", ["spaced out"]), ("two\nlines here now", ["two lines here now and then"])],
        [("a a a a a a", ["a a"]), ("b", ["b b b b b b b b"])],
        [("short", ["a long reference that has many more words", "short one"])],
        [("\u4e2d\u6587 text", ["\u4e2d\u6587 text"]), ("na\u00efve caf\u00e9", ["naive cafe"])],
    ]
    words = "the a cat dog sat on mat, near. King - 5-star 3.5 it's Eagle (low) price".split()
    for rows, references in [(1, 1), (5, 1), (8, 3), (20, 2)]:
        corpus = []
        for _ in range(rows):
            own = [draw.choice(words) for _ in range(draw.randrange(1, 14))]
            def near():
                kept = [word if draw.random() < 0.7 else draw.choice(words) for word in own]
                return " ".join(kept + [draw.choice(words) for _ in range(draw.randrange(4))])
            corpus.append((" ".join(own), [near() for _ in range(draw.randrange(1, references + 1))]))
        inputs.append(corpus)
    bleu, scorer = BLEU(), rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    tokens = lambda text: bleu.tokenizer(text.rstrip()).split()
    for corpus in inputs:
        given = [text for text, _ in corpus]
        most = max(len(references) for _, references in corpus)
        columns = [[references[i] if i < len(references) else None for _, references in corpus] for i in range(most)]
        # nltk divides by the number of n-grams: no longer ones than there are.
        orders = min(5, max(len(tokens(text)) for text in given))
        wanted = [[tokens(text) for text in references] for _, references in corpus]
        nist = corpus_nist(wanted, list(map(tokens, given)), n=orders) if orders > 0 else 0.0
        rouge = [scorer.score_multi(references, text) for text, references in corpus]
        mean = lambda kind: sum(scores[kind].fmeasure for scores in rouge) / len(rouge)
        yield dict(texts=corpus, expected=[
            BLEU().corpus_score(given, columns).score, number(nist), mean("rouge1"), mean("rouge2"), mean("rougeL")])


kinds = [classes, numbers, answers, entities, texts]
cases = {kind.__name__: [json.dumps(case) for case in kind()] for kind in kinds}
body = ",\n".join(f' "{name}": [\n  ' + ",\n  ".join(lines) + "\n ]" for name, lines in cases.items())
print("{\n" + body + "\n}")
