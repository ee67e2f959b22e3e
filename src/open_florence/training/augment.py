"""Augmentation that moves pixels and regions together.

Only annotations without words about left and right may be flipped; fine-tuning on boxes uses it, captions do not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image, ImageEnhance

from open_florence.geometry import clip, region_box
from open_florence.schema import Annotation, Point, Region, Size


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
        self, image: Image.Image, annotation: Annotation, size: tuple[int, int], rng: random.Random
    ) -> tuple[Image.Image, Annotation]:
        """One random view of an RGB image, resized to `size` (width, height), and the regions in its pixels."""
        width, height = image.size
        w, h = width * rng.uniform(*self.crop), height * rng.uniform(*self.crop)
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        image = image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
        sx, sy = size[0] / w, size[1] / h
        regions = _move(annotation.regions, lambda p: ((p[0] - left) * sx, (p[1] - top) * sy))
        regions = _clip(regions, (float(size[0]), float(size[1])), self.min_visible)
        if self.flip_horizontal and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            regions = _move(regions, lambda p: (size[0] - p[0], p[1]))
        if self.flip_vertical and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
            regions = _move(regions, lambda p: (p[0], size[1] - p[1]))
        if self.transpose and size[0] == size[1] and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.TRANSPOSE)
            regions = _move(regions, lambda p: (p[1], p[0]))
        for enhancer, amount in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.colour),
        ):
            if amount:
                image = enhancer(image).enhance(1 + rng.uniform(-amount, amount))
        return image, replace(annotation, regions=left_to_right(regions))


def left_to_right(regions: tuple[Region, ...]) -> tuple[Region, ...]:
    """Regions in the order of their centres from left to right, then top to bottom: one order is easier to learn."""

    def centre(region: Region) -> tuple[float, float]:
        x1, y1, x2, y2 = region_box(region.parts)
        return (x1 + x2) / 2, (y1 + y2) / 2

    return tuple(sorted(regions, key=centre))


def _move(regions: tuple[Region, ...], point: Callable[[Point], Point]) -> tuple[Region, ...]:
    moved = []
    for region in regions:
        parts = tuple(tuple(point(p) for p in part) for part in region.parts)
        if region.kind == "box":  # a mirrored box still names its lowest and highest corner
            (a, b), *_ = parts
            parts = ((tuple(map(min, a, b)), tuple(map(max, a, b))),)
        moved.append(replace(region, parts=parts))
    return tuple(moved)


def _clip(regions: tuple[Region, ...], size: Size, min_visible: float) -> tuple[Region, ...]:
    kept = []
    for region in regions:
        clipped = replace(region, parts=tuple(tuple(map(tuple, clip(part, size))) for part in region.parts))
        before, after = _box_area(region), _box_area(clipped)
        if after > 0 and after >= min_visible * before:
            kept.append(clipped)
    return tuple(kept)


def _box_area(region: Region) -> float:
    x1, y1, x2, y2 = region_box(region.parts)
    return float(max(0.0, x2 - x1) * max(0.0, y2 - y1))
