"""How right words are: exact match, F1 over attribute words, word recall, character error rate.

Every function takes the true and the found texts in the same order and gives a `Tally` with one entry for each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from open_florence.evaluation.intervals import Tally

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def normalize(text: str) -> str:
    """Lower case, single spaces, no full stop at the end: what does not make an answer wrong."""
    return " ".join(text.casefold().split()).rstrip(".").rstrip()


def exact_match(truth: Sequence[str], found: Sequence[str]) -> Tally:
    """The part of the texts that are the true one, after `normalize`."""
    return Tally.of([(float(normalize(t) == normalize(f)), 1.0) for t, f in zip(truth, found, strict=True)])


def attributes(text: str, vocabulary: Collection[str]) -> Counter[str]:
    """How often each word of a vocabulary occurs in a text; plurals in -s and -es count for their singular.

    Entries of several words are found first ("light blue" is not "blue" as well). "a" and "an" are not numbers.
    """
    known = {entry.casefold(): entry for entry in vocabulary}
    longest = max((len(entry.split()) for entry in known), default=0)
    words = re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.casefold())
    result: Counter[str] = Counter()
    position = 0
    while position < len(words):
        for length in range(longest, 0, -1):
            phrase = " ".join(words[position : position + length])
            entry = next((known[form] for form in _singulars(phrase) if form in known), None)
            if entry is not None:
                result[entry] += 1
                position += length
                break
        else:
            position += 1
    return result


def _singulars(phrase: str) -> list[str]:
    """The phrase, and what it may be the plural of."""
    return [phrase, *(phrase.removesuffix(ending) for ending in ("s", "es") if phrase.endswith(ending))]


def attribute_f1(truth: Sequence[str], found: Sequence[str], vocabulary: Collection[str]) -> Tally:
    """F1 between the bags of attribute words of each text and its truth, averaged over texts.

    Order and grammar do not count, so a high value does not say that each attribute stands with its own object. A text
    and a truth without any attribute agree (1.0).
    """
    pairs: list[tuple[float, float]] = []
    for true, text in zip(truth, found, strict=True):
        a, b = attributes(true, vocabulary), attributes(text, vocabulary)
        total = a.total() + b.total()
        pairs.append((2 * (a & b).total() / total if total else 1.0, 1.0))
    return Tally.of(pairs)


def word_recall(truth: Sequence[Sequence[str]], found: Sequence[str]) -> Tally:
    """The part of the true words that stand in the found text, each occurrence once, exactly as printed."""
    pairs: list[tuple[float, float]] = []
    for words, text in zip(truth, found, strict=True):
        shared = Counter(words) & Counter(text.split())
        pairs.append((shared.total(), len(words)))
    return Tally.of(pairs)


def edit_distance(a: str, b: str) -> int:
    """The fewest insertions, deletions and substitutions of characters that make a into b (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def character_error_rate(truth: Sequence[str], found: Sequence[str]) -> Tally:
    """CER: edits from the found texts to the true ones, over the characters of the truth; 0 is best, it may pass 1."""
    pairs = [(float(edit_distance(f, t)), float(len(t))) for t, f in zip(truth, found, strict=True)]
    return Tally.of(pairs, count=len(pairs))
