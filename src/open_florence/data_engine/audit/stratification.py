"""A part of a set of images in which every class is represented, the rare ones first.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011): always the class that has the fewest images left is
served next. Which of its images is taken is decided by a hash of the image's content, so crowded images are not
preferred and the order of the images does not matter.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from open_florence.data.ignored import IGNORED
from open_florence.data_engine.ontology.classes import classes_of
from open_florence.schema import Sample

LEAST = 5
"""Images of each class that are wanted where there is room, as long as as many stay outside."""

Stratum = tuple[str, str]
"""(task, class); the class is "" where nothing is found, or labels are free words."""


def strata(sample: Sample) -> set[Stratum]:
    """What the sample stands for."""
    said = [annotation for annotation in sample.annotations if annotation.task != IGNORED]
    return {(a.task, name) for a in said for name in classes_of(a) or [""]}


def stratified(samples: Sequence[Sample], count: int, seed: int = 0) -> list[Sample]:
    """`count` of the samples, or all where there are fewer, in the order of their ids, which differ.

    In turn, until there are `count`: an image of each class; of each class `LEAST`, or half of its images; of each
    class its share; any.
    """
    order = sorted(samples, key=lambda sample: _lot(sample.id, seed))
    count = min(count, len(order))
    share = count / max(len(order), 1)
    wishes: tuple[Callable[[int], int], ...] = (
        lambda size: 1,
        lambda size: min(LEAST, math.ceil(size / 2)),
        lambda size: round(share * size),
    )
    members: dict[Stratum, list[int]] = defaultdict(list)
    for index, sample in enumerate(order):
        for stratum in strata(sample):
            members[stratum].append(index)
    chosen: dict[int, None] = {}
    have: Counter[Stratum] = Counter()
    for wish in wishes:
        wanted = {stratum: wish(len(indices)) for stratum, indices in members.items()}
        while len(chosen) < count:
            short = [stratum for stratum, number in wanted.items() if have[stratum] < number]
            if not short:
                break
            rarest = min(short, key=lambda stratum: (len(members[stratum]) - have[stratum], stratum))
            index = next(index for index in members[rarest] if index not in chosen)
            chosen[index] = None
            have.update(strata(order[index]))
    rest = [index for index in range(len(order)) if index not in chosen]
    picked = [*chosen, *rest[: count - len(chosen)]]
    return sorted((order[index] for index in picked), key=lambda sample: sample.id)


def _lot(name: str, seed: int) -> tuple[str, str]:
    """Where chance puts an image: the same for the same content and seed."""
    return hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest(), name
