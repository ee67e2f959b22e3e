"""Precision and recall of a round's labels by task, class and source, from what a person said of a part of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from open_florence.data_engine.review.item import CLASS_TASKS, ReviewItem
from open_florence.data_engine.review.verdicts import Judged, Verdict, judged_tasks

NORMAL = 1.959964
"""Standard deviations that hold 95 % of a normal distribution."""

Mark = tuple[bool, float, str]
"""(right, weight, image)"""


@dataclass(frozen=True, slots=True)
class Proportion:
    """An estimated share with its 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    """How many were judged."""


@dataclass(frozen=True, slots=True)
class VerdictFigures:
    """Of one task, and of one of its classes, or of one source there."""

    task: str
    class_name: str
    """ "" for all classes."""
    source: str
    """ "" for all sources."""
    precision: Proportion | None
    """The share of its claims in the round that are right; None where none was judged."""
    recall: Proportion | None
    """The share of the objects that it found, in images confirmed complete; None where there are none."""


@dataclass(slots=True)
class _Marks:
    claims: list[Mark] = field(default_factory=list)
    objects: list[Mark] = field(default_factory=list)


def verdict_figures(queue: Sequence[ReviewItem], verdicts: Sequence[Verdict]) -> list[VerdictFigures]:
    """Precision and recall by task, by task and class, and by task and source, in the order of their names.

    Each claim counts for as many as its chance says (Horvitz and Thompson): with 1 in 20 drawn, one stands for twenty.
    Where a person stopped before the end, the judged ones stand for those left, chosen and drawn apart. A source
    has a part in every label that it supports. A claim is right that was accepted, or whose place alone was mended.
    Intervals are Wilson's, of as many claims as the weights and their coming from the same images leave of them.
    Raises OpenFlorenceError for verdicts that are not of this queue.
    """
    judged = judged_tasks(queue, verdicts)
    weights = _weights(queue, {item.id for part in judged.values() for item, _ in part.items})
    sources: dict[str, set[str]] = defaultdict(set)
    for item in queue:
        sources[item.annotation.task].update(item.sources)
    marks: dict[tuple[str, str, str], _Marks] = defaultdict(_Marks)
    for (image, task), part in judged.items():
        for item, verdict in part.items:
            mark = _is_right(item, verdict), weights[item.id], image
            for key in _keys(task, item.class_name, item.sources):
                marks[key].claims.append(mark)
        if part.complete:
            _add_objects(marks, image, task, part, weights, sorted(sources[task]))
    return [
        VerdictFigures(*key, proportion(found.claims), proportion(found.objects))
        for key, found in sorted(marks.items())
    ]


def proportion(marks: Sequence[Mark]) -> Proportion | None:
    """The weighted share of right ones with Wilson's interval (1927); None of nothing.

    The interval's n is Kish's effective number (sum of weights)^2 / sum of squared weights, and less where images as a
    whole are right or wrong: then as many as independent claims would have the variance found between images.
    """
    total = math.fsum(weight for _, weight, _ in marks)
    if not total:
        return None
    share = math.fsum(weight for right, weight, _ in marks if right) / total
    number = total**2 / math.fsum(weight**2 for _, weight, _ in marks)
    deviations: dict[str, float] = defaultdict(float)
    for right, weight, image in marks:
        deviations[image] += weight * (right - share)
    count = len(deviations)
    variance = math.fsum(d**2 for d in deviations.values()) / total**2 * count / max(count - 1, 1)
    if count < len(marks) and variance > 0:
        number = min(number, share * (1 - share) / variance)
    low, high = wilson_interval(share, number)
    return Proportion(share, low, high, len(marks))


def wilson_interval(share: float, number: float, deviations: float = NORMAL) -> tuple[float, float]:
    """Wilson's score interval of a share observed among `number` > 0, which need not be whole."""
    squared = deviations**2
    centre = (share + squared / (2 * number)) / (1 + squared / number)
    half = deviations * math.sqrt(share * (1 - share) / number + squared / (4 * number**2)) / (1 + squared / number)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _weights(queue: Sequence[ReviewItem], judged: set[str]) -> dict[str, float]:
    """Item -> how many claims it stands for: 1 / chance, and its share of those of its kind that nobody judged."""
    asked: dict[bool, float] = defaultdict(float)
    answered: dict[bool, float] = defaultdict(float)
    for item in queue:
        asked[item.chance < 1] += 1 / item.chance
        answered[item.chance < 1] += (item.id in judged) / item.chance
    return {
        item.id: asked[item.chance < 1] / answered[item.chance < 1] / item.chance for item in queue if item.id in judged
    }


def _is_right(item: ReviewItem, verdict: Verdict) -> bool:
    return verdict.verdict == "accept" or (verdict.verdict == "fix" and verdict.label in ("", item.label))


def _keys(task: str, class_name: str, sources: Sequence[str]) -> list[tuple[str, str, str]]:
    classes = [(task, class_name, "")] if class_name else []
    return [(task, "", ""), *classes, *((task, "", source) for source in sources)]


def _add_objects(
    marks: dict[tuple[str, str, str], _Marks],
    image: str,
    task: str,
    part: Judged,
    weights: dict[str, float],
    sources: Sequence[str],
) -> None:
    """What really is in a completed image, and whether it was found under its name: by the labels, by each source."""
    weight = sum(weights[item.id] for item, _ in part.items) / len(part.items)
    objects = [
        (verdict.label or item.label, item.sources if _is_right(item, verdict) else ())
        for item, verdict in part.items
        if item.region is not None and verdict.verdict != "reject"
    ]
    for label, found_by in [*objects, *((region.label, ()) for region in part.missing)]:
        for key in _keys(task, label if task in CLASS_TASKS else "", sources):
            right = key[2] in found_by if key[2] else bool(found_by)
            marks[key].objects.append((right, weight, image))
