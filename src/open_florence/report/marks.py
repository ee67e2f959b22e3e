"""What an annotation shows: its marks on the picture, and the words of its text with the places they speak of.

Shared by the drawing and by the page, so that both show the same things in the same colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from open_florence.report.colours import COLOURS, WORDS, Palette
from open_florence.schema import Annotation, Region

NAMES = {
    "<OD>": "Object detection",
    "<OCR>": "Text",
    "<OCR_WITH_REGION>": "Text with places",
    "<REGION_TO_OCR>": "Text in a region",
    "<VQA>": "Questions",
    "<CAPTION_TO_PHRASE_GROUNDING>": "Phrase grounding",
}
"""Names where the token's own words would not do."""


def task_name(token: str) -> str:
    """The task as a person would write it; a free prompt as it was asked."""
    if token in NAMES:
        return NAMES[token]
    if token.startswith("<") and token.endswith(">"):
        return token[1:-1].replace("_", " ").strip().capitalize()
    return token


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing drawn on the picture, in pixels of the original image."""

    region: Region
    colour: str
    label: str
    """What is written at the region; "" for nothing."""
    score: float | None
    """How sure the source is of the label, or, where it does not tell them apart, of label and place together. None for
    a region without a label of its own: how sure a place is may be on another scale (`Region.score`)."""
    asked: bool = False
    """Whether this is the region that was asked about rather than one that was answered."""

    @property
    def drawable(self) -> bool:
        """Whether it is a place in an image: not in a series, with points, and no number in them missing."""
        points = [point for part in self.region.parts for point in part]
        return bool(points) and all(len(point) == 2 and all(map(math.isfinite, point)) for point in points)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The smallest box (x1, y1, x2, y2) around all parts of a drawable mark."""
        points = [point for part in self.region.parts for point in part]
        xs, ys = [point[0] for point in points], [point[1] for point in points]
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of an annotation's text; `colour` is that of the region it grounds, None for plain text."""

    text: str
    label: str = ""
    colour: str | None = None


def marks_of(annotation: Annotation, palette: Palette, index: int = 0) -> list[Mark]:
    """The regions of an annotation, the asked region first.

    Regions without a label take turns through the colours; `index` says which annotation of its picture this is, so
    that what was found in one asked region has that region's colour.
    """
    marks: list[Mark] = []
    if isinstance(annotation.query, Region):
        label = annotation.text
        marks.append(
            Mark(
                annotation.query, _colour(label, index, palette), label, annotation.score if label else None, asked=True
            )
        )
    for turn, region in enumerate(annotation.regions, index):
        label = region_label(annotation, region)
        colour = WORDS if region.kind == "quad" else _colour(label, turn, palette)
        sure = region.score if region.label_score is None else region.label_score
        marks.append(Mark(region, colour, label, sure if region.label else None))
    return marks


def labels_of(annotation: Annotation) -> list[str]:
    """The labels that need a colour, in the order in which they appear."""
    asked = [annotation.text] if isinstance(annotation.query, Region) else []
    answered = [region_label(annotation, region) for region in annotation.regions if region.kind != "quad"]
    return [label for label in [*asked, *answered] if label]


def region_label(annotation: Annotation, region: Region) -> str:
    """The region's label; for a region without one, the phrase that was asked for."""
    asked = annotation.query if isinstance(annotation.query, str) and not annotation.text else ""
    return region.label or asked


def runs_of(annotation: Annotation, palette: Palette) -> list[Run]:
    """The text cut where grounded phrases begin and end; of phrases within each other the shorter one counts."""
    text = annotation.text
    spans: list[tuple[int, int, Region]] = []
    for region in annotation.regions:
        if region.span is not None:
            start, end = max(region.span[0], 0), min(region.span[1], len(text))
            if start < end:
                spans.append((start, end, region))
    cuts = sorted({0, len(text), *(start for start, _, _ in spans), *(end for _, end, _ in spans)})
    runs: list[Run] = []
    for start, end in pairwise(cuts):
        around = [span for span in spans if span[0] <= start and end <= span[1]]
        if around:
            region = min(around, key=lambda span: span[1] - span[0])[2]
            label = region_label(annotation, region)
            runs.append(Run(text[start:end], label, palette.colour(label)))
        else:
            runs.append(Run(text[start:end]))
    return runs


def _colour(label: str, turn: int, palette: Palette) -> str:
    return palette.colour(label) if label else COLOURS[turn % len(COLOURS)]
