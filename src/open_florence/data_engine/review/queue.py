"""What a person should look at first, and what has to be looked at by chance so that figures mean something.

A claim is what can be judged by itself: a region of an annotation, or its text. Part of the queue is drawn at random,
with chances that are known: figures weighted by their inverse speak for the whole round (Horvitz and Thompson, 1952).
The rest is what is most worth judging: where sources disagree, scores are low, or the class is rare.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.review.item import ReviewItem
from open_florence.data_engine.review.opinions import Opinions
from open_florence.data_engine.review.sampling import systematic_sample
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Region, Sample

Stratum = tuple[str, str, str]
"""(task, class, source)"""


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is chosen or drawn together: one claim, or all claims of an image."""

    items: list[ReviewItem]
    worth: float
    stratum: Stratum


def review_queue(
    images: Iterable[tuple[Sample, Sequence[Candidate]]],
    count: int,
    *,
    random_share: float = 0.5,
    whole_images: bool = False,
    seed: int = 0,
) -> list[ReviewItem]:
    """The claims a person should judge, most worth judging first, those drawn at random spread among them.

    `images` are samples with the labels of a round as candidates; the sample's own annotations are what every source
    said, for the disagreement. `count` claims are taken, or images with all their claims where `whole_images` is set:
    only whole images can be confirmed complete. `random_share` of them are drawn: any claim may be, those of a
    frequent task, class and source less often, so that none fills the sample. The others are chosen by disagreement +
    (1 - score) + 1 / sqrt(claims of the class), in turns from each task, class and source.

    The same for the same claims and seed in any order of images. All claims are held at a time; of a large round, pass
    the images of a sample of it. Raises OpenFlorenceError for a share outside 0 to 1, and for an image or row twice.
    """
    if not 0 <= random_share <= 1:
        raise OpenFlorenceError(f"the share drawn at random is between 0 and 1, not {random_share}")
    items, reasons = _claims(images)
    frequency = Counter((item.annotation.task, item.class_name) for item in items)
    worths, whys = {}, {}
    for item, doubt in zip(items, reasons, strict=True):
        same = frequency[item.annotation.task, item.class_name] if item.class_name else 0
        worths[item.id] = _worth(item, same)
        whys[item.id] = _why(item, same, doubt)
    units = _units(items, worths, whole_images)
    ranked = _in_turns(units)
    drawn_count = round(count * random_share)
    first, rest = ranked[: count - drawn_count], ranked[count - drawn_count :]
    drawn = _draw(rest, min(drawn_count, len(rest)), seed)
    chosen = [([replace(item, why=whys[item.id]) for item in unit.items], 1.0) for unit in first]
    queue = [replace(item, chance=chance) for group, chance in _interleaved(chosen, drawn) for item in group]
    return _with_context(queue, items)


def _claims(images: Iterable[tuple[Sample, Sequence[Candidate]]]) -> tuple[list[ReviewItem], list[str]]:
    """Every claim of every image, in the order of their ids, and what other sources say of it."""
    claims: list[tuple[ReviewItem, str]] = []
    seen: set[str] = set()
    for sample, candidates in images:
        if sample.id in seen:
            raise OpenFlorenceError(f"the image {sample.id} is given twice for review")
        seen.add(sample.id)
        opinions = Opinions(sample.annotations)
        of_task = Counter[str]()
        for candidate in candidates:
            of_task[candidate.annotation.task] += max(1, len(candidate.annotation.regions))
        for candidate in candidates:
            said = candidate.annotation
            for number, opinion in enumerate(opinions.about(said)):
                part = replace(said, regions=said.regions[number : number + 1])
                name = f"{candidate.id}#{number}" if said.regions else candidate.id
                sources = opinion.agree or (said.source,)
                share = len(opinion.against) / max(1, len(opinion.agree) + len(opinion.against))
                item = ReviewItem(
                    name, sample.id, sample.path, sample.size, candidate.id, part, sources, share, of_task[said.task]
                )
                claims.append((item, opinion.sentence))
    claims.sort(key=lambda claim: claim[0].id)
    for (before, _), (after, _) in pairwise(claims):
        if before.id == after.id:
            raise OpenFlorenceError(f"the row {before.row} is given twice for review")
    return [item for item, _ in claims], [sentence for _, sentence in claims]


def _worth(item: ReviewItem, same: int) -> float:
    doubt = 0.5 if item.score is None else 1 - item.score
    return item.disagreement + doubt + (same**-0.5 if same else 0.0)


def _why(item: ReviewItem, same: int, doubt: str) -> str:
    parts = [doubt] if doubt else []
    if item.score is not None:
        parts.append(f"its score is {item.score:.2f}")
    if same == 1:
        parts.append("it is the only one of its class")
    elif 1 < same <= 100:
        parts.append(f"its class has {same}")
    sentence = "; ".join(parts) or "nobody gave it a score"
    return sentence[0].upper() + sentence[1:] + "."


def _units(items: Sequence[ReviewItem], worths: dict[str, float], whole_images: bool) -> list[_Unit]:
    groups: dict[str, list[ReviewItem]] = defaultdict(list)
    for item in items:
        groups[item.image if whole_images else item.id].append(item)
    units = []
    for group in groups.values():
        group.sort(key=lambda item: (-worths[item.id], item.id))
        best = group[0]
        stratum = (best.annotation.task, best.class_name, best.annotation.source)
        units.append(_Unit(group, worths[best.id], stratum))
    return units


def _in_turns(units: Sequence[_Unit]) -> list[_Unit]:
    """The best of every stratum, then the second of each, and so on."""
    taken = Counter[Stratum]()
    turns = []
    for unit in sorted(units, key=lambda unit: (-unit.worth, unit.items[0].id)):
        turns.append((taken[unit.stratum], unit))
        taken[unit.stratum] += 1
    return [unit for _, unit in sorted(turns, key=lambda turn: (turn[0], -turn[1].worth, turn[1].items[0].id))]


def _draw(units: Sequence[_Unit], count: int, seed: int) -> list[tuple[list[ReviewItem], float]]:
    """`count` units drawn in random order, each with its chance, which falls with the square root of its stratum."""
    generator = np.random.default_rng(seed)
    pool = sorted(units, key=lambda unit: unit.items[0].id)
    pool = [pool[index] for index in generator.permutation(len(pool))]
    pool.sort(key=lambda unit: unit.stratum)  # neighbours are alike, and equal steps through them take from all
    sizes = Counter(unit.stratum for unit in pool)
    picked, chances = systematic_sample(np.array([sizes[unit.stratum] ** -0.5 for unit in pool]), count, generator)
    drawn = []
    for index in generator.permutation(picked):
        items = [replace(item, why="Drawn at random.") for item in pool[index].items]
        drawn.append((items, float(chances[index])))
    return drawn


def _interleaved(*groups: list[tuple[list[ReviewItem], float]]) -> list[tuple[list[ReviewItem], float]]:
    """The groups' entries in their order, each group spread evenly: a person who stops early has judged of both."""
    placed = [((place + 0.5) / len(group), entry) for group in groups for place, entry in enumerate(group)]
    return [entry for _, entry in sorted(placed, key=lambda pair: pair[0])]


def _with_context(queue: list[ReviewItem], items: Sequence[ReviewItem]) -> list[ReviewItem]:
    shown = {item.id for item in queue}
    wanted = {(item.image, item.annotation.task) for item in queue}
    around: dict[tuple[str, str], list[Region]] = defaultdict(list)
    for item in items:
        place = (item.image, item.annotation.task)
        if place in wanted and item.id not in shown and item.region is not None:
            around[place].append(item.region)
    return [replace(item, context=tuple(around[item.image, item.annotation.task])) for item in queue]
