"""What is kept of an answer: regions that are sure enough, and one of several that mark the same thing.

Nothing is thrown away silently: `Selection.apply` says how many regions went, and why. Thresholds are worth as much as
the scores they are put on; `open-florence calibrate` makes probabilities of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, box_to_polygon, iou, mask_iou, rasterize, region_box
from open_florence.schema import Annotation, Region

GRID = 128
"""Cells a side in which the overlap of two regions that are not both boxes is measured."""


def region_score(region: Region) -> float:
    """How sure the source is of the region, place and label together: 1.0 where it did not say."""
    place = 1.0 if region.score is None else region.score
    return place * (1.0 if region.label_score is None else region.label_score)


class Removed(NamedTuple):
    """How many regions went, and why."""

    below: int = 0
    """Their score was below the threshold."""
    overlapping: int = 0
    """They lay on a region of the same label with a better score."""


NOTHING = Removed()


def sum_removed(several: Iterable[Removed]) -> Removed:
    """All together."""
    counts = list(several)
    return Removed(sum(one.below for one in counts), sum(one.overlapping for one in counts))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which regions of an answer are kept; without settings all of them."""

    threshold: float = 0.0
    """The least score (`region_score`), 0 to 1."""
    nms: float | None = None
    """The most that a region may overlap a better one of the same label, as IoU, 0 to 1; None: as much as it likes."""

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("nms", self.nms)):
            if value is not None and not 0 <= value <= 1:
                raise OpenFlorenceError(f"{name} lies between 0 and 1, not at {value}")

    def apply(self, annotation: Annotation) -> tuple[Annotation, Removed]:
        """The annotation with the regions that are kept, in their order, and how many were not.

        First the threshold, then non-maximum suppression among regions of one label, best score first. What is kept of
        regions that are no boxes is judged by the areas they enclose. Text and spans stay as they are.
        """
        sure = [region for region in annotation.regions if region_score(region) >= self.threshold]
        kept = sure if self.nms is None else _suppress(sure, self.nms)
        removed = Removed(len(annotation.regions) - len(sure), len(sure) - len(kept))
        return (replace(annotation, regions=tuple(kept)) if any(removed) else annotation), removed

    def apply_all(self, annotations: Iterable[Annotation]) -> tuple[list[Annotation], Removed]:
        """`apply` for each of the annotations of an image, and how many regions were not kept in all."""
        applied = [self.apply(annotation) for annotation in annotations]
        return [annotation for annotation, _ in applied], sum_removed(removed for _, removed in applied)

    def say(self, removed: Removed) -> str:
        """What was left out, as a sentence; with a zero too, so that it is known that somebody looked."""
        overlapping = (
            "" if self.nms is None else f", {removed.overlapping} that overlap a better one (IoU {self.nms:g})"
        )
        return f"left out: {removed.below} regions with a score below {self.threshold:g}{overlapping}"


def overlap(a: Region, b: Region) -> float:
    """Intersection over union of the areas of two regions: exact for boxes, on a grid of `GRID` cells a side otherwise.

    The grid covers both regions and nothing else, so that small regions are measured as finely as large ones.
    """
    boxes = np.stack([region_box(a.parts), region_box(b.parts)])  # (2, 4)
    around = float(iou(boxes[:1], boxes[1:])[0, 0])
    if around == 0 or (a.kind == b.kind == "box"):
        return around
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    masks = [
        rasterize([(outline - low) / (high - low) * GRID for outline in _outlines(r)], (GRID, GRID)) for r in (a, b)
    ]
    return mask_iou(*masks)


def _outlines(region: Region) -> list[Array]:
    """The polygons (P, 2) of an image's region."""
    if region.kind == "box":
        return [box_to_polygon(region_box(region.parts))]
    return [np.asarray(part, dtype=np.float64) for part in region.parts]


def _suppress(regions: list[Region], most: float) -> list[Region]:
    """Non-maximum suppression label by label; of equal scores the earlier region goes first. Order is kept."""
    kept: list[int] = []
    for index in sorted(range(len(regions)), key=lambda i: -region_score(regions[i])):
        rivals = (regions[other] for other in kept if regions[other].label == regions[index].label)
        if all(overlap(regions[index], rival) <= most for rival in rivals):
            kept.append(index)
    return [regions[index] for index in sorted(kept)]
