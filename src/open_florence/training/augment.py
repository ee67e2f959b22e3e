"""Augmentation that moves pixels and regions together.

How much may happen to an image depends on what is said about it: a box may be mirrored and cropped, a printed word
cropped but never mirrored, and a caption, which speaks of left and right and of everything there is, neither.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image, ImageEnhance

from open_florence.geometry import clip, region_box
from open_florence.schema import Annotation, Point, Region, Size

Freedom = Literal["light", "crop", "flip"]
"""What may happen to an image: another light; also a crop; also mirroring."""

FREEDOM: dict[str, Freedom] = {
    "<OD>": "flip",
    "<REGION_PROPOSAL>": "flip",
    "<REGION_TO_CATEGORY>": "flip",
    "<OCR_WITH_REGION>": "crop",
    "<REGION_TO_OCR>": "crop",
}
"""Task -> what its annotations stand; all others only another light."""


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image, each with its own chance or range."""

    flip_horizontal: bool = True
    flip_vertical: bool = False
    transpose: bool = False
    """Swap x and y (square views only): with both flips, every rotation by 90 degrees."""
    crop: tuple[float, float] = (0.6, 1.0)
    """Sides of the crop as fractions of the image's sides."""
    brightness: float = 0.2
    contrast: float = 0.2
    colour: float = 0.2
    min_visible: float = 0.4
    """A region of which a smaller share (of its box) is left by the crop is dropped."""

    def __call__(
        self,
        image: Image.Image,
        annotations: Sequence[Annotation],
        size: tuple[int, int],
        rng: random.Random,
        freedom: Freedom = "flip",
    ) -> tuple[Image.Image, tuple[Annotation, ...]]:
        """One random view of an RGB image, resized to `size` (width, height), and the annotations in its pixels.

        An annotation that asks about a region which the crop leaves out is dropped.
        """
        left, top, w, h = 0.0, 0.0, *map(float, image.size)
        if freedom != "light":
            w, h = image.width * rng.uniform(*self.crop), image.height * rng.uniform(*self.crop)
            left, top = rng.uniform(0, image.width - w), rng.uniform(0, image.height - h)
        image = image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
        sx, sy = size[0] / w, size[1] / h
        extent = (float(size[0]), float(size[1]))
        annotations = _move(annotations, lambda p: ((p[0] - left) * sx, (p[1] - top) * sy))
        annotations = _clip(annotations, extent, self.min_visible if freedom != "light" else 0.0)
        if freedom == "flip":
            image, annotations = self._mirror(image, annotations, rng)
        for enhancer, amount in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.colour),
        ):
            if amount:
                image = enhancer(image).enhance(1 + rng.uniform(-amount, amount))
        return image, tuple(_ordered(annotation) for annotation in annotations)

    def _mirror(
        self, image: Image.Image, annotations: Sequence[Annotation], rng: random.Random
    ) -> tuple[Image.Image, Sequence[Annotation]]:
        width, height = image.size
        if self.flip_horizontal and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            annotations = _move(annotations, lambda p: (width - p[0], p[1]))
        if self.flip_vertical and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
            annotations = _move(annotations, lambda p: (p[0], height - p[1]))
        if self.transpose and width == height and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.TRANSPOSE)
            annotations = _move(annotations, lambda p: (p[1], p[0]))
        return image, annotations


def left_to_right(regions: tuple[Region, ...]) -> tuple[Region, ...]:
    """Regions in the order of their centres from left to right, then top to bottom: one order is easier to learn."""

    def centre(region: Region) -> tuple[float, float]:
        x1, y1, x2, y2 = region_box(region.parts)
        return (x1 + x2) / 2, (y1 + y2) / 2

    return tuple(sorted(regions, key=centre))


def _ordered(annotation: Annotation) -> Annotation:
    """Boxes from left to right; words stay in reading order, and phrases in that of their text."""
    if FREEDOM.get(annotation.task) != "flip":
        return annotation
    return replace(annotation, regions=left_to_right(annotation.regions))


def _move(annotations: Sequence[Annotation], point: Callable[[Point], Point]) -> list[Annotation]:
    def moved(region: Region) -> Region:
        parts = tuple(tuple(point(p) for p in part) for part in region.parts)
        if region.kind == "box":  # a mirrored box still names its lowest and highest corner
            (a, b), *_ = parts
            parts = ((tuple(map(min, a, b)), tuple(map(max, a, b))),)
        return replace(region, parts=parts)

    return [
        replace(
            a, regions=tuple(map(moved, a.regions)), query=moved(a.query) if isinstance(a.query, Region) else a.query
        )
        for a in annotations
    ]


def _clip(annotations: Sequence[Annotation], size: Size, min_visible: float) -> list[Annotation]:
    def clipped(region: Region) -> Region | None:
        inside = replace(region, parts=tuple(tuple(map(tuple, clip(part, size))) for part in region.parts))
        before, after = _box_area(region), _box_area(inside)
        return inside if after > 0 and after >= min_visible * before else None

    kept = []
    for annotation in annotations:
        query = annotation.query
        if isinstance(query, Region) and (query := clipped(query)) is None:
            continue
        regions = tuple(region for r in annotation.regions if (region := clipped(r)) is not None)
        kept.append(replace(annotation, regions=regions, query=query))
    return kept


def _box_area(region: Region) -> float:
    x1, y1, x2, y2 = region_box(region.parts)
    return float(max(0.0, x2 - x1) * max(0.0, y2 - y1))
