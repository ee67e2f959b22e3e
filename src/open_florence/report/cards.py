"""A sample as a card of the report: texts beside the image, and a tile, image and marks, for every other task.

Everything here is plain strings and numbers for the template; what is drawn lies in the image's own pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from open_florence.report.colours import Palette, ink
from open_florence.report.labels import columns_of, place_labels, region_title, shorten
from open_florence.report.marks import Mark, Run, labels_of, marks_of, runs_of, task_name
from open_florence.schema import Annotation, Point, Region, Sample
from open_florence.tasks import TASKS
from open_florence.tasks.text import TextGrammar

TILE_WIDTH = 250.0
"""CSS pixels of the narrowest tile: labels placed for it have room on every wider one."""

LETTER, LINE = 6.4, 17.0
"""CSS pixels of one column and one line of a label on a tile."""

MOST_LABELS = 14
"""Above so many marks on a tile its labels appear only when pointed at."""

MOST_CHIPS = 40


@dataclass(frozen=True, slots=True)
class Shape:
    """A region as an SVG path; `key` joins it to its label and its phrase."""

    key: int
    path: str
    colour: str
    kind: str
    """"box", "quad", "polygon" or "asked"."""
    title: str


@dataclass(frozen=True, slots=True)
class Label:
    """What is written at a region; `left` and `top` in percent of the image."""

    key: int
    text: str
    colour: str
    ink: str
    left: float
    top: float


@dataclass(slots=True)
class Chip:
    """One label of a tile (or all regions without one), with how often it was found and how surely."""

    key: int | None
    """None for the regions without a label."""
    label: str
    colour: str
    count: int = 0
    scores: list[float] = field(default_factory=list)
    """Of the label; of the places where there is no label that could have one."""
    of_place: bool = False

    @property
    def text(self) -> str:
        """What was found, and how often."""
        if self.key is None:
            return "1 region" if self.count == 1 else f"{self.count} regions"
        return self.label if self.count == 1 else f"{self.label} × {self.count}"

    @property
    def score(self) -> str:
        """As "0.91", or the range "0.40–0.91"; "" without scores."""
        if not self.scores:
            return ""
        low, high = f"{min(self.scores):.2f}", f"{max(self.scores):.2f}"
        return ("place " if self.of_place else "") + (high if low == high else f"{low}–{high}")

    def add(self, mark: Mark) -> None:
        """Counts one more region."""
        self.count += 1
        if mark.score is None and mark.region.score is not None:
            self.of_place = True
        score = mark.region.score if mark.score is None else mark.score
        if score is not None and math.isfinite(score):
            self.scores.append(score)


@dataclass(frozen=True, slots=True)
class Answer:
    """One annotation in words."""

    task: str
    name: str
    asked: str
    runs: list[tuple[Run, int | None]]
    """The text in runs, each with the key of the region it grounds."""
    score: str
    warning: str
    source: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture: the answers to one task (or one grounded caption) drawn on the image."""

    task: str
    name: str
    shapes: list[Shape]
    labels: list[Label]
    chips: list[Chip]
    more: int
    """How many labels have no chip for want of room."""
    answers: list[Answer]
    """What there is in words: grounded captions, and answers that are not sound."""
    absent: list[str]
    """What was asked for and not found."""
    found: bool
    crowded: bool
    """Whether labels are only shown when pointed at."""
    source: str


@dataclass(frozen=True, slots=True)
class Card:
    """Everything the page shows of one sample."""

    name: str
    path: str
    size: str
    width: float
    height: float
    is_image: bool
    """False for a series, of which there is nothing to draw."""
    picture: str | None
    """The thumbnail's address relative to the page; None where there is no picture to show."""
    missing: str
    """Why there is none, as a sentence."""
    answers: list[list[Answer]]
    """The texts about the whole image, those of one task and source together."""
    tiles: list[Tile]


def make_card(sample: Sample, picture: str | None, missing: str, palette: Palette) -> Card:
    """The card of one sample, its annotations in the order in which they stand."""
    width, height = sample.size if len(sample.size) == 2 else (1.0, 1.0)
    size = " × ".join(f"{side:g}" for side in sample.size)
    palette = palette.within(label for annotation in sample.annotations for label in labels_of(annotation))
    pictures: dict[tuple[object, ...], list[Annotation]] = {}
    for annotation in sample.annotations:
        if not is_text(annotation):
            pictures.setdefault(_tile_key(annotation), []).append(annotation)
    tiles = [_tile(annotations, width, height, palette) for annotations in pictures.values()]
    name = sample.path.replace("\\", "/").rsplit("/", 1)[-1]
    texts = [_answer(annotation, palette, {}) for annotation in sample.annotations if is_text(annotation)]
    answers = [list(group) for _, group in groupby(texts, key=lambda answer: (answer.task, answer.source))]
    is_image = len(sample.size) == 2
    return Card(name, sample.path, size, max(width, 1.0), max(height, 1.0), is_image, picture, missing, answers, tiles)


def is_text(annotation: Annotation) -> bool:
    """Whether the answer is words about the whole image, with nothing to draw."""
    if annotation.regions or isinstance(annotation.query, Region):
        return False
    task = TASKS.get(annotation.task)
    return bool(annotation.text) if task is None else isinstance(task.grammar, TextGrammar)


def _tile_key(annotation: Annotation) -> tuple[object, ...]:
    """Annotations of one key share a picture: those of a task and source, but every grounded caption by itself."""
    grounded = annotation.text if not isinstance(annotation.query, Region) else ""
    return annotation.task, annotation.source, annotation.round, grounded


def _tile(annotations: Sequence[Annotation], width: float, height: float, palette: Palette) -> Tile:
    marks = [mark for turn, annotation in enumerate(annotations) for mark in marks_of(annotation, palette, turn)]
    keys: dict[str, int] = {}
    numbered = [(keys.setdefault(mark.label or f"\0{index}", len(keys)), mark) for index, mark in enumerate(marks)]
    chips: dict[int | None, Chip] = {}
    for key, mark in numbered:
        if mark.label:
            chips.setdefault(key, Chip(key, mark.label, mark.colour)).add(mark)
        elif not mark.asked:
            chips.setdefault(None, Chip(None, "", mark.colour)).add(mark)
    drawn = [(key, mark) for key, mark in numbered if mark.drawable]
    shapes = [
        Shape(key, _path(mark.region), mark.colour, "asked" if mark.asked else mark.region.kind, _title(mark))
        for key, mark in sorted(drawn, key=lambda pair: -pair[1].area)  # large ones under small ones
    ]
    answers = [_answer(annotation, palette, keys) for annotation in annotations]
    absent = [answer.asked for answer, a in zip(answers, annotations, strict=True) if answer.asked and not a.regions]
    shown = list(chips.values())[:MOST_CHIPS]
    return Tile(
        annotations[0].task,
        task_name(annotations[0].task),
        shapes,
        _labels(drawn, width, height),
        shown,
        len(chips) - len(shown),
        [answer for answer in answers if answer.runs or answer.warning],
        absent,
        any(annotation.regions for annotation in annotations),
        len(marks) > MOST_LABELS,
        answers[0].source,
    )


def _answer(annotation: Annotation, palette: Palette, keys: dict[str, int]) -> Answer:
    in_region = isinstance(annotation.query, Region)
    asked = annotation.query if isinstance(annotation.query, str) and annotation.query != annotation.text else ""
    runs = [] if in_region else [(run, keys.get(run.label)) for run in runs_of(annotation, palette)]
    score = "" if annotation.score is None or in_region else f"{annotation.score:.2f}"
    source = annotation.source + (f", round {annotation.round}" if annotation.round else "")
    return Answer(
        annotation.task,
        task_name(annotation.task),
        asked.replace("<and>", ", ") if isinstance(asked, str) else "",
        [(run, key) for run, key in runs if run.text],
        score,
        _warning(annotation),
        source,
    )


def _warning(annotation: Annotation) -> str:
    """ "" for a sound answer, else what is wrong with it."""
    parts = []
    if not annotation.complete:
        parts.append("incomplete")
    if annotation.dropped:
        parts.append(f"{annotation.dropped} location token{'s' * (annotation.dropped != 1)} dropped")
    return ", ".join(parts)


def _labels(drawn: Sequence[tuple[int, Mark]], width: float, height: float) -> list[Label]:
    """Labels placed on a tile of the narrowest width, their places in percent."""
    shown = [(key, mark, shorten(region_title(mark.label, mark.score), 30)) for key, mark in drawn]
    shown = [(key, mark, text) for key, mark, text in shown if text]
    scale = TILE_WIDTH / max(width, 1.0)
    frame = (TILE_WIDTH, max(height, 1.0) * scale)
    corners = [mark.box for _, mark, _ in shown]
    boxes = [(x1 * scale, y1 * scale, x2 * scale, y2 * scale) for x1, y1, x2, y2 in corners]
    sizes = [(columns_of(text) * LETTER + 8, LINE) for _, _, text in shown]
    if len(shown) > MOST_LABELS:  # they are shown one at a time
        places = [place_labels([box], [size], frame)[0] for box, size in zip(boxes, sizes, strict=True)]
    else:
        places = place_labels(boxes, sizes, frame)
    return [
        Label(key, text, mark.colour, ink(mark.colour), round(100 * x / frame[0], 2), round(100 * y / frame[1], 2))
        for (key, mark, text), (x, y, _, _) in zip(shown, places, strict=True)
    ]


def _path(region: Region) -> str:
    """SVG path data; parts turn the same way round, so that where they overlap they are filled as one."""
    if region.kind == "box":
        (x1, y1), (x2, y2) = region.parts[0]
        return _closed([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    return " ".join(_closed(part if _turn(part) >= 0 else part[::-1]) for part in region.parts)


def _closed(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"


def _turn(points: Sequence[Point]) -> float:
    """Positive for points that go clockwise on the screen (twice the signed area)."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, [*points[1:], points[0]], strict=True))


def _title(mark: Mark) -> str:
    """What pointing at a region says: its label, and how sure the source is of label and place."""
    label, place = (mark.score, None) if mark.asked else (mark.region.label_score, mark.region.score)
    parts = [f"{mark.label} {label:.3f}" if label is not None and mark.label else mark.label]
    if place is not None:
        parts.append(f"place {place:.3f}")
    return ", ".join(part for part in parts if part)
