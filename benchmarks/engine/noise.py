"""Specialists whose mistakes are known: what is true of a scene, made worse at given rates.

Three detectors look at every scene. Each misses three objects in ten, gives one found object in ten a wrong class
(mostly the same, more frequent look-alike), moves every edge of a box by 7 % of its side (standard deviation) and
invents 0.3 objects an image. The second one repeats the mistakes of the first at a rate of `CORRELATION`, as detectors
trained on the same data do; the third errs for itself. Scores are drawn from overlapping distributions for right, wrong
and invented.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from open_florence.geometry import region_box
from open_florence.scenes.vocabulary import SHAPES
from open_florence.schema import Annotation, Region, Sample

CLASSES = ("CAR", "BUS", "TRUCK", "BIKE", "TAXI", "PIZZA", "APPLE", "LEMON", "BOOKS", "RADIO", "BANK", "BOATS")
"""Names the shapes go by here: the shipped checkpoint knows the shapes, and has never called one by these words."""
NAMES = dict(zip(SHAPES, CLASSES, strict=True))
MISS, WRONG, JITTER, FALSE = 0.30, 0.10, 0.07, 0.30
CORRELATION = 0.6
SCORES = {"right": (4.0, 2.0), "wrong": (3.0, 3.0), "false": (2.0, 4.0)}
"""Parameters of the Beta distribution a score is drawn from."""


@dataclass(frozen=True)
class NoisyDetector:
    """A specialist that knows the truth and spoils it."""

    name: str
    truth: dict[str, Sample]
    """Image id -> what is there."""
    own: str
    """What its own mistakes are drawn from; two detectors with one `shared` repeat each other's."""
    shared: str = ""
    version: str = "1"
    tasks: tuple[str, ...] = ("<OD>",)
    needs: tuple[str, ...] = ()

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """One <OD> annotation an image."""
        return [[self._look(self.truth[sample.id])] for sample in samples]

    def _look(self, sample: Sample) -> Annotation:
        objects = next(a for a in sample.annotations if a.task == "<OD>").regions
        common, own = _random(self.shared or self.own, sample.id), _random(self.own, sample.id)
        found = []
        for thing in objects:
            repeated = (common.random(), common.random(), common.random())
            fate = (
                repeated if self.shared and own.random() < CORRELATION else (own.random(), own.random(), own.random())
            )
            if fate[0] < _miss(thing, sample):
                continue
            wrong = fate[1] < WRONG
            label = _lookalike(thing.label, fate[2]) if wrong else thing.label
            found.append(_seen(thing, label, "wrong" if wrong else "right", own, sample))
        invented = _inventions(common, sample) if self.shared else []
        invented = [thing for thing in invented if own.random() < CORRELATION]
        invented += [thing for thing in _inventions(own, sample) if not self.shared or own.random() >= CORRELATION]
        found += [_seen(thing, thing.label, "false", own, sample) for thing in invented]
        found.sort(key=lambda region: region.parts[0][0])
        return Annotation("<OD>", regions=tuple(found), source=f"{self.name}@{self.version}")


def detectors(samples: Sequence[Sample], seed: int) -> list[NoisyDetector]:
    """The three: the first two make mistakes together."""
    truth = {sample.id: sample for sample in samples}
    return [
        NoisyDetector("first", truth, f"first-{seed}", f"shared-{seed}"),
        NoisyDetector("second", truth, f"second-{seed}", f"shared-{seed}"),
        NoisyDetector("third", truth, f"third-{seed}"),
    ]


def _random(*words: str) -> random.Random:
    return random.Random(hashlib.sha256("/".join(words).encode()).digest())


def _miss(thing: Region, sample: Sample) -> float:
    """Small objects are missed twice as often as large ones; `MISS` on average."""
    x1, y1, x2, y2 = region_box(thing.parts)
    share = (x2 - x1) * (y2 - y1) / (sample.size[0] * sample.size[1])
    return MISS * (4 / 3 if share < 0.05 else 2 / 3)


def _lookalike(label: str, draw: float) -> str:
    """Four times in five the next more frequent class, otherwise any other."""
    k = CLASSES.index(label)
    if draw < 0.8:
        return CLASSES[k - 1] if k else CLASSES[1]
    others = [name for name in CLASSES if name != label]
    return others[int((draw - 0.8) / 0.2 * len(others)) % len(others)]


def _inventions(rng: random.Random, sample: Sample) -> list[Region]:
    """None, one, or now and then two objects that are not there; classes as frequent as they are."""
    count = (rng.random() < FALSE * 0.8) + (rng.random() < FALSE * 0.2)
    width, height = sample.size
    made = []
    for _ in range(count):
        side = rng.uniform(0.12, 0.35) * min(width, height)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        label = rng.choices(CLASSES, [(k + 1) ** -1.5 for k in range(len(CLASSES))])[0]
        made.append(Region.box(x, y, x + side, y + side * rng.uniform(0.7, 1.0), label=label))
    return made


def _seen(thing: Region, label: str, kind: str, rng: random.Random, sample: Sample) -> Region:
    """The region as reported: edges moved, a label, a score."""
    x1, y1, x2, y2 = region_box(thing.parts)
    w, h = x2 - x1, y2 - y1
    moved = [x1 + rng.gauss(0, JITTER * w), y1 + rng.gauss(0, JITTER * h)]
    moved += [x2 + rng.gauss(0, JITTER * w), y2 + rng.gauss(0, JITTER * h)]
    width, height = sample.size
    left, right = sorted(min(max(v, 0.0), width) for v in moved[::2])
    top, bottom = sorted(min(max(v, 0.0), height) for v in moved[1::2])
    score = rng.betavariate(*SCORES[kind])
    return replace(Region.box(left, top, max(right, left + 1), max(bottom, top + 1), label=label), score=score)
