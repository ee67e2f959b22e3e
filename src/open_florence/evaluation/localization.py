"""How well places are found: recall of boxes, accuracy at an IoU, F1 of described boxes, IoU of masks.

Every function takes the true and the found regions of each answer, in the same order, and gives a `Tally` with one
entry for each answer. Regions of any kind have a box (around all parts); masks are the polygons filled in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from open_florence.evaluation.detection import Images, boxes_of
from open_florence.evaluation.intervals import Array, Tally
from open_florence.geometry import box_to_polygon, iou, rasterize, region_box
from open_florence.schema import Region, Size
from open_florence.selection import region_score


def greedy_matches(overlaps: Array, threshold: float = 0.5) -> list[tuple[int, int]]:
    """One-to-one pairs (row, column) of overlaps (N, M), highest first, none below `threshold`."""
    left = overlaps.copy()
    pairs: list[tuple[int, int]] = []
    while left.size and left.max() >= threshold:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        pairs.append((int(row), int(column)))
        left[row, :] = -1.0
        left[:, column] = -1.0
    return pairs


def box_recall(truth: Images, found: Images, threshold: float = 0.5) -> Tally:
    """Recall at an IoU: the part of the true boxes that a found box covers, one to one, whatever their labels.

    For region proposals. More boxes never lower it, so read it beside their number.
    """
    return Tally.of(
        [
            (len(greedy_matches(iou(boxes_of(true), boxes_of(regions)), threshold)), len(true))
            for true, regions in zip(truth, found, strict=True)
        ]
    )


def grounding_accuracy(truth: Images, found: Images, threshold: float = 0.5) -> Tally:
    """Accuracy at an IoU for phrase grounding, referring expressions and open-vocabulary detection.

    The part of the true regions that an answer of the same label covers, one to one. A label with k true regions has
    its k best-scored answers counted (recall@1 of referring expressions where k = 1), so guessing more does not help.
    """
    pairs: list[tuple[float, float]] = []
    for true, regions in zip(truth, found, strict=True):
        hits = 0
        for label in dict.fromkeys(region.label for region in true):
            wanted = [region for region in true if region.label == label]
            offered = [region for region in regions if region.label == label]
            best = sorted(offered, key=lambda region: -region_score(region))[: len(wanted)]
            hits += len(greedy_matches(iou(boxes_of(wanted), boxes_of(best)), threshold))
        pairs.append((hits, len(true)))
    return Tally.of(pairs)


def any_box_accuracy(truth: Images, found: Images, k: int = 1, threshold: float = 0.5) -> Tally:
    """R@k of phrases by the any-box protocol: a phrase is right when one of its k best-scored answers covers any of its
    true regions at the IoU (MDETR, Kamath et al. 2021, arXiv 2104.12763).

    For k = 1 it is the accuracy@0.5 of phrase grounding (Flickr30k Entities) and of referring expressions (RefCOCO).
    Phrases are labels, compared exactly; where the truth has the same words at two places of the caption (`span`) they
    are two phrases, and an answer belongs to that of its own span. n counts phrases.
    """
    return _phrase_recall(truth, found, k, threshold, merged=False)


def merged_box_accuracy(truth: Images, found: Images, k: int = 1, threshold: float = 0.5) -> Tally:
    """R@k of phrases by the merged-box protocol: the true regions of a phrase are one, the box around all of them.

    The older protocol of Flickr30k Entities (Plummer et al. 2015, arXiv 1505.04870). A phrase with one region is judged
    as by `any_box_accuracy`.
    """
    return _phrase_recall(truth, found, k, threshold, merged=True)


def _phrase_recall(truth: Images, found: Images, k: int, threshold: float, merged: bool) -> Tally:
    pairs: list[tuple[float, float]] = []
    for true, regions in zip(truth, found, strict=True):
        phrases = list(dict.fromkeys((region.label, region.span) for region in true))
        repeated = Counter(label for label, _ in phrases)
        hits = 0
        for label, span in phrases:
            wanted = boxes_of([region for region in true if (region.label, region.span) == (label, span)])  # (N, 4)
            if merged:
                wanted = np.concatenate([wanted[:, :2].min(axis=0), wanted[:, 2:].max(axis=0)])[None]
            offered = [region for region in regions if region.label == label]
            if repeated[label] > 1:
                offered = [region for region in offered if region.span in (span, None)]
            best = sorted(offered, key=lambda region: -region_score(region))[:k]
            hits += bool((iou(wanted, boxes_of(best)) >= threshold).any())
        pairs.append((float(hits), float(len(phrases))))
    return Tally.of(pairs)


def false_positive_rate(found: Images) -> Tally:
    """The part of questions about absent things that were answered with a region all the same: one entry a question."""
    return Tally.of([(float(len(regions) > 0), 1.0) for regions in found])


def region_f1(truth: Images, found: Images, threshold: float = 0.5) -> Tally:
    """F1 of regions that are right in label (exactly) and place (IoU at or above the threshold), one to one.

    2 x right / (true + found), summed over all answers; n counts the true regions.
    """
    pairs: list[tuple[float, float]] = []
    for true, regions in zip(truth, found, strict=True):
        overlaps = iou(boxes_of(true), boxes_of(regions))
        same = np.array([[t.label == r.label for r in regions] for t in true], dtype=bool).reshape(overlaps.shape)
        right = len(greedy_matches(np.where(same, overlaps, -1.0), threshold))
        pairs.append((2.0 * right, float(len(true) + len(regions))))
    return Tally.of(pairs, count=sum(len(true) for true in truth))


def mask(regions: Sequence[Region], size: Size) -> NDArray[np.bool_]:
    """The pixels (H, W) inside any part of any of the regions, boxes included."""
    parts = [
        part
        for region in regions
        for part in ([box_to_polygon(region_box(region.parts))] if region.kind == "box" else region.parts)
    ]
    return rasterize(parts, (round(size[0]), round(size[1])))


def mask_overlaps(truth: Images, found: Images, sizes: Sequence[Size]) -> Array:
    """(N, 2): the pixels that lie in both masks of each answer, and in either; what mIoU and oIoU are made of.

    `sizes` are the images' (width, height) in pixels.
    """
    rows = []
    for true, regions, size in zip(truth, found, sizes, strict=True):
        a, b = mask(true, size), mask(regions, size)
        rows.append((np.count_nonzero(a & b), np.count_nonzero(a | b)))
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def mask_miou(overlaps: Array) -> Tally:
    """Mean IoU of masks (mIoU) from `mask_overlaps`: the IoU of each answer's pixels with the true ones, averaged.

    No mask counts 0, unless there was none to find.
    """
    shared, union = overlaps[:, 0], overlaps[:, 1]
    ious = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    return Tally(ious, np.ones_like(ious), len(ious))


def mask_oiou(overlaps: Array) -> Tally:
    """Overall IoU of masks (oIoU, also cIoU): the shared pixels of all answers over the pixels of all unions."""
    return Tally(overlaps[:, 0], overlaps[:, 1], len(overlaps))
