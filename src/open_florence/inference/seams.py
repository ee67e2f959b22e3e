"""Pieces: regions that the edge of a tile cuts, and how the pieces of one thing become one region again.

Two tiles side by side share a strip. What is cut at the far edge of one and at the near edge of the other, covers that
strip and goes on at the same height is one thing, however long: boxes are spanned, masks united, and of two halves of a
line of text the letters that both read are written once. All coordinates are pixels of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from open_florence.geometry import Array, rasterize, region_box
from open_florence.masks import polygons
from open_florence.schema import Region, Size
from open_florence.selection import region_score
from open_florence.tiles import Window

Sides = tuple[bool, bool, bool, bool]
"""Left, top, right, bottom: the order of a box's numbers, so `axis` is the near side and `axis + 2` the far one."""

UNCUT: Sides = (False, False, False, False)

REACH = 0.02
"""A region that ends within so large a part of its tile's side from an inner edge runs into that edge."""

ALIKE = 0.6
"""Two pieces go on at the same height where they share so much of the smaller one's extent along the seam."""

ASKEW = 0.25
"""Two pieces of a line of text point the same way where the sine between them is no larger."""

GRID = 512
"""Cells along the longer side of the grid on which masks are united."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A region as one window of the image showed it, or as several did."""

    region: Region
    """In pixels of the whole image."""
    windows: frozenset[Window]
    """Those that showed it."""
    grain: float
    """Side, in pixels, of a square as large as its window: what one glance had to take in; the smaller, the finer."""
    cut: Sides = UNCUT
    """The inner edges of its windows that it runs into."""

    @cached_property
    def box(self) -> Array:
        """The box (4,) around it."""
        return region_box(self.region.parts)

    @property
    def weight(self) -> float:
        """What it counts for beside others: its score by the square of how fine it was seen (errors are pixels)."""
        return max(region_score(self.region), 1e-6) / self.grain**2

    @property
    def is_piece(self) -> bool:
        """Whether an edge cuts it."""
        return any(self.cut)


def seen(region: Region, window: Window, size: Size) -> Seen:
    """A region in pixels of a window of an image of `size` (width, height), put back into the image."""
    left, top, right, bottom = window
    moved = replace(region, parts=tuple(tuple((x + left, y + top) for x, y in part) for part in region.parts))
    x1, y1, x2, y2 = region_box(moved.parts).tolist()
    near_x, near_y = REACH * (right - left), REACH * (bottom - top)
    cut = (
        left > 0 and x1 <= left + near_x,
        top > 0 and y1 <= top + near_y,
        right < size[0] and x2 >= right - near_x,
        bottom < size[1] and y2 >= bottom - near_y,
    )
    return Seen(moved, frozenset([window]), float(np.sqrt((right - left) * (bottom - top))), cut)


def join(pieces: Sequence[Seen], same: Callable[[Region, Region], bool]) -> tuple[list[Seen], list[Seen]]:
    """(what pieces became where they belong together, the pieces that found no other); `same` compares names.

    A line of text that an edge cuts lengthwise shows half of each letter, and is joined to nothing.
    """
    sliced = [piece for piece in pieces if _is_sliced(piece)]
    pieces = [piece for piece in pieces if not _is_sliced(piece)]
    group = list(range(len(pieces)))  # the piece that stands for the group of each

    def leader(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    boxes = np.array([piece.box for piece in pieces]).reshape(-1, 4)
    for number, piece in enumerate(pieces):
        rest = boxes[number + 1 :]
        near = REACH * piece.grain
        touching = ((rest[:, :2] <= piece.box[2:] + near) & (rest[:, 2:] >= piece.box[:2] - near)).all(axis=1)
        for other in (np.flatnonzero(touching) + number + 1).tolist():
            if same(piece.region, pieces[other].region) and _goes_on(piece, pieces[other]):
                group[leader(other)] = leader(number)
    members: dict[int, list[Seen]] = {}
    for number, piece in enumerate(pieces):
        members.setdefault(leader(number), []).append(piece)
    joined = [_joined(some) for some in members.values() if len(some) > 1]
    return joined, [*sliced, *(some[0] for some in members.values() if len(some) == 1)]


def stitch(first: str, second: str, shared: float) -> str:
    """Two readings of neighbouring parts of a line as one; `shared` is about how many letters stand in both.

    Letters that end the one and begin the other are written once, where they are about as many as that; the letter
    beside an edge, which may be half a letter, need not agree. Where nothing agrees each gives half of the strip.
    """
    if shared >= 0.5 and (second in first or first in second):
        return max(first, second, key=len)
    best, found = 0.0, ""
    for head in range(len(first), max(len(first) - 2, -1), -1):
        for tail in range(min(2, len(second) + 1)):
            for same in range(1, min(head, len(second) - tail) + 1):
                if first[head - same : head] != second[tail : tail + same]:
                    continue
                lost = len(first) - head + tail
                worth = same - abs(same + lost / 2 - shared) - lost
                if max(1.0, shared / 2) <= same <= 1.5 * shared + 0.5 and worth > best:
                    best, found = worth, first[:head] + second[tail + same :]
    if found:
        return found
    half = max(0, round(shared / 2))
    return first[: len(first) - half] + second[max(0, round(shared) - half) :]


def _goes_on(p: Seen, q: Seen) -> bool:
    """Whether two pieces are the two sides of one thing that a seam cuts."""
    (of_p,), (of_q,) = p.windows, q.windows
    return any(
        _crosses(a, b, window_a, window_b, axis)
        for axis in (0, 1)
        for a, b, window_a, window_b in ((p, q, of_p, of_q), (q, p, of_q, of_p))
    )


def _crosses(a: Seen, b: Seen, of_a: Window, of_b: Window, axis: int) -> bool:
    """Whether `a` goes on in `b`, whose window lies further along `axis` (0: x, 1: y)."""
    far, along = axis + 2, 1 - axis
    beside = of_a[axis] < of_b[axis] <= of_a[far] < of_b[far]
    if not (beside and a.cut[far] and b.cut[axis]):
        return False
    strip = of_a[far] - of_b[axis]
    shared = min(a.box[far], b.box[far]) - max(a.box[axis], b.box[axis])
    if shared < strip / 2 - REACH * (of_a[far] - of_a[axis]):
        return False
    if a.region.kind == "quad":
        return _collinear(a.region, b.region, axis)
    low, high = max(of_a[along], of_b[along]), min(of_a[along + 2], of_b[along + 2])
    spans = [np.clip(one.box[[along, along + 2]], low, high) for one in (a, b)]
    common = min(spans[0][1], spans[1][1]) - max(spans[0][0], spans[1][0])
    return bool(common > 0 and common >= ALIKE * min(span[1] - span[0] for span in spans))


def _collinear(a: Region, b: Region, axis: int) -> bool:
    """Whether two quads are parts of one line of text, which runs along the axis."""
    (start_a, way_a, height_a), (start_b, way_b, height_b) = _line(a), _line(b)
    if abs(way_a[axis]) < abs(way_a[1 - axis]) or way_a @ way_b <= 0:
        return False
    across = np.array([-way_a[1], way_a[0]])
    apart = abs(float(across @ (start_b - start_a)))
    return bool(
        abs(float(across @ way_b)) <= ASKEW
        and apart <= min(height_a, height_b) / 2
        and min(height_a, height_b) >= max(height_a, height_b) / 2
    )


def _is_sliced(piece: Seen) -> bool:
    """Whether a piece is a line of text that an edge cuts along the way it runs."""
    if piece.region.kind != "quad":
        return False
    way = np.abs(_line(piece.region)[1])
    return (piece.cut[1] or piece.cut[3]) if way[0] >= way[1] else (piece.cut[0] or piece.cut[2])


def _line(region: Region) -> tuple[Array, Array, float]:
    """Of a quad: the middle (2,) of where its text begins, the way (2,) it runs, of length 1, and its height."""
    a, b, c, d = np.asarray(region.parts[0], np.float64)
    way = (b + c - a - d) / 2
    return (a + d) / 2, way / max(float(np.hypot(*way)), 1e-9), float(np.hypot(*(d - a)) + np.hypot(*(c - b))) / 2


def _joined(pieces: Sequence[Seen]) -> Seen:
    """Pieces of one thing as one: as sure as the least sure of them."""
    region = {"box": _spanned, "polygon": united, "quad": _one_line}[pieces[0].region.kind](pieces)
    least = min((piece.region for piece in pieces), key=region_score)
    region = replace(region, score=least.score, label_score=least.label_score)
    around = region_box(region.parts)
    ends = []
    for side in range(4):
        near = [p for p in pieces if abs(p.box[side] - around[side]) <= REACH * p.grain]
        ends.append(bool(near) and all(p.cut[side] for p in near))
    cut = (ends[0], ends[1], ends[2], ends[3])
    return Seen(region, frozenset(w for p in pieces for w in p.windows), max(p.grain for p in pieces), cut)


def _spanned(pieces: Sequence[Seen]) -> Region:
    boxes = np.array([piece.box for piece in pieces])
    corners = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    best = max(pieces, key=lambda piece: piece.weight).region
    return replace(best, parts=((corners[:2], corners[2:]),))


def united(pieces: Sequence[Seen]) -> Region:
    """The polygons around everything that any of the pieces covers, on a grid of `GRID` cells."""
    boxes = np.array([piece.box for piece in pieces])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    scale = GRID / max(float((high - low).max()), 1e-9)
    width, height = np.maximum(np.ceil((high - low) * scale), 1).astype(int).tolist()
    parts = [(np.asarray(part) - low) * scale for piece in pieces for part in piece.region.parts]
    outlines = polygons(rasterize(parts, (width, height)))
    best = max(pieces, key=lambda piece: piece.weight).region
    if not outlines:
        return best
    found = tuple(tuple((float(x), float(y)) for x, y in line / scale + low) for line in outlines)
    return replace(best, parts=found)


def _one_line(pieces: Sequence[Seen]) -> Region:
    """The parts of a line of text as the line, read from where it begins."""
    way = np.sum([_line(piece.region)[1] for piece in pieces], axis=0)
    way /= max(float(np.hypot(*way)), 1e-9)
    first, *rest = sorted((piece.region for piece in pieces), key=lambda r: float(way @ np.mean(r.parts[0], axis=0)))
    text, end = first.label, first.parts[0]
    reached = float(way @ _middle(end[1], end[2]))
    for region in rest:
        a, b, c, d = region.parts[0]
        begins, ends = float(way @ _middle(a, d)), float(way @ _middle(b, c))
        if ends <= reached:  # what is read already, by an earlier piece
            continue
        letters = len(region.label) / max(ends - begins, 1e-9)
        text = stitch(text, region.label, max(0.0, reached - begins) * letters)
        end, reached = region.parts[0], ends
    return replace(first, parts=((first.parts[0][0], end[1], end[2], first.parts[0][3]),), label=text)


def _middle(a: Sequence[float], b: Sequence[float]) -> Array:
    return (np.asarray(a, np.float64) + np.asarray(b, np.float64)) / 2
