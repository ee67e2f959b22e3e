"""How right words are: exact match, top-k, F1 over attribute words, word recall and accuracy, character error rate.

Every function takes the true and the found texts in the same order and gives a `Tally` with one entry for each. What
reads print (`word_recall`, `word_accuracy`, `character_error_rate`) compares characters as they are, case and all: fold
both sides (`str.casefold`) for the numbers of benchmarks that do not.
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


def exact_match(truth: Sequence[str | Sequence[str]], found: Sequence[str]) -> Tally:
    """The part of the texts that are the true one, after `normalize`; of several true ones, any of them."""
    pairs: list[tuple[float, float]] = []
    for true, text in zip(truth, found, strict=True):
        allowed = {normalize(one) for one in ([true] if isinstance(true, str) else true)}
        pairs.append((float(normalize(text) in allowed), 1.0))
    return Tally.of(pairs)


def top_k_accuracy(truth: Sequence[str | Sequence[str]], ranked: Sequence[Sequence[str]], k: int = 1) -> Tally:
    """The part of the inputs whose class is among the first k of their `ranked` labels, likeliest first.

    Classification's top-1 and top-5 (Russakovsky et al. 2015, arXiv 1409.0575). Labels are compared after `normalize`;
    of several true ones, any counts.
    """
    pairs: list[tuple[float, float]] = []
    for true, labels in zip(truth, ranked, strict=True):
        allowed = {normalize(one) for one in ([true] if isinstance(true, str) else true)}
        pairs.append((float(any(normalize(label) in allowed for label in labels[:k])), 1.0))
    return Tally.of(pairs)


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


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that make a into b (Levenshtein 1966).

    Of characters for two strings, of words for two lists of words.
    """
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def word_accuracy(truth: Sequence[str], found: Sequence[str]) -> Tally:
    """The part of the true words that were read, in their order: 1 - word error rate, no text below 0.

    Words are what spaces part, and are right as a whole. Edits of words from the found text to the true one count
    against it, superfluous words too. For texts of one word it is the part of the words that are read exactly.
    """
    pairs: list[tuple[float, float]] = []
    for true, text in zip(truth, found, strict=True):
        words = true.split()
        pairs.append((max(0.0, float(len(words) - edit_distance(text.split(), words))), float(len(words))))
    return Tally.of(pairs)


def character_error_rate(truth: Sequence[str], found: Sequence[str]) -> Tally:
    """CER: edits of characters from the found texts to the true ones, over the characters of the truth.

    0 is best, and it may pass 1. The edits of all texts are summed before they are divided, so a long text weighs more
    than a short one. Case and spaces are characters like any other; n counts the texts.
    """
    pairs = [(float(edit_distance(f, t)), float(len(t))) for t, f in zip(truth, found, strict=True)]
    return Tally.of(pairs, count=len(pairs))
