"""The polygon of what can be seen of an object.

Seen whole, it is the shape's own list of vertices (`shapes.py`). Partly hidden, or a sprite, it is the outline of the
visible pixels, simplified, largest part first, each part clockwise from the vertex nearest to the part's top-left
corner. Holes are not written: parts are a union.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from open_florence.scenes.opencv import cv2
from open_florence.scenes.shapes import Points
from open_florence.schema import Point

SCALE = 4
"""The mask is enlarged this much before it is traced: the outline follows the pixels' edges, not their centres."""
SMALLEST_PART = 0.04
"""Parts under this share of the largest one are left out."""


def whole(vertices: Points, x: float, y: float, width: int, height: int) -> tuple[tuple[Point, ...], ...]:
    """A shape's own vertices put at (x, y), held inside the image."""
    moved = np.clip(vertices + np.array((x, y)), 0, (width, height))
    return (tuple(map(tuple, moved.round(2).tolist())),)


def traced(mask: NDArray[np.uint8], x: int, y: int) -> tuple[tuple[Point, ...], ...]:
    """Parts of a (h, w) mask of 0 and 1 whose first pixel is (x, y) of the image."""
    large = np.pad(mask, 1).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = [cv2.contourArea(contour) for contour in contours]
    largest = max(areas)
    parts = []
    tolerance = SCALE * max(0.6, 0.02 * max(mask.shape))
    for k in sorted(range(len(contours)), key=lambda k: -areas[k]):
        if areas[k] < SMALLEST_PART * largest:
            break
        simple = cv2.approxPolyDP(contours[k], tolerance, True)[:, 0].astype(np.float64)  # (P, 2)
        if len(simple) < 3:
            continue
        points = (simple + 0.5) / SCALE - 1 + (x, y)
        points = _clockwise(points)
        first = int((points - points.min(axis=0)).sum(axis=1).argmin())
        parts.append(tuple(map(tuple, np.roll(points, -first, axis=0).round(2).tolist())))
    return tuple(parts)


def _clockwise(points: Points) -> Points:
    px, py = points.T
    signed = float(np.dot(px, np.roll(py, -1)) - np.dot(py, np.roll(px, -1)))
    return points if signed > 0 else points[::-1]
