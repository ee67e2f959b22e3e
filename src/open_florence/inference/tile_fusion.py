"""What tiles and the whole image show of one image, as one region for each thing.

Of a thing that several saw whole the places are averaged (weighted boxes fusion; Solovyev et al., arXiv 1910.13302),
each by its score and by how finely its window showed it. Pieces that an edge cut are joined, or give way to who saw
more. Where a tile saw a place whole, the whole image's coarser opinion of it counts for as little as it saw; what is
larger than a tile is the whole image's to say. All coordinates are pixels of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from open_florence.geometry import Array, box_area, box_to_polygon, iou, rasterize
from open_florence.inference.seams import REACH, Seen, join
from open_florence.reading_order import read_lines
from open_florence.schema import Region
from open_florence.selection import overlap, region_score
from open_florence.tiles import Window

Names = Callable[[Region, Region], bool]
"""Whether what two regions are called allows them to be the same thing."""

SAME = 0.55
"""Regions of different windows that overlap at least so much (IoU) are the same thing."""

ONE_PLACE = 0.7
"""Regions of different names from different windows are one thing where they overlap so much (IoU)."""

HELD = 0.7
"""A region is part of another that covers so much of it."""

NEARBY = 0.3
"""A tile's mask draws the thing whose coarser mask it overlaps so much (IoU)."""

COVERED = 0.5
"""The whole image has nothing to add about a place of which tiles cover so much."""

DOUBT = 0.5
"""What the score is multiplied by of what nobody confirms: a part of a line, a region longer than a tile."""

CELLS = 64
"""Cells a side of the grid on which the share of a region that is no box is counted."""


def same_name(a: Region, b: Region) -> bool:
    """One label, grounding one phrase, and of one kind."""
    return (a.kind, a.label, a.span) == (b.kind, b.label, b.span)


def any_name(a: Region, b: Region) -> bool:
    """One kind: of texts and descriptions, which are hardly ever worded twice alike, the likelier is taken."""
    return a.kind == b.kind


def merge_named(tiles: Sequence[Seen], whole: Sequence[Seen], windows: Sequence[Window]) -> tuple[Region, ...]:
    """Regions of all tiles and of the whole image, only those of one label being one thing; from left to right."""
    return _left_to_right(_merge(tiles, whole, windows, same_name))


def merge_described(tiles: Sequence[Seen], whole: Sequence[Seen], windows: Sequence[Window]) -> tuple[Region, ...]:
    """As `merge_named`, whatever they are called: for descriptions and for regions without a label."""
    return _left_to_right(_merge(tiles, whole, windows, any_name))


def merge_text(tiles: Sequence[Seen], whole: Sequence[Seen], windows: Sequence[Window]) -> tuple[Region, ...]:
    """Words and lines of all tiles and of the whole image, in reading order. A word of a line is part of the line."""
    kept = _merge(tiles, whole, windows, any_name)
    parts = [
        part
        for part in kept
        if any(
            part.windows.isdisjoint(line.windows) and _area(line) > _area(part) and _share(part, [line]) >= HELD
            for line in _near(part, kept)
        )
    ]
    words = [seen.region for seen in kept if all(seen is not part for part in parts)]
    return tuple(region for line in read_lines(words) for region in line)


def refine_mask(tiles: Sequence[Seen], whole: Sequence[Seen], windows: Sequence[Window]) -> tuple[Region, ...]:
    """The masks of the whole image, as the tiles drew them where they show the same thing.

    The whole image says which thing is meant and where: a tile answers with a mask even if the thing is elsewhere. A
    thing no larger than a tile is drawn by the tiles that agree about the place, pieces united; of one that is larger
    the tiles' pieces have to make up nearly all of it.
    """
    clear = [one for one in tiles if not one.is_piece]
    joined, _ = join([p for p in tiles if p.is_piece and not _is_held(p, clear, any_name)], any_name)
    drawn = fuse([*clear, *joined], any_name)
    found = []
    for one in whole:
        closest = max(drawn, key=lambda other: _overlap(one, other), default=None)
        least = NEARBY if any(_lies_in(one, window) for window in windows) else ONE_PLACE
        found.append(closest if closest is not None and _overlap(one, closest) >= least else one)
    return _left_to_right(found)


def fuse(views: Sequence[Seen], same: Names) -> list[Seen]:
    """One region for each thing: those of different windows that overlap by `SAME` or more, and whose names allow it.

    Two regions of one window stay two, as they do in an answer about one image. Boxes and quads are averaged by
    `Seen.weight`, of polygons the heaviest stays; the label is the one with the most weight, and the scores are those
    of the surest region with this label.
    """
    order = sorted(views, key=lambda one: (one.grain, -region_score(one.region)))
    boxes = np.array([one.box for one in order]).reshape(-1, 4)
    left = np.ones(len(order), bool)
    fused = []
    for number, first in enumerate(order):
        if not left[number]:
            continue
        left[number] = False
        members, taken = [first], first.windows
        overlaps = np.where(left, iou(boxes[number : number + 1], boxes)[0], 0.0)
        near = np.flatnonzero(overlaps > 0).tolist()
        exact = {k: overlap(first.region, order[k].region) for k in near if same(first.region, order[k].region)}
        for k in sorted(exact, key=lambda k: -exact[k]):
            if exact[k] >= SAME and taken.isdisjoint(order[k].windows):
                members.append(order[k])
                taken |= order[k].windows
                left[k] = False
        fused.append(first if len(members) == 1 else _mean(members))
    return fused


def _merge(tiles: Sequence[Seen], whole: Sequence[Seen], windows: Sequence[Window], same: Names) -> list[Seen]:
    """One region for each thing. A piece that nobody saw go on is dropped, unless it can be read."""
    everything = frozenset(window for one in whole for window in one.windows)
    clear = [one for one in tiles if not one.is_piece]
    joined, single = join([p for p in tiles if p.is_piece and not _is_held(p, clear, same)], same)
    fused = _one_name(fuse([*clear, *joined, *whole], same))
    of_tiles = [one for one in fused if one.windows - everything]
    kept = _left_over(of_tiles, [one for one in fused if not one.windows - everything], windows)
    confirmed = [
        one for one in of_tiles if one.region.kind == "quad" or not _is_longer(one) or one.windows & everything
    ]
    doubtful = [one for one in of_tiles if one not in confirmed and not _is_held(one, kept, None, COVERED)]
    kept += [one for one in confirmed if not one.is_piece]
    kept += [_scaled(one, DOUBT) for one in doubtful if not one.is_piece]
    lines = [one for one in [*of_tiles, *single] if one.is_piece and one.region.kind == "quad"]
    for one in sorted(lines, key=_area, reverse=True):
        if not _is_held(one, kept):
            kept.append(_scaled(one, DOUBT))
    return kept


def _left_over(of_tiles: Sequence[Seen], of_whole: Sequence[Seen], windows: Sequence[Window]) -> list[Seen]:
    """What the whole image alone says, as far as the tiles did not know better."""
    kept = []
    for one in of_whole:
        finer = [np.sqrt((w[2] - w[0]) * (w[3] - w[1])) for w in windows if _lies_in(one, w)]
        if (finer or one.region.kind == "quad") and _share(one, of_tiles) >= COVERED:
            continue
        kept.append(_scaled(one, float(min(finer)) / one.grain) if finer else one)
    return kept


def _one_name(views: Sequence[Seen]) -> list[Seen]:
    """Without those that other windows call by another name in the same place, with more weight."""
    kept: list[Seen] = []
    for one in sorted(views, key=lambda one: -one.weight):
        boxes = np.array([other.box for other in kept]).reshape(-1, 4)
        overlaps = iou(one.box[None], boxes)[0]  # (N,)
        rivals = [
            kept[k]
            for k in np.flatnonzero(overlaps >= ONE_PLACE / 2).tolist()
            if one.windows.isdisjoint(kept[k].windows)
        ]
        if all(one.region.kind != r.region.kind or overlap(one.region, r.region) < ONE_PLACE for r in rivals):
            kept.append(one)
    return kept


def _mean(members: Sequence[Seen]) -> Seen:
    """The members of one thing as one."""
    votes: dict[str, float] = {}
    for one in members:
        votes[one.region.label] = votes.get(one.region.label, 0.0) + one.weight
    label = max(votes, key=lambda name: votes[name])
    named = [one for one in members if one.region.label == label]
    surest = max(named, key=lambda one: region_score(one.region)).region
    heaviest = max(named, key=lambda one: one.weight).region
    parts = heaviest.parts
    if heaviest.kind != "polygon":
        several = members if heaviest.kind == "box" else named
        points = np.array([one.region.parts[0] for one in several])  # (M, P, 2)
        mean: Array = np.average(points, axis=0, weights=[one.weight for one in several])
        parts = (tuple((float(x), float(y)) for x, y in mean),)
    windows = frozenset(window for one in members for window in one.windows)
    return Seen(replace(surest, parts=parts), windows, min(one.grain for one in members))


def _overlap(a: Seen, b: Seen) -> float:
    apart = (np.minimum(a.box[2:], b.box[2:]) <= np.maximum(a.box[:2], b.box[:2])).any()
    return 0.0 if apart else overlap(a.region, b.region)


def _share(one: Seen, others: Sequence[Seen]) -> float:
    """How much of the area of a region others cover together, 0 to 1."""
    near = _near(one, others)
    if not near:
        return 0.0
    if len(near) == 1 and one.region.kind == near[0].region.kind == "box":
        low, high = np.maximum(one.box[:2], near[0].box[:2]), np.minimum(one.box[2:], near[0].box[2:])
        return float((high - low).prod() / max(_area(one), 1e-9))
    scale = CELLS / np.maximum(one.box[2:] - one.box[:2], 1e-9)
    own, theirs = (
        rasterize([(outline - one.box[:2]) * scale for seen in some for outline in _outlines(seen)], (CELLS, CELLS))
        for some in ([one], near)
    )
    return float(np.count_nonzero(own & theirs)) / max(float(np.count_nonzero(own)), 1.0)


def _near(one: Seen, others: Sequence[Seen]) -> list[Seen]:
    """Those whose boxes overlap a region's."""
    boxes = np.array([other.box for other in others]).reshape(-1, 4)
    meet = (np.minimum(one.box[2:], boxes[:, 2:]) > np.maximum(one.box[:2], boxes[:, :2])).all(axis=1)
    return [others[k] for k in np.flatnonzero(meet).tolist()]


def _outlines(one: Seen) -> list[Array]:
    if one.region.kind == "box":
        return [box_to_polygon(one.box)]
    return [np.asarray(part, np.float64) for part in one.region.parts]


def _is_held(one: Seen, others: Sequence[Seen], same: Names | None = None, least: float = HELD) -> bool:
    """Whether one of the others, with `same` of its name, covers so much of a region."""
    near = (other for other in _near(one, others) if same is None or same(one.region, other.region))
    return any(_share(one, [other]) >= least for other in near)


def _is_longer(one: Seen) -> bool:
    """Whether a region is longer than each of the windows that showed it."""
    return all(
        any(one.box[axis + 2] - one.box[axis] > window[axis + 2] - window[axis] for axis in (0, 1))
        for window in one.windows
    )


def _lies_in(one: Seen, window: Window) -> bool:
    """Whether a window shows a region whole, with room to spare."""
    room = REACH * np.array([window[2] - window[0], window[3] - window[1]])
    return bool((one.box[:2] >= window[:2] + room).all() and (one.box[2:] <= window[2:] - room).all())


def _area(one: Seen) -> float:
    return float(box_area(one.box)[0])


def _scaled(one: Seen, factor: float) -> Seen:
    score = 1.0 if one.region.score is None else one.region.score
    return replace(one, region=replace(one.region, score=score * factor))


def _left_to_right(views: Sequence[Seen]) -> tuple[Region, ...]:
    return tuple(one.region for one in sorted(views, key=lambda one: tuple(one.box.tolist())))
