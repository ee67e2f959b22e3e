"""What a specialist may say: an answer of the right kind about each image, or it counts as no answer at all.

Checked are the number and type of what comes back, tasks, texts, scores, spans, and that coordinates lie where the
image is. What passes can be stored, drawn and trained on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from open_florence.schema import Annotation, Region, Sample

OUTSIDE = 0.1
"""How far beyond the image a point may lie, as a share of the image's side, before it is taken to be a mistake."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An image about which there is no answer."""

    reason: str
    timed_out: bool = False


Answer = list[Annotation] | Failed


def checked(samples: Sequence[Sample], answers: Any, tasks: Collection[str], source: str) -> list[Answer] | Failed:
    """The answers about each of the samples as `source` gave them; where one is no answer, why.

    `Failed` as a whole where they cannot be told apart: not one list of annotations for each sample.
    """
    if not isinstance(answers, list | tuple):
        return Failed(f"the answer is {_kind(answers)}, not a list")
    if len(answers) != len(samples):
        return Failed(f"{len(samples)} images were asked about and {len(answers)} answers came back")
    return [_checked(sample, answer, tasks, source) for sample, answer in zip(samples, answers, strict=True)]


def _checked(sample: Sample, answer: Any, tasks: Collection[str], source: str) -> Answer:
    if not isinstance(answer, list | tuple):
        return Failed(f"the answer about the image is {_kind(answer)}, not a list of annotations")
    for annotation in answer:
        if not isinstance(annotation, Annotation):
            return Failed(f"the answer holds {_kind(annotation)}, not an annotation")
        if wrong := _mistake(annotation, sample.size, tasks):
            return Failed(f"the answer about {str(annotation.task)[:40]} is refused: {wrong}")
    return [replace(annotation, source=source) for annotation in answer]


def _mistake(annotation: Annotation, size: tuple[float, ...], tasks: Collection[str]) -> str:
    """What is wrong with an annotation; empty where nothing is."""
    if annotation.task not in tasks:
        return f"it is not among the tasks {', '.join(tasks)}"
    if wrong := _text_mistake(annotation.text) or _score_mistake(annotation.score):
        return wrong
    query = annotation.query
    if isinstance(query, Region):
        if wrong := _region_mistake(query, size, ""):
            return f"its query: {wrong}"
    elif query is not None and (wrong := _text_mistake(query)):
        return f"its query: {wrong}"
    for number, region in enumerate(annotation.regions, start=1):
        if not isinstance(region, Region):
            return f"region {number} is {_kind(region)}"
        if wrong := _region_mistake(region, size, annotation.text):
            return f"region {number}: {wrong}"
    return ""


def _region_mistake(region: Region, size: tuple[float, ...], text: str) -> str:
    if wrong := _text_mistake(region.label) or _score_mistake(region.score) or _score_mistake(region.label_score):
        return wrong
    if region.span is not None:
        start, end = region.span
        if not 0 <= start < end <= len(text):
            return f"the span {region.span} is not inside a text of {len(text)} characters"
    if not any(region.parts):
        return "it has no points"
    for part in region.parts:
        for point in part:
            if len(point) != len(size):
                return f"the point {point} has not {len(size)} coordinates"
            for value, side in zip(point, size, strict=True):
                if not _is_number(value):
                    return f"the coordinate {value!r} is no number"
                if not -OUTSIDE * side <= value <= (1 + OUTSIDE) * side:
                    return f"the coordinate {value:g} lies far outside an image of {side:g} pixels"
    return ""


def _text_mistake(text: Any) -> str:
    if not isinstance(text, str):
        return f"{_kind(text)} stands where text belongs"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"the text {text[:40]!r} holds half a character"
    return ""


def _score_mistake(score: Any) -> str:
    if score is not None and not (_is_number(score) and 0 <= score <= 1):
        return f"the score {score!r} is not between 0 and 1"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"of the type {type(value).__name__}"
