"""Windows of an image that is too large to read at once, and what an annotation says about each.

A receipt of 463 x 1,000 pixels squeezed into a small model's input is illegible; in tiles each line keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_area, clip, region_box
from open_florence.schema import Annotation, Region, Size

Window = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of the whole image, right and bottom exclusive."""


def tiles(size: Size, tile: tuple[int, int], overlap: float = 0.2) -> Iterator[Window]:
    """The windows of `tile` (width, height) pixels that cover an image of `size`, row by row.

    Neighbours share `overlap` of a side at least, so that what one of them cuts is whole in the next if it is no larger
    than that. All lie in the image: where it is smaller than a tile, the window is as small as the image.
    """
    if min(tile) < 1 or not 0 <= overlap < 1:
        raise OpenFlorenceError(f"tiles are 1 pixel or more with an overlap from 0 to 1, not {tile} with {overlap}")
    columns, rows = (_spans(math.ceil(size[axis]), tile[axis], overlap) for axis in (0, 1))
    for top, bottom in rows:
        for left, right in columns:
            yield left, top, right, bottom


def crop(
    image: Image.Image, annotation: Annotation, window: Window, min_visible: float = 0.9
) -> tuple[Image.Image, Annotation]:
    """The pixels of a window, and the regions in it in its own pixels, cut at its edge.

    A region of which less than `min_visible` (of its box) is in the window is left out: half a line of text does not
    have the text of the whole. The annotation's own text stays as it is.
    """
    left, top, right, bottom = window
    regions = (_moved(region, window, min_visible) for region in annotation.regions)
    kept = tuple(region for region in regions if region is not None)
    return image.crop((left, top, right, bottom)), replace(annotation, regions=kept)


def _spans(length: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    """Where tiles begin and end along one side: as few as share the overlap, evenly spread."""
    if length <= tile:
        return [(0, length)]
    step = max(1, math.floor(tile * (1 - overlap)))
    count = math.ceil((length - tile) / step) + 1
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    return [(start, start + tile) for start in starts]


def _moved(region: Region, window: Window, min_visible: float) -> Region | None:
    left, top, right, bottom = window
    size = (float(right - left), float(bottom - top))
    moved = [[(x - left, y - top) for x, y in part] for part in region.parts]
    parts = tuple(tuple((x, y) for x, y in clip(part, size).tolist()) for part in moved)
    before, after = box_area([region_box(moved), region_box(parts)]).tolist()
    return replace(region, parts=parts) if after > 0 and after >= min_visible * before else None
