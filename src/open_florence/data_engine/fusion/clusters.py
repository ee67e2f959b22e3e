"""Which boxes of several sources mean the same thing: regions of one image gathered into clusters.

A source has at most one region in a cluster: two detections by one detector are two things, or a duplicate that its
own non-maximum suppression should have removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from open_florence.geometry import iou, region_box
from open_florence.schema import Region
from open_florence.selection import region_score

Array = NDArray[np.float64]

SAME = 0.5
"""The overlap (IoU) from which two boxes are the same thing."""


@dataclass(frozen=True)
class Cluster:
    """What several sources say about one place."""

    members: Mapping[str, Region]
    """Source -> its region here."""

    @property
    def boxes(self) -> Array:
        """(M, 4) x1, y1, x2, y2 of the members, in their order."""
        return np.array([region_box(region.parts) for region in self.members.values()], np.float64)


def gather(regions: Mapping[str, Sequence[Region]], overlap: float = SAME) -> list[Cluster]:
    """Clusters of the regions of one image, source by source; every region is in exactly one.

    Pairs of regions of different sources are joined, the closest first, as long as their boxes overlap by `overlap`
    with the mean box of the cluster they would join and no source comes twice (greedy agglomeration).
    """
    flat = [(source, region) for source in sorted(regions) for region in _ordered(regions[source])]
    if not flat:
        return []
    boxes = np.array([region_box(region.parts) for _, region in flat], np.float64)  # (N, 4)
    groups = {k: [k] for k in range(len(flat))}
    group_of = list(range(len(flat)))
    overlaps = np.triu(iou(boxes, boxes), 1)
    firsts, seconds = np.nonzero(overlaps >= overlap)
    for pair in np.argsort(-overlaps[firsts, seconds], kind="stable"):
        a, b = group_of[firsts[pair]], group_of[seconds[pair]]
        if a == b or {flat[k][0] for k in groups[a]} & {flat[k][0] for k in groups[b]}:
            continue
        means = [boxes[groups[side]].mean(axis=0)[None] for side in (a, b)]
        if iou(*means)[0, 0] < overlap:
            continue
        groups[a] += groups.pop(b)
        for k in groups[a]:
            group_of[k] = a
    return [Cluster({flat[k][0]: flat[k][1] for k in sorted(group)}) for group in groups.values()]


def _ordered(regions: Sequence[Region]) -> list[Region]:
    """By score, then place: the order in which they were written does not matter."""
    return sorted(regions, key=lambda region: (-region_score(region), region.parts, region.label))
