"""Colour and size of things that others found, in words: "large red car".

A pixel has the name of the nearest of a small table of colours, by its distance in CIELAB (CIE 15, the difference of
1976), where equal distances look about equal; a thing has the name that most of its pixels have. On the things of 60
scenes nine names in ten are the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, box_area, rasterize, region_box
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists.inputs import Pixels, boxes_of, pixels_of
from open_florence.specialists.versions import version_of

COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((0, 0, 0), (30, 30, 30)),
    "grey": ((80, 80, 80), (125, 125, 125), (165, 165, 165)),
    "white": ((255, 255, 255), (225, 225, 225)),
    "red": ((205, 35, 35), (150, 20, 25), (230, 70, 65)),
    "orange": ((240, 135, 30), (225, 105, 30)),
    "yellow": ((240, 215, 50), (215, 185, 70), (250, 235, 120)),
    "green": ((45, 150, 60), (25, 85, 40), (115, 185, 85), (90, 110, 50)),
    "cyan": ((65, 205, 215), (20, 140, 150)),
    "blue": ((40, 75, 190), (25, 35, 95), (85, 140, 215), (140, 190, 235)),
    "purple": ((115, 50, 150), (160, 95, 190), (75, 40, 95)),
    "pink": ((240, 150, 180), (230, 90, 150), (245, 190, 205)),
    "brown": ((115, 70, 40), (75, 50, 35), (150, 105, 65)),
    "beige": ((215, 190, 155), (195, 170, 135)),
}
"""Name -> its sRGB values: one colour light, dark and dull."""
INNER = 0.7
"""Without a mask, the pixels of the ellipse in the middle of the box are looked at, this share as wide and high."""
MOST_PIXELS = 48
"""A side; of larger things every so many pixels are looked at."""
LARGE, SMALL = 0.2, 0.01
"""A thing whose box covers this share of the image or more is large; this share or less, small."""
PEOPLE = ("person", "man", "woman", "boy", "girl", "child", "face")


class Look(NamedTuple):
    """The words for a region, and how sure they are."""

    words: tuple[str, ...]
    score: float


@dataclass
class Attributes:
    """<DENSE_REGION_CAPTION>: the boxes of <OD> about which there is something to say, labelled with size, colour and
    their own label; <REGION_TO_DESCRIPTION>: the same for each, the box being the query.

    The score is the share of the pixels that have the colour; without a colour word it is 1. Where the sample holds
    <REGION_TO_SEGMENTATION> for the box, the pixels are those of the mask.
    """

    least_share: float = 0.5
    """A colour that fewer pixels have is not named, 0 to 1."""
    uncoloured: Sequence[str] = PEOPLE
    """Labels without a colour: "red person" would speak of a coat."""
    version: str = field(init=False, compare=False)

    name: ClassVar[str] = "attributes"
    tasks: ClassVar[tuple[str, ...]] = ("<DENSE_REGION_CAPTION>", "<REGION_TO_DESCRIPTION>")
    needs: ClassVar[tuple[str, ...]] = ("<OD>",)

    def __post_init__(self) -> None:
        if not 0 <= self.least_share <= 1:
            raise OpenFlorenceError(f"attributes: least_share lies between 0 and 1, not at {self.least_share}")
        self._uncoloured = {label.casefold() for label in self.uncoloured}
        self.version = version_of("1", self)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """Nothing for a sample none of whose boxes there is anything to say about."""
        return [self._describe(sample) for sample in samples]

    def _describe(self, sample: Sample) -> list[Annotation]:
        boxes = boxes_of(sample.annotations)
        if not boxes:
            return []
        image = pixels_of(sample)
        masks = {a.query.parts: a.regions for a in sample.annotations if isinstance(a.query, Region) and a.regions}
        named, phrases = [], []
        for box in boxes:
            look = self._look(image, box, masks.get(box.parts, ()))
            if not look.words:
                continue
            text = " ".join((*look.words, box.label))
            named.append(Region("box", box.parts, text, score=box.score, label_score=look.score))
            phrases.append(Annotation("<REGION_TO_DESCRIPTION>", text, query=box, score=look.score))
        return [Annotation("<DENSE_REGION_CAPTION>", regions=tuple(named)), *phrases] if named else []

    def _look(self, image: Pixels, box: Region, mask: Sequence[Region]) -> Look:
        words = box.label.casefold().split()
        if not words:
            return Look((), 1.0)
        share = float(box_area(region_box(box.parts)[None])[0] / (image.shape[0] * image.shape[1]))
        size = ("large",) if share >= LARGE else ("small",) if share <= SMALL else ()
        colour, sure = colour_of(image, box, mask)
        known = sure >= self.least_share and not set(words) & (self._uncoloured | COLOURS.keys())
        said = () if set(words) & {"large", "small"} else size
        return Look((*said, colour), sure) if known else Look(said, 1.0)


def colour_of(image: Pixels, box: Region, mask: Sequence[Region] = ()) -> tuple[str, float]:
    """The colour that most pixels of a box have, and their share, 0 to 1; ("", 0.0) where it holds none.

    `box` lies in pixels of the image; `mask` are the polygons of the thing in it, none for the middle of the box.
    """
    x1, y1, x2, y2 = region_box(box.parts)
    columns, rows = _samples(x1, x2, image.shape[1]), _samples(y1, y2, image.shape[0])
    if not len(columns) or not len(rows):
        return "", 0.0
    if mask:
        step = np.array([(x2 - x1) / len(columns), (y2 - y1) / len(rows)])
        parts = [(np.asarray(part) - (x1, y1)) / step for region in mask for part in region.parts]
        inside = rasterize(parts, (len(columns), len(rows)))
    else:
        x = (columns + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
        y = (rows + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
        inside = y[:, None] ** 2 + x**2 <= INNER**2  # (h, w)
    pixels = image[rows[:, None], columns][inside]  # (P, 3)
    if not len(pixels):
        return "", 0.0
    distances = ((lab(pixels)[:, None] - _PLACES) ** 2).sum(axis=2)  # (P, colours)
    counts = np.bincount(_NAMES[distances.argmin(axis=1)], minlength=len(COLOURS))
    best = int(counts.argmax())
    return list(COLOURS)[best], float(counts[best] / len(pixels))


def lab(pixels: NDArray[np.uint8]) -> Array:
    """sRGB (..., 3), 0 to 255 -> CIELAB (..., 3) under daylight (D65): lightness 0 to 100, red-green, yellow-blue."""
    c = np.asarray(pixels, dtype=np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _XYZ.sum(axis=1)  # of white: 1
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _samples(low: float, high: float, side: int) -> NDArray[np.int64]:
    """At most `MOST_PIXELS` pixels of an axis of `side` pixels, evenly between two places."""
    first, last = max(int(np.floor(low)), 0), min(int(np.ceil(high)), side)
    if first >= last:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(first, last - 1, min(last - first, MOST_PIXELS)).astype(np.int64))


_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_PLACES = lab(np.array([value for values in COLOURS.values() for value in values], np.uint8))  # (colours, 3)
_NAMES = np.array([k for k, values in enumerate(COLOURS.values()) for _ in values])
