"""How well the words of a page are read, by text and place, where the truth is a line at a time.

A read word belongs to the true line in whose box its middle lies; it is right when it is one of the line's words, in
their order (a longest common subsequence).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from open_florence.data_engine.fusion.ocr_fusion import reading_score
from open_florence.evaluation.intervals import Array, Tally, bootstrap_interval
from open_florence.evaluation.text import edit_distance
from open_florence.geometry import region_box
from open_florence.schema import Annotation, Region, Sample

WORDS = "<OCR_WITH_REGION>"


@dataclass(frozen=True)
class Score:
    """What was read of some receipts, against the truth; an entry of each tally for each receipt."""

    recall: Tally
    precision: Tally
    f1: Tally
    errors: Tally
    """Characters: edits line by line, and every letter read where no line is, over the true letters."""


def score(samples: Sequence[Sample], answers: Sequence[Annotation], fold: bool = False) -> Score:
    """Words and characters right; `fold`: case does not count."""
    cased: Callable[[str], str] = str.casefold if fold else str
    counts = []
    for sample, answer in zip(samples, answers, strict=True):
        lines, strays = by_line(sample, answer)
        texts = [([cased(w) for w in true], [cased(w.label) for w in said]) for true, said in lines]
        right = sum(len(right_words(*pair)) for pair in texts)
        edits = sum(edit_distance(" ".join(true), " ".join(said)) for true, said in texts)
        wrong = edits + sum(len(word.label) for word in strays)
        letters = sum(len(" ".join(true)) for true, _ in texts)
        counts.append(
            (right, sum(len(t) for t, _ in texts), sum(len(s) for _, s in texts) + len(strays), wrong, letters)
        )
    return Score(
        Tally.of([(right, true) for right, true, *_ in counts]),
        Tally.of([(right, said) for right, _, said, *_ in counts]),
        Tally.of([(2 * right, true + said) for right, true, said, *_ in counts]),
        Tally.of([(wrong, letters) for *_, wrong, letters in counts]),
    )


def gain(answer: Tally, base: Tally) -> str:
    """The difference of two ratios over the same receipts, with its interval."""

    def difference(weights: Array) -> Array:
        ratios: list[Any] = [(weights @ t.hits) / np.maximum(weights @ t.totals, 1e-9) for t in (answer, base)]
        return np.asarray(ratios[0] - ratios[1])

    low, high = bootstrap_interval(difference, len(base.hits)) or (float("nan"),) * 2
    return f"{answer.value - base.value:+.3f} ({low:+.3f} to {high:+.3f})"


def by_line(sample: Sample, answer: Annotation) -> tuple[list[tuple[list[str], list[Region]]], list[Region]]:
    """Each true line's words with the words that were read in its box, from left to right; and what is in no line."""
    lines = next(a for a in sample.annotations if a.task == WORDS).regions
    boxes = [region_box(line.parts).tolist() for line in lines]
    members: list[list[Region]] = [[] for _ in lines]
    strays = []
    for word in single_words(answer.regions):
        x, y = middle(word)
        inside = [k for k, (x1, y1, x2, y2) in enumerate(boxes) if x1 <= x <= x2 and y1 <= y <= y2]
        if inside:
            members[min(inside, key=lambda k: abs(boxes[k][1] + boxes[k][3] - 2 * y))].append(word)
        else:
            strays.append(word)
    ordered = [sorted(some, key=middle) for some in members]
    return [(line.label.split(), some) for line, some in zip(lines, ordered, strict=True)], strays


def judged(samples: Sequence[Sample], answers: Sequence[Annotation]) -> Array:
    """(N, 2): how sure the reader was of each word, and whether it was right, whatever its case."""
    pairs: list[tuple[float, bool]] = []
    for sample, answer in zip(samples, answers, strict=True):
        lines, strays = by_line(sample, answer)
        for true, said in lines:
            right = set(right_words([word.casefold() for word in true], [word.label.casefold() for word in said]))
            pairs += [(reading_score(word), k in right) for k, word in enumerate(said)]
        pairs += [(reading_score(word), False) for word in strays]
    return np.asarray(pairs, dtype=np.float64).reshape(-1, 2)


def right_words(true: Sequence[str], said: Sequence[str]) -> list[int]:
    """Places in `said` of a longest common subsequence with `true`."""
    best = np.zeros((len(true) + 1, len(said) + 1), dtype=int)
    for i, j in product(reversed(range(len(true))), reversed(range(len(said)))):
        best[i, j] = best[i + 1, j + 1] + 1 if true[i] == said[j] else max(best[i + 1, j], best[i, j + 1])
    found, i, j = [], 0, 0
    while i < len(true) and j < len(said):
        if true[i] == said[j]:
            found.append(j)
            i, j = i + 1, j + 1
        elif best[i + 1, j] >= best[i, j + 1]:
            i += 1
        else:
            j += 1
    return found


def single_words(regions: Iterable[Region]) -> list[Region]:
    """Regions cut into boxes of one word, each as wide as its share of the letters."""
    words = []
    for region in regions:
        x1, y1, x2, y2 = region_box(region.parts).tolist()
        said = region.label.split()
        step, start = (x2 - x1) / max(1, len(" ".join(said))), 0
        for word in said:
            ends = x1 + step * start, x1 + step * (start + len(word))
            words.append(Region.box(ends[0], y1, ends[1], y2, label=word, score=reading_score(region)))
            start += len(word) + 1
    return words


def middle(region: Region) -> tuple[float, float]:
    """The middle of a region's box."""
    x1, y1, x2, y2 = region_box(region.parts).tolist()
    return (x1 + x2) / 2, (y1 + y2) / 2
