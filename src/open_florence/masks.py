"""Masks as COCO stores them, run by run, and the polygons around masks.

Run-length encoding (RLE) as in pycocotools: the runs go down the columns, the first is of pixels outside, and the
compressed form writes each run as the difference to the run two before, 5 bits a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_florence.geometry import Array, polygon_area

Mask = NDArray[np.bool_]

MOST_PIXELS = 1 << 28
"""A mask of more is refused: a few bytes of runs could otherwise fill the memory."""
TOLERANCE = 0.1
"""How far a simplified outline may pass from a point of the old, as a share of area over perimeter: thick shapes give
way, thin ones are kept. On COCO's own masks the IoU stays above 0.95, 0.994 in the mean, at about 54 points a mask."""
SMALLEST_PART = 0.005
"""Parts and holes under this share of the largest part are left out of simplified outlines."""


def decode_rle(rle: dict[str, Any]) -> Mask:
    """The mask (H, W) of {"size": [H, W], "counts": a list of runs, or a string of them}.

    Raises ValueError when there are no two sizes, the runs are not numbers, or do not fill the mask.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError(f"the size of its mask is {size!r:.80}, not [height, width]")
    height, width = size
    runs = _uncompress(counts) if isinstance(counts, str) else counts
    if not (isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)):
        raise ValueError(f"the runs of its mask are no numbers: {counts!r:.80}")
    if sum(runs) != height * width or height * width > MOST_PIXELS:
        raise ValueError(f"the runs of its mask hold {sum(runs)} pixels, its size is {width} x {height}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # (W * H,)
    return inside.reshape(width, height).T


def _uncompress(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:  # the last character of this number; its highest bit is the sign
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def outlines(mask: Mask) -> list[Array]:
    """The closed lines (P, 2), in pixels (x, y), along the edges of the pixels of a mask (H, W): together they are it.

    Outer lines go clockwise, those around holes the other way. Pixels that touch at a corner alone are apart.
    """
    width = mask.shape[1] + 1  # of the grid of corners
    padded = np.pad(mask, 1).astype(np.int8)
    below = np.diff(padded, axis=0)[
        :, 1:-1
    ]  # (H + 1, W): 1 where the mask begins below a corner's row, -1 where it ends
    beside = np.diff(padded, axis=1)[1:-1]  # (H, W + 1)
    steps = np.array([1, width, -1, -width])  # right, down, left, up: the mask is on the right hand
    edges = [below == 1, beside == -1, below == -1, beside == 1]
    begins, directions = [], []
    for direction, (rows, columns) in enumerate(np.nonzero(edge) for edge in edges):
        begins.append((rows + (direction == 3)) * width + columns + (direction == 2))
        directions.append(np.full(len(rows), direction))
    begin, direction_of = np.concatenate(begins), np.concatenate(directions)  # (E,) each
    order = np.argsort(begin, kind="stable")
    begin, direction_of = begin[order], direction_of[order]
    following = np.searchsorted(begin, begin + steps[direction_of])  # the first edge that begins where each ends
    # Two begin where pixels touch at a corner: the one to the right stays with the pixel.
    two = begin[np.minimum(following + 1, len(begin) - 1)] == begin[following]
    following += two & (direction_of[following] != (direction_of + 1) % 4)
    return [
        np.stack([begin[line] % width, begin[line] // width], axis=1).astype(np.float64)
        for line in _lines(following.tolist(), direction_of.tolist())
    ]


def _lines(following: list[int], direction: list[int]) -> list[list[int]]:
    """The edges of each closed line at which it turns."""
    lines = []
    seen = bytearray(len(following))
    for first in range(len(following)):
        line = []
        edge = first
        while not seen[edge]:
            seen[edge] = True
            after = following[edge]
            if direction[after] != direction[edge]:
                line.append(after)
            edge = after
        if line:
            lines.append(line)
    return lines


def polygons(mask: Mask) -> tuple[Array, ...]:
    """A few polygons (P, 2) that fill nearly the pixels of a mask (H, W), largest first; none for an empty mask.

    The outlines with stairs made lines, without tiny parts and holes. A hole is joined to the line around it by a cut
    of no width, so that the even-odd rule leaves it open.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return ()
    corner = np.array([columns[0], rows[0]], dtype=np.float64)
    lines = outlines(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    lines.sort(key=lambda line: -polygon_area(line))
    lines = [line for line in lines if polygon_area(line) >= SMALLEST_PART * polygon_area(lines[0])]
    outer = [line for line in lines if _clockwise(line)]
    found = [_simplified(line) for line in outer]
    for hole in lines:
        if not _clockwise(hole):
            around = max(k for k, line in enumerate(outer) if _holds(line, hole))  # the smallest that does
            found[around] = join(found[around], _simplified(hole))
    return tuple(polygon + corner for polygon in found)


def _simplified(line: Array) -> Array:
    perimeter = float(np.abs(np.diff(line, axis=0, append=line[:1])).sum())
    return simplify(line, TOLERANCE * polygon_area(line) / perimeter)


def _clockwise(line: Array) -> bool:
    x, y = line.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) > 0


def _holds(line: Array, hole: Array) -> bool:
    """Whether an outer line goes around a hole's: around the middle of the pixel outside the hole's first edge."""
    forward = np.sign(hole[1] - hole[0])
    x, y = hole[0] + 0.5 * forward + 0.5 * np.array([-forward[1], forward[0]])  # on its right hand, inside the mask
    (x1, y1), (x2, y2) = line.T, np.roll(line, -1, axis=0).T
    return bool(np.count_nonzero((x1 == x2) & (x1 > x) & ((y1 > y) != (y2 > y))) % 2)


def simplify(line: Array, tolerance: float) -> Array:
    """A closed line (P, 2) with fewer points, none of the old ones farther than `tolerance` from it.

    Ramer-Douglas-Peucker (Douglas & Peucker 1973), begun at the first point and the one farthest from it. A line that
    would collapse is returned as it is.
    """
    far = int(np.argmax(((line - line[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([line, line[:1]])
    kept = {0, far}
    stack = [(0, far), (far, len(line))]
    while stack:
        first, last = stack.pop()
        inside = closed[first + 1 : last] - closed[first]  # (P', 2)
        if not len(inside):
            continue
        chord = closed[last] - closed[first]
        share = np.clip(inside @ chord / max(float(chord @ chord), 1e-12), 0, 1)
        distance = np.hypot(*(inside - share[:, None] * chord).T)
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            kept.add(middle)
            stack += [(first, middle), (middle, last)]
    return line[sorted(kept)] if len(kept) >= 3 else line


def join(polygon: Array, other: Array) -> Array:
    """One polygon (P + Q + 2, 2) of two, by a cut there and back between their nearest points.

    By the even-odd rule it fills what exactly one of the two fills: both when they are apart, the rest around a hole.
    """
    distances = ((polygon[:, None] - other[None]) ** 2).sum(axis=-1)  # (P, Q)
    i, j = np.unravel_index(int(np.argmin(distances)), distances.shape)
    return np.concatenate([polygon[: i + 1], other[j:], other[: j + 1], polygon[i:]])


def joined(parts: Sequence[Array]) -> Array:
    """All polygons (P, 2) of a region as one."""
    whole, *rest = parts
    for part in rest:
        whole = join(whole, part)
    return whole
