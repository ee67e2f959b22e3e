"""Scores that are probabilities: a checkpoint's own map from its scores to how often such regions turn out right.

The file calibration.json stands beside config.json and holds for exactly the weights it was fitted on
(`evaluation.calibration` fits it), so it is not carried along when a model is trained further.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region
from open_florence.selection import region_score

NAME = "calibration.json"


@dataclass(frozen=True, slots=True)
class Curve:
    """A rising line through points; constant before the first and after the last."""

    scores: tuple[float, ...]
    """Increasing, 0 to 1."""
    probabilities: tuple[float, ...]
    """As many, never falling, 0 to 1."""

    def __post_init__(self) -> None:
        for values in (self.scores, self.probabilities):
            if not values or not all(0 <= value <= 1 for value in values):
                raise OpenFlorenceError("the points of a calibration are numbers between 0 and 1, at least one")
        rising = np.all(np.diff(self.scores) > 0) and np.all(np.diff(self.probabilities) >= 0)
        if len(self.scores) != len(self.probabilities) or not rising:
            raise OpenFlorenceError("the points of a calibration rise: a higher score is never less probably right")

    def __call__(self, score: float) -> float:
        """The probability at a score."""
        return float(np.interp(score, self.scores, self.probabilities))


@dataclass(frozen=True, slots=True)
class Calibration:
    """A curve for each task whose regions were calibrated."""

    curves: Mapping[str, Curve]

    def apply(self, annotation: Annotation) -> Annotation:
        """The annotation with each region's probability of being right, place and label together, as its `score`.

        `label_score` is None then: both are in the one number. Tasks without a curve stay as they are, and so do
        regions without a score.
        """
        curve = self.curves.get(annotation.task)
        if curve is None:
            return annotation
        return replace(annotation, regions=tuple(_calibrated(region, curve) for region in annotation.regions))

    def save(self, folder: str | Path) -> None:
        """Write calibration.json."""
        record = {
            task: {"scores": list(curve.scores), "probabilities": list(curve.probabilities)}
            for task, curve in self.curves.items()
        }
        (Path(folder) / NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Calibration | None:
        """What a folder's calibration.json says, None without one. Raises OpenFlorenceError, naming the file."""
        path = Path(folder) / NAME
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return cls({task: _curve(points) for task, points in record.items()})
        except FileNotFoundError:
            return None
        except OpenFlorenceError as error:
            raise OpenFlorenceError(f"{path}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OpenFlorenceError(
                f"{path} is not a calibration: it is damaged, or written by something else"
            ) from error


def _curve(points: Mapping[str, Any]) -> Curve:
    return Curve(*(tuple(float(value) for value in points[name]) for name in ("scores", "probabilities")))


def _calibrated(region: Region, curve: Curve) -> Region:
    if region.score is None and region.label_score is None:
        return region
    return replace(region, score=curve(region_score(region)), label_score=None)
