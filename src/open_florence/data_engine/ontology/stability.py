"""Classes that sources do not agree on, so that somebody looks before a model is trained on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.filters.thresholds import wilson_bound
from open_florence.geometry import iou, region_box
from open_florence.schema import Region
from open_florence.selection import region_score

SAME = 0.5
"""The least IoU of two boxes around the same object."""
TOLERANCE = 0.2
"""The share of objects on which two good sources may well call things differently."""
CONFIDENCE = 0.95
ENOUGH = 10
"""Objects below which a share of them is no figure."""

Names = Counter[tuple[str, str]]
"""How often two sources called the same object what: (first's name, second's name) -> objects."""


@dataclass(frozen=True, slots=True)
class Unstable:
    """A class about which two sources differ more than chance explains."""

    name: str
    sources: tuple[str, str]
    objects: int
    """Objects that both found and that at least one of them calls by this name."""
    agreement: float
    """The share of those that both call so."""
    chance: float
    """The share expected of two sources that hand out as many of each name but do not look."""
    rival: str
    """What the other source calls it most often."""

    @property
    def sentence(self) -> str:
        """The finding in words, with its figures."""
        first, second = self.sources
        return (
            f"{self.name}: {first} and {second} agree on {self.agreement:.0%} of {self.objects} objects"
            f" (by chance {self.chance:.0%}); instead most often {self.rival}"
        )


def unstable_labels(
    images: Iterable[Sequence[Candidate]], tolerance: float = TOLERANCE, confidence: float = CONFIDENCE
) -> list[Unstable]:
    """The classes to look at before training, the worst first; `images` has the candidates of one image an item.

    The boxes of two sources' <OD> answers are matched one to one, best IoU first and at least `SAME`, whatever they
    are called. Of the n objects that at least one of the two calls c, k are called c by one alone. Two sources that
    differ on a share `tolerance` of objects would by chance differ on more here and there, so c is unstable when the
    lower bound (Wilson, one-sided, `confidence`) of k/n lies above it, or when they agree no more than by chance.
    With fewer than `ENOUGH` objects nothing is said. Figures are of one pair of sources: a class has a line for every
    pair that differs about it.
    """
    pairs: dict[tuple[str, str], Names] = defaultdict(Counter)
    for candidates in images:
        by_source: dict[str, list[Region]] = defaultdict(list)
        for candidate in candidates:
            if candidate.annotation.task == "<OD>":
                by_source[candidate.annotation.source] += candidate.annotation.regions
        for first, second in combinations(sorted(by_source), 2):
            pairs[first, second].update(_matched(by_source[first], by_source[second]))
    found = [one for sources, names in pairs.items() for one in _of_pair(sources, names, tolerance, confidence)]
    return sorted(found, key=lambda one: (one.agreement, -one.objects, one.name, one.sources))


def _matched(first: Sequence[Region], second: Sequence[Region]) -> list[tuple[str, str]]:
    """The two names of every object that both found."""
    if not first or not second:
        return []
    overlaps = iou([region_box(r.parts) for r in first], [region_box(r.parts) for r in second])  # (N, M)
    scores = np.add.outer([region_score(r) for r in first], [region_score(r) for r in second])
    order = np.lexsort((-scores.ravel(), -overlaps.ravel()))
    names: list[tuple[str, str]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for a, b in zip(*np.unravel_index(order, overlaps.shape), strict=True):
        if overlaps[a, b] < SAME:
            break
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(int(a))
            taken[1].add(int(b))
            names.append((first[int(a)].label, second[int(b)].label))
    return names


def _of_pair(sources: tuple[str, str], names: Names, tolerance: float, confidence: float) -> list[Unstable]:
    total = names.total()
    by_first: Counter[str] = Counter()
    by_second: Counter[str] = Counter()
    for (a, b), count in names.items():
        by_first[a] += count
        by_second[b] += count
    found = []
    for name in sorted(by_first.keys() | by_second.keys()):
        both = names[name, name]
        either = by_first[name] + by_second[name] - both
        if either < ENOUGH or both == either:
            continue
        expected = by_first[name] * by_second[name] / total
        chance = expected / (by_first[name] + by_second[name] - expected)
        if wilson_bound(either - both, either, confidence) > tolerance or both / either <= chance:
            found.append(Unstable(name, sources, either, both / either, chance, _rival(name, names)))
    return found


def _rival(name: str, names: Names) -> str:
    """What the other source says most often where one says `name`."""
    rivals: Counter[str] = Counter()
    for (a, b), count in names.items():
        if a != b and name in (a, b):
            rivals[b if a == name else a] += count
    return min(rivals, key=lambda other: (-rivals[other], other))
