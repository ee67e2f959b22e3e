"""Calibration: whether regions with a score of .8 are right in 8 of 10 cases, and the curve that makes it so.

A region is right where COCO's matching takes it at IoU .5: a true region of the same label, not taken by a better one,
by the boxes around both. Regions in crowds and other ignored places are not judged. Letters: N regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.detection import match
from open_florence.evaluation.intervals import Array
from open_florence.evaluation.report import Row
from open_florence.inference.calibration import Calibration, Curve

if TYPE_CHECKING:
    from open_florence.evaluation.metrics import Answers

BINS = 10

GROUP = 40
"""Regions whose scores and outcomes are averaged before a curve is drawn through them; fewer where there would not be
`GROUPS` groups."""

GROUPS = 5

EVEN = 1e-9
"""Probabilities no further apart are one."""

FEWEST = 100
"""A task with fewer regions than this is not calibrated."""


@dataclass(frozen=True)
class Outcomes:
    """What became of the regions of one task."""

    scores: Array
    """(N,) `region_score`, 0 to 1."""
    right: Array
    """(N,) 1 where the region is right, else 0."""
    images: NDArray[np.intp]
    """(N,) which image each is in."""


@dataclass(frozen=True)
class Bin:
    """One row of a reliability table."""

    count: int
    score: float
    """The mean score of its regions."""
    right: float
    """The part of them that is right."""


def outcomes(answers: Answers) -> Outcomes:
    """Every judged region of the answers to one task, best first within a label of an answer."""
    scores: list[float] = []
    right: list[bool] = []
    images: list[int] = []
    for truth, found, image, ignored in zip(*answers.regions, answers.images, answers.ignored, strict=True):
        for label in sorted({region.label for region in found}):
            matches = match([truth], [found], label, crowds=[ignored])
            judged = matches.judged[0]  # at the first threshold, IoU .5
            scores += matches.scores[judged].tolist()
            right += matches.right[0][judged].tolist()
            images += [image] * int(judged.sum())
    return Outcomes(np.array(scores), np.array(right, dtype=np.float64), np.array(images, dtype=np.intp))


def reliability(scores: ArrayLike, right: ArrayLike, bins: int = BINS, equal_mass: bool = True) -> list[Bin]:
    """Scores (N,) against outcomes (N,) of 0 and 1, in `bins` bins with as many regions each, or of equal width.

    Bins without a region are left out. Raises OpenFlorenceError for scores outside 0 to 1.
    """
    values, hits = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise OpenFlorenceError("calibration is about scores between 0 and 1")
    order = np.argsort(values, kind="stable")
    if equal_mass:
        groups = np.array_split(order, bins)
    else:
        edges = np.arange(1, bins) / bins
        groups = np.split(order, np.searchsorted(values[order], edges, side="left"))
    return [Bin(len(group), float(values[group].mean()), float(hits[group].mean())) for group in groups if len(group)]


def expected_calibration_error(scores: ArrayLike, right: ArrayLike, bins: int = BINS, equal_mass: bool = True) -> float:
    """ECE: the mean distance of score and outcome over the bins of `reliability`, weighted by their regions.

    Naeini et al., AAAI 2015, with bins of equal mass unless told (Nixon et al., arXiv 1904.01685): scores that crowd at
    one end do not share a single bin. NaN without a region. Even perfect scores do not get 0: a bin of 100 regions is a
    few points off by chance alone.
    """
    table = reliability(scores, right, bins, equal_mass)
    total = sum(row.count for row in table)
    return sum(row.count * abs(row.score - row.right) for row in table) / total if total else float("nan")


def ece_rows(key: str, name: str, answers: Answers) -> list[Row]:
    """The row of a table with the ECE of a task's regions; none where they carry no scores."""
    regions = [region for found in answers.regions[1] for region in found]
    if all(region.score is None and region.label_score is None for region in regions):
        return []
    judged = outcomes(answers)
    value = expected_calibration_error(judged.scores, judged.right)
    note = f"{BINS} bins of equal mass, lower is better"
    return [Row(f"{key}_ece", f"{name}, calibration error (ECE)", value, len(judged.scores), note=note)]


def fit_curve(scores: ArrayLike, right: ArrayLike) -> Curve:
    """Isotonic regression of outcomes (N,) on scores (N,), as a line that rises everywhere, so no rank changes.

    The mean score and the part right of each `GROUP` regions, in the order of their scores; neighbours that would fall
    are pooled (Zadrozny and Elkan, KDD 2002). Each group is given one region more, as right as all are on average, so
    that nothing is certain; beyond the outermost points the line goes on rising, by a hundredth of what is left.
    """
    values, hits = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not values.size:
        raise OpenFlorenceError("a calibration needs regions to be fitted on")
    average = (hits.sum() + 0.5) / (len(hits) + 1)
    order = np.argsort(values, kind="stable")
    pools: list[tuple[float, float, float]] = []  # score, probability, regions
    for group in np.array_split(order, min(len(order), max(GROUPS, len(order) // GROUP))):
        pool = (float(values[group].mean()), float((hits[group].sum() + average) / (len(group) + 1)), float(len(group)))
        while pools and (pools[-1][1] > pool[1] - EVEN or pools[-1][0] >= pool[0]):
            earlier = pools.pop()
            total = earlier[2] + pool[2]
            score, probability = ((earlier[i] * earlier[2] + pool[i] * pool[2]) / total for i in (0, 1))
            pool = (score, probability, total)
        pools.append(pool)
    points = {score: probability for score, probability, _ in pools}
    points.setdefault(0.0, pools[0][1] * 0.99)
    points.setdefault(1.0, 1 - (1 - pools[-1][1]) * 0.99)
    return Curve(*zip(*sorted(points.items()), strict=True))


def held_out(judged: Outcomes) -> Array:
    """The calibrated scores (N,) of each half of the images by the curve of the other half."""
    halves = np.unique(judged.images, return_inverse=True)[1] % 2  # (N,) 0 or 1
    calibrated = np.empty_like(judged.scores)
    for half in (0, 1):
        curve = fit_curve(judged.scores[halves != half], judged.right[halves != half])
        calibrated[halves == half] = [curve(score) for score in judged.scores[halves == half]]
    return calibrated


@dataclass(frozen=True)
class Fitted:
    """How one task was calibrated."""

    task: str
    judged: Outcomes
    held_out: Array
    """(N,) each region's calibrated score by the curve of the half of the images that it is not in."""

    @property
    def before(self) -> float:
        """ECE of the scores as they were."""
        return expected_calibration_error(self.judged.scores, self.judged.right)

    @property
    def after(self) -> float:
        """ECE of the calibrated scores, none judged by a curve that has seen its image."""
        return expected_calibration_error(self.held_out, self.judged.right)


def calibrate(answers: Mapping[str, Answers]) -> tuple[Calibration, list[Fitted], list[str]]:
    """Fit a curve for each task whose answers hold regions, on all of them, and say how well halves predict halves.

    Returns the calibration, a `Fitted` for each of its tasks, and a sentence about each task that is not calibrated:
    fewer than `FEWEST` regions, all in one image, or no smaller error by it. Raises OpenFlorenceError when none is.
    """
    curves, fitted, problems = {}, [], []
    for task, entry in answers.items():
        judged = outcomes(entry)
        if not len(judged.scores):
            continue
        if len(judged.scores) < FEWEST or len(np.unique(judged.images)) < 2:
            problems.append(f"{task} is not calibrated: {len(judged.scores)} regions are too few, {FEWEST} are needed")
            continue
        result = Fitted(task, judged, held_out(judged))
        if result.after >= result.before:
            problems.append(
                f"{task} is not calibrated: the error of its scores is {result.before:.3f} as they are, and would be "
                f"{result.after:.3f}"
            )
            continue
        curves[task] = fit_curve(judged.scores, judged.right)
        fitted.append(result)
    if not curves:
        raise OpenFlorenceError("; ".join(problems) or "there is nothing to calibrate: no answer holds a region")
    return Calibration(curves), fitted, problems
