"""The picture of the README: four scenes as `tiny` labels them, each under the name of the task that was asked.

python recipes/picture.py docs/picture.png
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import typer
from PIL import Image, ImageDraw

import open_florence as of
from open_florence.annotate import Ask
from open_florence.report import draw
from open_florence.report.fonts import font_for
from open_florence.report.marks import task_name
from open_florence.scenes import make_scene

FIRST_SEED = 2**41
"""Beyond all seeds of training, validation and test (`scenes/config.py`)."""

GROUNDING, MASKS, WORDS = "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_SEGMENTATION>", "<OCR_WITH_REGION>"
PANELS = ("<OD>", GROUNDING, MASKS, WORDS)

SURE = 0.5
"""A word is shown from this label score on. `tiny` reads the words that it knows, and guesses at all other strings."""

MOST_MASKS = 4
"""Boxes of a scene whose masks are asked for."""

Scene = tuple[Image.Image, list[of.Annotation]]


def look(predictor: of.Predictor, count: int) -> list[Scene]:
    """Scenes with what the model says: of masks and phrases about the boxes and the caption it found itself."""
    images = [Image.fromarray(make_scene(FIRST_SEED + number).image) for number in range(count)]
    first = predictor.predict_batch(images, ["<OD>", "<DETAILED_CAPTION>", WORDS])
    asked: list[tuple[Image.Image, list[Ask]]] = [
        (image, [(GROUNDING, caption.text), *((MASKS, box) for box in boxes.regions[:MOST_MASKS])])
        for image, (boxes, caption, _) in zip(images, first, strict=True)
    ]
    second = predictor.predict_each(asked)
    return [
        (image, [boxes, without_guesses(words), *more])
        for image, (boxes, _, words), more in zip(images, first, second, strict=True)
    ]


def without_guesses(answer: of.Annotation) -> of.Annotation:
    """The place of a word that was not read is kept, the guess is not."""
    regions = tuple(
        r if (r.label_score or 0) >= SURE else replace(r, label="text", label_score=None) for r in answer.regions
    )
    return replace(answer, regions=regions)


def sheet(scenes: Sequence[Scene], side: int = 440, gap: int = 20, title: int = 34) -> Image.Image:
    """One picture of four scenes side by side, each with the answers to a task.

    For each task it is the scene, not shown yet, whose answer is the surest: what works, not what is typical.
    """
    panels: list[Image.Image] = []
    for task, (image, answers) in zip(PANELS, _one_for_each(scenes), strict=True):
        panel = draw(image, [answer for answer in answers if answer.task == task])
        panels.append(panel.resize((side, round(panel.height * side / panel.width)), Image.Resampling.LANCZOS))
    size = (len(panels) * (side + gap) - gap, title + max(panel.height for panel in panels))
    picture = Image.new("RGB", size, "white")
    brush = ImageDraw.Draw(picture)
    font = font_for(map(task_name, PANELS), title // 2)
    for place, (task, panel) in enumerate(zip(PANELS, panels, strict=True)):
        left = place * (side + gap)
        brush.text((left, title / 2), task_name(task), font=font, fill="#4b5563", anchor="lm")
        picture.paste(panel, (left, title))
    return picture.quantize(256, dither=Image.Dither.NONE)


def _one_for_each(scenes: Sequence[Scene]) -> Iterator[Scene]:
    """For each task, of the scenes not shown yet, the one with two or more regions whose answer is the surest."""
    left: list[Scene] = []
    for task in PANELS:
        left = left or list(scenes)
        yield left.pop(max(range(len(left)), key=lambda place: _sureness(left[place][1], task)))


def _sureness(answers: Sequence[of.Annotation], task: str) -> tuple[int, float]:
    """How many regions the answers hold, up to two, and the lowest label score among them (of masks: place score)."""
    regions = [region for answer in answers if answer.task == task for region in answer.regions]
    scores = [region.label_score or region.score or 0.0 for region in regions]
    return min(2, len(regions)), min(scores, default=0.0)


def main(target: Path, count: int = 12) -> None:
    """Writes the picture to TARGET, chosen from COUNT scenes."""
    sheet(look(of.Predictor.from_pretrained("tiny"), count)).save(target, optimize=True)


if __name__ == "__main__":
    typer.run(main)
