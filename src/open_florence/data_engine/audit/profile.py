"""What a round's labels look like as a whole: counts of classes, and how scores, sizes and lengths are spread.

Counts alone are kept, so that a profile of a billion labels is as small as that of a thousand, is written beside the
round, and is still there when the round of years later is compared with it.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from open_florence.data.jsonl import write_whole
from open_florence.data_engine.ontology.classes import classes_of
from open_florence.data_engine.review.opinions import Opinions
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_area, region_box
from open_florence.schema import Annotation, Region, Size
from open_florence.selection import region_score

STUDENT = "student"
"""What stands before "@" in the source of a model that was trained here."""
MEASURES = {"score": 100, "size": 100, "words": 200}
"""What is measured -> into how many steps: score 0 to 1; side of the box over that of the image, 0 to 1; words."""

Key = tuple[str, str]
"""(task, source); the source is "" for all, and what stands before "@" else: a new version is compared with the old."""


@dataclass(slots=True)
class Part:
    """The labels of one task, of one source or all."""

    labels: int = 0
    """Regions, and texts."""
    model_only: int = 0
    """Of those, the ones that no source but a trained model stands behind."""
    classes: Counter[str] = field(default_factory=Counter)
    model_only_classes: Counter[str] = field(default_factory=Counter)
    steps: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in MEASURES})
    """Measure -> step -> how many labels lie there."""

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and numbers."""
        return {
            "labels": self.labels,
            "model_only": self.model_only,
            "classes": dict(self.classes.most_common()),
            "model_only_classes": dict(self.model_only_classes.most_common()),
            **{name: {str(step): count for step, count in sorted(self.steps[name].items())} for name in MEASURES},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Part:
        """The inverse of `to_json`."""
        return cls(
            int(record["labels"]),
            int(record["model_only"]),
            Counter(record["classes"]),
            Counter(record["model_only_classes"]),
            {name: Counter({int(step): count for step, count in record[name].items()}) for name in MEASURES},
        )


class Profile:
    """Counts of labels, gathered image by image."""

    def __init__(self) -> None:
        self.parts: dict[Key, Part] = defaultdict(Part)

    def add(self, size: Size, labels: Sequence[Annotation], said: Iterable[Annotation] = ()) -> None:
        """The labels of one image of `size` (width, height) in pixels.

        `said`: what every source answered about it: those that say the same stand behind a label (`Opinions`). It is
        the model's alone where only students do; a label behind which nobody stands was derived from others, and is
        not counted as the model's.
        """
        opinions = Opinions(said)
        for annotation in labels:
            own = annotation.source.partition("@")[0]
            alone = []
            for opinion in opinions.about(annotation):
                behind = {name.partition("@")[0] for name in opinion.agree} | ({own} & {STUDENT})
                alone.append(behind == {STUDENT})
            for key in {(annotation.task, ""), (annotation.task, own)}:
                _count(self.parts[key], annotation, alone, size)

    def to_json(self) -> list[dict[str, Any]]:
        """One dict a task and source."""
        return [{"task": t, "source": s, **part.to_json()} for (t, s), part in sorted(self.parts.items())]

    @classmethod
    def from_json(cls, records: Any) -> Profile:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        profile = cls()
        try:
            for record in records:
                profile.parts[record["task"], record["source"]] = Part.from_json(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no profile of labels: {error!r:.80}") from None
        return profile

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        write_whole(path, [json.dumps(self.to_json(), ensure_ascii=False).encode("utf-8", "backslashreplace"), b"\n"])

    @classmethod
    def read(cls, path: Path) -> Profile:
        """What `write` wrote. Raises OpenFlorenceError where that is not there or is damaged."""
        try:
            return cls.from_json(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise OpenFlorenceError(f"the profile {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise OpenFlorenceError(f"the profile {path} is damaged: {error}") from None


def _count(part: Part, annotation: Annotation, alone: Sequence[bool], size: Size) -> None:
    names = classes_of(annotation)
    part.classes.update(names)
    if not annotation.regions and not annotation.text:
        return
    part.labels += len(alone)
    part.model_only += sum(alone)
    if annotation.text:
        part.steps["words"][min(len(annotation.text.split()), MEASURES["words"] - 1)] += 1
    scores = [_score(region) for region in annotation.regions] or [annotation.score]
    for score in scores:
        if score is not None:
            part.steps["score"][_step("score", score)] += 1
    area = float(np.prod(size)) if size else 0.0
    for region, lonely in zip(annotation.regions, alone, strict=False):
        share = float(box_area(region_box(region.parts))[0]) / area if area else 0.0
        part.steps["size"][_step("size", math.sqrt(share))] += 1
        if lonely and names:
            part.model_only_classes[region.label] += 1


def _score(region: Region) -> float | None:
    return None if region.score is None and region.label_score is None else region_score(region)


def _step(measure: str, value: float) -> int:
    return min(max(int(value * MEASURES[measure] + 1e-9), 0), MEASURES[measure] - 1)
