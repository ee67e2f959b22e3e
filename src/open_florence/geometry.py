"""Points, boxes and polygons on one axis (time) or two (an image): areas, overlaps, and one shape turned into another.

Points are arrays (P, D) with D = 1 or 2, in pixels or seconds from the top-left corner; boxes are flat rows
(2D,): lowest corner, then highest, so [x1, y1, x2, y2] in an image and [start, end] in a series.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def bounds(points: ArrayLike) -> tuple[Array, Array]:
    """The lowest and the highest corner, each (D,), of the smallest box around points (P, D), P >= 1."""
    array = np.asarray(points, dtype=np.float64)  # (P, D)
    return array.min(axis=0), array.max(axis=0)


def clip(points: ArrayLike, size: Sequence[float]) -> Array:
    """Points (P, D) moved to the nearest place inside an input of `size` (D,)."""
    return np.clip(np.asarray(points, dtype=np.float64), 0.0, np.asarray(size, dtype=np.float64))


def box_area(boxes: ArrayLike) -> Array:
    """The area (length, for D = 1) of each of the boxes (N, 2D); 0 where the corners are the wrong way round."""
    low, high = _corners(boxes)
    area: Array = np.clip(high - low, 0.0, None).prod(axis=-1)  # (N,)
    return area


def iou(a: ArrayLike, b: ArrayLike) -> Array:
    """Intersection over union of every box of a (N, 2D) with every box of b (M, 2D): (N, M); 0 where both are empty."""
    low_a, high_a = _corners(a)
    low_b, high_b = _corners(b)
    low = np.maximum(low_a[:, None], low_b[None])  # (N, M, D)
    high = np.minimum(high_a[:, None], high_b[None])
    shared = np.clip(high - low, 0.0, None).prod(axis=-1)  # (N, M)
    union = box_area(a)[:, None] + box_area(b)[None] - shared
    overlap: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def nms(boxes: ArrayLike, scores: ArrayLike, threshold: float) -> list[int]:
    """Indices of the boxes (N, 2D) kept, best score first, when none may overlap a better one by more than `threshold`.

    Non-maximum suppression; of equal scores the earlier box goes first.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    overlaps = iou(boxes, boxes)
    kept: list[int] = []
    for index in order.tolist():
        if all(overlaps[index, other] <= threshold for other in kept):
            kept.append(index)
    return kept


def polygon_area(points: ArrayLike) -> float:
    """The area inside a polygon of points (P, 2), by the shoelace formula; 0 with fewer than three points."""
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    x, y = array[:, 0], array[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def box_to_polygon(box: ArrayLike) -> Array:
    """The four corners (4, 2) of an image box [x1, y1, x2, y2], clockwise from the top-left."""
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64)
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def polygon_to_box(points: ArrayLike) -> Array:
    """The smallest box (2D,) around points (P, D)."""
    return np.concatenate(bounds(points))


def region_box(parts: Sequence[Sequence[Sequence[float]]]) -> Array:
    """The smallest box (2D,) around all the parts of a region, each a sequence of points."""
    return polygon_to_box([point for part in parts for point in part])


def rasterize(parts: Sequence[ArrayLike], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) of an image of `size` (W, H) whose centre lies in any of the polygons (P, 2), in pixels.

    Even-odd rule; the pixel in column c and row r has its centre at (c + 0.5, r + 0.5).
    """
    width, height = size
    inside = np.zeros((height, width), dtype=np.bool_)
    for part in parts:
        points = np.asarray(part, dtype=np.float64).reshape(-1, 2)  # (P, 2)
        crossed = np.zeros((height, width + 1), dtype=np.bool_)
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
            first, last = np.clip(np.ceil(np.array([min(y1, y2), max(y1, y2)]) - 0.5), 0, height).astype(int)
            rows = np.arange(first, last)  # those whose centres the edge passes
            if rows.size:
                columns = np.ceil(x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1) - 0.5)
                crossed[rows, np.clip(columns, 0, width).astype(int)] ^= True
        inside |= np.logical_xor.accumulate(crossed, axis=1)[:, :width]
    return inside


def mask_iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Intersection over union of two masks of one shape; 0 where both are empty."""
    union = np.count_nonzero(np.logical_or(a, b))
    return float(np.count_nonzero(np.logical_and(a, b)) / union) if union else 0.0


def _corners(boxes: ArrayLike) -> tuple[Array, Array]:
    array = np.asarray(boxes, dtype=np.float64)
    axes = array.shape[-1] // 2 if array.size else 2
    array = array.reshape(-1, 2 * axes)  # (N, 2D)
    return array[:, :axes], array[:, axes:]
