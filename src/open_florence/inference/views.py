"""Several views of one image, mirrored and turned, and what they agree on.

A model that writes its boxes from left to right leaves some out in a crowd, and others in the mirrored image. Asked
about every view, its boxes are put back into the image and fused (weighted boxes fusion; Solovyev et al., arXiv
1910.13302): where views agree, a box is the mean of theirs, and how many agree is a score that means something. It
costs as many times the time as there are views; made for labels that are to be kept, not for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.geometry import iou, region_box
from open_florence.images import open_image
from open_florence.inference.predictor import Predictor
from open_florence.schema import Annotation, Point, Region, Size
from open_florence.selection import region_score
from open_florence.tasks import find_task

TASKS_BY_VIEWS = ("<OD>", "<REGION_PROPOSAL>")
"""Tasks whose answers are boxes without words about left and right; all others are asked about the image as it is."""

SAME = 0.55
"""Boxes of one label that overlap at least so much (IoU) mean the same thing."""


@dataclass(frozen=True, slots=True)
class View:
    """One of the eight ways to lay an image: x and y swapped, then mirrored."""

    swapped: bool = False
    mirrored: bool = False
    upended: bool = False

    def image(self, picture: Image.Image) -> Image.Image:
        """The image as this view shows it."""
        for wanted, operation in (
            (self.swapped, Image.Transpose.TRANSPOSE),
            (self.mirrored, Image.Transpose.FLIP_LEFT_RIGHT),
            (self.upended, Image.Transpose.FLIP_TOP_BOTTOM),
        ):
            picture = picture.transpose(operation) if wanted else picture
        return picture

    def back(self, size: Size) -> Callable[[Point], Point]:
        """Points of the view -> points of the image, whose (width, height) is `size`."""
        width, height = (size[1], size[0]) if self.swapped else size

        def point(p: Point) -> Point:
            x = width - p[0] if self.mirrored else p[0]
            y = height - p[1] if self.upended else p[1]
            return (y, x) if self.swapped else (x, y)

        return point


VIEWS: dict[int, tuple[View, ...]] = {
    2: (View(), View(mirrored=True)),
    8: tuple(View(s, m, u) for s in (False, True) for m in (False, True) for u in (False, True)),
}
"""Number of views -> the views: 2 for images with an up and a down, 8 for those without (microscope, aerial)."""


class ViewPredictor:
    """A predictor that asks about several views where the task allows it, and answers what they agree on."""

    def __init__(self, predictor: Predictor, views: int = 2) -> None:
        """Raises OpenFlorenceError for a number of views other than those of `VIEWS`."""
        if views not in VIEWS:
            raise OpenFlorenceError(f"there can be {' or '.join(map(str, VIEWS))} views of an image, not {views}")
        self.predictor, self.views = predictor, VIEWS[views]
        self.source = f"{predictor.source}/{views}-views"

    def predict_each(
        self, requests: Sequence[tuple[Any, Any]], *, generation: GenerationConfig | None = None
    ) -> list[list[Annotation]]:
        """As `Predictor.predict_each`; the score of a fused region is the share of views that found it."""
        pictures = [open_image(image) for image, _ in requests]
        turned: list[tuple[Any, Any]] = []
        for picture, (_, asks) in zip(pictures, requests, strict=True):
            boxes = [ask for ask in asks if _by_views(ask)]
            turned.append((picture, asks))
            turned += [(view.image(picture), boxes) for view in self.views[1:]]
        answers = self.predictor.predict_each(turned, generation=generation)
        results = []
        for start, picture in zip(range(0, len(answers), len(self.views)), pictures, strict=True):
            size = (float(picture.width), float(picture.height))
            upright, others = answers[start], answers[start + 1 : start + len(self.views)]
            found, place = [], 0
            for answer, ask in zip(upright, requests[start // len(self.views)][1], strict=True):
                if _by_views(ask):
                    answer = self._agreed([answer, *(other[place] for other in others)], size)
                    place += 1
                found.append(answer)
            results.append(found)
        return results

    def predict_batch(
        self, images: Sequence[Any], tasks: list[Any], *, generation: GenerationConfig | None = None
    ) -> list[list[Annotation]]:
        """Every task about every image, as `predict_each`."""
        return self.predict_each([(image, tasks) for image in images], generation=generation)

    def _agreed(self, answers: Sequence[Annotation], size: Size) -> Annotation:
        """The answers of all views, in their order, as one."""
        regions = [
            _back(region, view.back(size))
            for view, answer in zip(self.views, answers, strict=True)
            for region in answer.regions
        ]
        return replace(
            answers[0],
            source=self.source,
            regions=fuse(regions, len(self.views)),
            complete=all(answer.complete for answer in answers),
            dropped=sum(answer.dropped for answer in answers),
        )


def fuse(regions: Sequence[Region], views: int, overlap: float = SAME) -> tuple[Region, ...]:
    """Boxes of several views of one image, in its pixels -> one box for each thing, from left to right.

    Boxes of one label gather, the surest first, around those they overlap by `overlap` (IoU) or more. The fused box is
    the mean of its members', weighted by their scores; its score is their number over `views`, at most 1, and its label
    score the mean of theirs.
    """
    fused: list[Region] = []
    for label in dict.fromkeys(region.label for region in regions):
        own = sorted((r for r in regions if r.label == label), key=region_score, reverse=True)
        boxes = np.array([region_box(region.parts) for region in own], np.float64)  # (N, 4)
        weights = np.array([max(region_score(region), 1e-6) for region in own])  # (N,)
        left = np.ones(len(own), bool)
        for first in range(len(own)):
            if not left[first]:
                continue
            near = left & (iou(boxes[first : first + 1], boxes)[0] >= overlap)
            near[first] = True
            left &= ~near
            mean = np.average(boxes[near], axis=0, weights=weights[near])
            named = [own[k].label_score for k in np.nonzero(near)[0]]
            sure = [score for score in named if score is not None]
            fused.append(
                replace(
                    Region.box(*mean.tolist(), label=label, score=min(1.0, int(near.sum()) / views)),
                    label_score=sum(sure) / len(sure) if sure else None,
                )
            )
    return tuple(sorted(fused, key=lambda region: region.parts[0][0]))


def _by_views(ask: Any) -> bool:
    name = ask[0] if isinstance(ask, tuple) else ask
    return find_task(name).token in TASKS_BY_VIEWS


def _back(region: Region, point: Callable[[Point], Point]) -> Region:
    a, b = (point(corner) for corner in region.parts[0])
    return replace(region, parts=((tuple(map(min, a, b)), tuple(map(max, a, b))),))
