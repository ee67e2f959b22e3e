"""Reading with places, end to end: a word is right when it is found and read (ICDAR 2015's Robust Reading, task 4.4).

Karatzas et al. 2015, "ICDAR 2015 Competition on Robust Reading". Places are compared as the polygons they are, not as
the boxes around them, so text that runs askew is judged like text that does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from open_florence.evaluation.detection import Images, boxes_of
from open_florence.evaluation.intervals import Array, Tally
from open_florence.evaluation.localization import greedy_matches
from open_florence.geometry import box_to_polygon, iou, polygon_area, region_box
from open_florence.schema import Region


def polygon_iou(a: Region, b: Region) -> float:
    """Intersection over union of the exact areas of two regions, boxes and quads included; 0 where both are empty.

    Parts follow the even-odd rule, so a quad whose sides cross has the area of its two triangles.
    """
    of_a, of_b, of_both = _areas(a, b)
    union = of_a + of_b - of_both
    return of_both / union if union > 0 else 0.0


def place_overlaps(truth: Sequence[Region], found: Sequence[Region]) -> Array:
    """`polygon_iou` of every true region (N) with every found one (M): (N, M)."""
    overlaps = iou(boxes_of(truth), boxes_of(found))
    upright = [np.array([_is_upright(region) for region in regions], dtype=bool) for regions in (truth, found)]
    for row, column in np.argwhere((overlaps > 0) & ~(upright[0][:, None] & upright[1])):
        overlaps[row, column] = polygon_iou(truth[row], found[column])
    return overlaps


def _is_upright(region: Region) -> bool:
    """Whether the region fills the box around it, so that IoU of boxes is that of polygons."""
    x1, y1, x2, y2 = region_box(region.parts)
    return region.kind == "box" or (
        len(region.parts) == 1 and polygon_area(region.parts[0]) == (x2 - x1) * (y2 - y1) and len(region.parts[0]) == 4
    )


def ocr_recall(truth: Images, found: Images, threshold: float = 0.5) -> Tally:
    """The part of the true texts that a found region covers at an IoU of polygons, one to one, whatever was read."""
    return Tally.of(
        [
            (len(greedy_matches(place_overlaps(true, regions), threshold)), len(true))
            for true, regions in zip(truth, found, strict=True)
        ]
    )


def ocr_end_to_end(
    truth: Images, found: Images, ignored: Images | None = None, *, threshold: float = 0.5, match_case: bool = True
) -> Tally:
    """End-to-end F1: 2 x right / (true + found) over all images; n counts the true texts.

    A found text is right when its polygon has at least the threshold's IoU with a true one, each used once, best pairs
    first, and says the same, spaces at the ends aside. Case counts, as it does in every number here; ICDAR itself
    compares without (`match_case=False`). One that is not right but lies more than half in a place where nobody could
    read ("###" in ICDAR; `ignored`, for each image) is not counted.
    """
    pairs: list[tuple[float, float]] = []
    for true, regions, unread in zip(truth, found, ignored or [()] * len(truth), strict=True):
        overlaps = place_overlaps(true, regions)
        said = [_transcript(region.label, match_case) for region in regions]
        same = [[_transcript(region.label, match_case) == text for text in said] for region in true]
        overlaps[~np.array(same, dtype=bool).reshape(overlaps.shape)] = -1.0
        right = {column for _, column in greedy_matches(overlaps, threshold)}
        counted = sum(index in right or not _lies_in(region, unread) for index, region in enumerate(regions))
        pairs.append((2.0 * len(right), float(len(true) + counted)))
    return Tally.of(pairs, count=sum(len(true) for true in truth))


def _transcript(text: str, match_case: bool) -> str:
    return text.strip() if match_case else text.strip().casefold()


def _lies_in(region: Region, ignored: Sequence[Region]) -> bool:
    """Whether more than half of the region's area belongs to one of the ignored ones."""
    areas = [_areas(region, other) for other in ignored]
    return any(shared > own / 2 for own, _, shared in areas)


def _areas(a: Region, b: Region) -> tuple[float, float, float]:
    """The areas of a, of b, and of what both cover, in square pixels."""
    edges = [_edges(region) for region in (a, b)]
    levels = _levels(np.concatenate(edges))
    tall = np.diff(levels)  # (K,)
    first, second = (_spans(sides, (levels[:-1] + levels[1:]) / 2) for sides in edges)  # the middle's width is the mean
    low = np.maximum(first[:, :, None, 0], second[:, None, :, 0])  # (K, S, S)
    high = np.minimum(first[:, :, None, 1], second[:, None, :, 1])
    both = np.clip(high - low, 0.0, None).sum(axis=(1, 2))
    widths = [(spans[:, :, 1] - spans[:, :, 0]).sum(axis=1) for spans in (first, second)]
    return float(tall @ widths[0]), float(tall @ widths[1]), float(tall @ both)


def _edges(region: Region) -> Array:
    """The sides (E, 4) of all parts of a region: x1, y1, x2, y2 in pixels, those that run level left out."""
    parts = [box_to_polygon(region_box(region.parts))] if region.kind == "box" else region.parts
    points = [np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in parts]  # (P, 2) each
    edges: Array = np.concatenate([np.hstack([ends, np.roll(ends, -1, axis=0)]) for ends in points])
    slanted: Array = edges[edges[:, 1] != edges[:, 3]]
    return slanted


def _levels(edges: Array) -> Array:
    """The heights (K + 1,), rising, at which a side begins, ends or crosses another: in between nothing changes."""
    slope = (edges[:, 2] - edges[:, 0]) / (edges[:, 3] - edges[:, 1])
    start = edges[:, 0] - slope * edges[:, 1]  # x = start + slope * y
    one, other = np.triu_indices(len(edges), 1)
    turn = slope[one] - slope[other]
    crossings = (start[other] - start[one])[turn != 0] / turn[turn != 0]
    ends = np.concatenate([edges[:, 1], edges[:, 3]])
    inside = (crossings > ends.min(initial=np.inf)) & (crossings < ends.max(initial=-np.inf))
    levels: Array = np.unique(np.concatenate([ends, crossings[inside]]))
    return levels


def _spans(edges: Array, heights: Array) -> Array:
    """The stretches (K, S, 2) of level lines at `heights` (K,) that lie inside, from left to right, the rest empty."""
    x1, y1, x2, y2 = edges.T[:, :, None]  # (E, 1) each
    met = (np.minimum(y1, y2) <= heights) & (heights < np.maximum(y1, y2))  # (E, K)
    xs = np.sort(np.where(met, x1 + (heights - y1) * (x2 - x1) / (y2 - y1), np.inf), axis=0)
    xs = xs[: len(edges) // 2 * 2]  # each line meets an even number of sides
    return np.where(np.isfinite(xs), xs, 0.0).T.reshape(len(heights), len(xs) // 2, 2)
