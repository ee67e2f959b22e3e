"""Average precision of detection, by the rules of the COCO evaluation (cocodataset.org/#detection-eval).

The numbers come from faster-coco-eval (equal to pycocotools). Its bootstrap interval needs the metric hundreds of times
on resampled images, so images are matched once here and re-weighted (`Matches.precision`); a test holds both equal.
Crowds (COCO's `iscrowd`) are not to be found, and what is found in one of the same label is neither right nor wrong.

The score of a region is `score` x `label_score` (place and name), 1.0 where its source did not say. Without scores
every region has 1.0, as tools that give none are measured: COCO then ranks them by image and by order in the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.intervals import Array, Interval, draws, percentiles
from open_florence.geometry import iou, region_box
from open_florence.schema import Region
from open_florence.selection import region_score

Images = Sequence[Sequence[Region]]
"""The regions of each image; truth and found go in the same order."""

THRESHOLDS: Array = np.linspace(0.5, 0.95, 10)
RECALLS: Array = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = 100
"""Of one class in one image; more are left out, the lowest scores first."""

CHUNK = 50
"""Draws of the bootstrap at a time: as many tables of all detections are held."""

AVERAGES = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6), "AP90": slice(8, 9)}
"""Which of `THRESHOLDS` each name averages over."""


def boxes_of(regions: Sequence[Region]) -> Array:
    """The boxes around regions of any kind: (N, 4), [x1, y1, x2, y2] in pixels."""
    return np.array([region_box(region.parts) for region in regions], dtype=np.float64).reshape(-1, 4)


@dataclass(frozen=True)
class Detection:
    """What COCO's evaluation says of one class, or of all (the mean over the classes that occur)."""

    values: dict[str, float]
    """"AP" (mean over IoU .5 to .95), "AP50", "AP75", "AP90", "AR" (mean best recall); NaN with nothing to find."""
    intervals: dict[str, Interval | None]
    """The 95 % bootstrap interval over images of each AP."""
    count: int
    """True regions."""


def detection_ap(
    truth: Images, found: Images, crowds: Images | None = None, *, scored: bool = True, intervals: bool = True
) -> dict[str, Detection]:
    """Detection quality of each class, and of all under the name "" (so a class may be called anything else).

    `truth`, `found` and `crowds` are the regions of each image, in the same order; labels are compared exactly. A found
    region whose label is the label of no true region anywhere is no detection of any class, and lowers nothing
    (`strangers`). Raises OpenFlorenceError when faster-coco-eval is not installed.
    """
    crowds = crowds or [()] * len(truth)
    labels = sorted({region.label for regions in truth for region in regions})
    precision, recall = _coco(truth, found, crowds, labels, scored)  # (T, K), (T, K)
    counts = Counter(region.label for regions in truth for region in regions)
    result: dict[str, Detection] = {}
    for name, rows in {"": range(len(labels)), **{label: [k] for k, label in enumerate(labels)}}.items():
        picked = list(rows)
        values = {metric: _mean(precision[thresholds, picked]) for metric, thresholds in AVERAGES.items()}
        values["AR"] = _mean(recall[:, picked])
        result[name] = Detection(values, {}, sum(counts[labels[k]] for k in picked))
    if intervals:
        matches = [match(truth, found, label, scored, crowds) for label in labels]
        for name, bounds in _intervals(labels, matches, len(truth)).items():
            result[name].intervals.update(bounds)
    return result


def strangers(truth: Images, found: Images) -> tuple[int, int]:
    """(how many found regions carry a label of no true region, how many were found in all)."""
    labels = {region.label for regions in truth for region in regions}
    names = [region.label for regions in found for region in regions]
    return sum(name not in labels for name in names), len(names)


@dataclass(frozen=True)
class Matches:
    """The detections of one class, best score first, each right or wrong at every IoU threshold."""

    image: NDArray[np.intp]
    """(D,) the image of each detection."""
    scores: Array
    """(D,) its score."""
    right: NDArray[np.bool_]
    """(T, D) whether it found a true region."""
    judged: NDArray[np.bool_]
    """(T, D) whether it counts: False for one that found no true region but lies in a crowd."""
    truths: Array
    """(I,) true regions in each image."""

    def precision(self, weights: Array) -> Array:
        """Average precision (R, T) of data in which image i occurs weights[r, i] times: weights (R, I).

        101-point interpolation of the precision made monotone, as COCO does it. NaN in draws without a true region.
        """
        positives = weights @ self.truths  # (R,)
        seen = weights[:, self.image]  # (R, D)
        result = np.zeros((len(weights), len(self.right)))  # (R, T)
        for t, (right, judged) in enumerate(zip(self.right, self.judged, strict=True)):
            hits = np.cumsum(seen * right, axis=1)  # (R, D)
            ranked = np.cumsum(seen * judged, axis=1)
            recall = hits / np.maximum(positives, 1)[:, None]
            envelope = np.maximum.accumulate((hits / np.maximum(ranked, 1))[:, ::-1], axis=1)[:, ::-1]
            reached = np.searchsorted(RECALLS, recall, side="right")  # (R, D) recall points reached so far
            gained = np.diff(reached, axis=1, prepend=0)
            result[:, t] = (envelope * gained).sum(axis=1) / len(RECALLS)
        result[positives == 0] = np.nan
        return result


def match(truth: Images, found: Images, label: str, scored: bool = True, crowds: Images | None = None) -> Matches:
    """COCO's matching of one class: in each image, best score first, each detection takes the free true region of
    highest IoU at or above the threshold; failing that it may lie in a crowd, with as large a part of its own area."""
    images: list[int] = []
    scores: list[float] = []
    right: list[NDArray[np.bool_]] = []
    judged: list[NDArray[np.bool_]] = []
    truths = np.zeros(len(truth))
    for index, (true_regions, regions) in enumerate(zip(truth, found, strict=True)):
        wanted = [region for region in true_regions if region.label == label]
        truths[index] = len(wanted)
        offered = sorted((r for r in regions if r.label == label), key=lambda r: -region_score(r) if scored else 0.0)
        offered = offered[:MOST_DETECTIONS]
        images += [index] * len(offered)
        scores += [region_score(region) if scored else 1.0 for region in offered]
        taken = _take(iou(boxes_of(offered), boxes_of(wanted)))  # (T, D)
        right.append(taken)
        crowd = [region for region in crowds[index] if region.label == label] if crowds else []
        judged.append(taken | ~(_part_inside(offered, crowd) >= THRESHOLDS[:, None]))
    empty = np.zeros((len(THRESHOLDS), 0), dtype=bool)
    order = np.argsort(-np.array(scores, dtype=np.float64), kind="stable")
    hits, counted = (np.concatenate([empty, *parts], axis=1)[:, order] for parts in (right, judged))  # (T, D)
    ranked = np.array(scores, dtype=np.float64)[order]
    return Matches(np.array(images, dtype=np.intp)[order], ranked, hits, counted, truths)


def _part_inside(regions: Sequence[Region], crowds: Sequence[Region]) -> Array:
    """(D,) how much of the box of each region lies in one crowd's box, 0 to 1."""
    a, b = boxes_of(regions)[:, None], boxes_of(crowds)[None]  # (D, 1, 4), (1, C, 4)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=-1)  # (D, C)
    area = (a[..., 2:] - a[..., :2]).prod(axis=-1)
    parts: Array = np.divide(shared, area, out=np.zeros_like(shared), where=area > 0).max(axis=1, initial=0.0)
    return parts


def _take(overlaps: Array) -> NDArray[np.bool_]:
    """Overlaps (D, G) of ranked detections with true regions -> which detections are right at each threshold (T, D)."""
    right = np.zeros((len(THRESHOLDS), len(overlaps)), dtype=bool)
    if not overlaps.size:
        return right
    for t, threshold in enumerate(THRESHOLDS):
        if overlaps.max() < threshold:
            continue
        free = overlaps.copy()  # (D, G)
        for d in range(len(free)):
            best = int(np.argmax(free[d]))
            if free[d, best] >= threshold:
                right[t, d] = True
                free[:, best] = -1.0
    return right


def _coco(truth: Images, found: Images, crowds: Images, labels: list[str], scored: bool) -> tuple[Array, Array]:
    """(average precision (T, K), best recall (T, K)) of each class by faster-coco-eval; NaN where it has none."""
    empty = np.full((len(THRESHOLDS), len(labels)), np.nan)
    if not labels:
        return empty, empty
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise OpenFlorenceError("detection AP needs faster-coco-eval: pip install 'open-florence[eval]'") from error
    category = {label: index + 1 for index, label in enumerate(labels)}
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (true_regions, regions, crowd) in enumerate(zip(truth, found, crowds, strict=True)):
        known = [*((region, 0) for region in true_regions), *((r, 1) for r in crowd if r.label in category)]
        for (region, is_crowd), box in zip(known, boxes_of([region for region, _ in known]), strict=True):
            record = _record(image, category[region.label], box)
            annotations.append({**record, "id": len(annotations) + 1, "area": box[2] * box[3], "iscrowd": is_crowd})
        for region, box in zip(regions, boxes_of(regions), strict=True):
            if region.label in category:
                score = region_score(region) if scored else 1.0
                results.append({**_record(image, category[region.label], box), "score": score})
    if not results:
        return np.zeros_like(empty), np.zeros_like(empty)
    coco = COCO(
        {
            "images": [{"id": image, "width": 1, "height": 1} for image in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": number, "name": label} for label, number in category.items()],
        }
    )
    evaluation = COCOeval_faster(coco, coco.loadRes(results), "bbox")
    evaluation.params.iouThrs = THRESHOLDS
    evaluation.params.recThrs = RECALLS
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [MOST_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, 0]  # (T, 101, K), -1 where a class has no truth
    recall = np.asarray(evaluation.eval["recall"])[:, :, 0, 0]  # (T, K)
    return precision.mean(axis=1), recall


def _record(image: int, category: int, box: Array) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}


def _intervals(labels: list[str], matches: list[Matches], count: int) -> dict[str, dict[str, Interval | None]]:
    """The interval of every AP of every class, and of their mean under ""."""
    if count < 2 or not matches:
        return {}
    weights = draws(count)  # (R, I)
    pieces = [weights[start : start + CHUNK] for start in range(0, len(weights), CHUNK)]
    curves = [np.concatenate([found.precision(piece) for piece in pieces]) for found in matches]  # K of (R, T)
    named = zip(["", *labels], [_class_mean(curves), *curves], strict=True)
    return {
        name: {metric: percentiles(curve[:, rows].mean(axis=1)) for metric, rows in AVERAGES.items()}
        for name, curve in named
    }


def _class_mean(curves: list[Array]) -> Array:
    """The mean (R, T) over the classes that a draw holds."""
    stack = np.stack(curves)  # (K, R, T)
    held = ~np.isnan(stack)
    count = held.sum(axis=0)
    return np.where(count > 0, np.where(held, stack, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")
