"""Labels a folder of images with the checkpoint that ships in the package, without a network, and shows the result.

    python recipes/demo.py --out demo          # what `make demo` runs

Four steps: scenes are written as image files (from seeds that no model was trained on) and, as real input, parts of a
photograph of coins that scikit-image brings along; `annotate` asks the model about each of them, the report is written,
and a summary printed. Some questions need an answer first: which phrases of the model's own caption stand where, what
the boxes it found contain. `AskingOn` asks those; it is also an example of how `annotate` is used with something other
than a plain predictor.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import skimage.data
import typer
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

import open_florence as of
from open_florence.annotate import Ask, annotate
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import region_box
from open_florence.images import open_image
from open_florence.inference.generate import GenerationConfig
from open_florence.report import draw, write_report
from open_florence.report.fonts import font_for
from open_florence.report.marks import task_name
from open_florence.scenes import SceneConfig, make_scene

FIRST_SEED = 2**41
"""Beyond all seeds of training, validation and test (`scenes/config.py`)."""

QUESTIONS: list[Ask] = [
    "<CAPTION>",
    "<DETAILED_CAPTION>",
    "<OD>",
    "<DENSE_REGION_CAPTION>",
    "<REGION_PROPOSAL>",
    "<OCR_WITH_REGION>",
    ("<OPEN_VOCABULARY_DETECTION>", "circle<and>star"),
    ("<VQA>", "How many objects are there?"),
    ("<VQA>", "What colour is the background?"),
]
"""What is asked about every scene."""

PHOTO_QUESTIONS: list[Ask] = ["<OD>", "<REGION_PROPOSAL>"]
"""What is asked about a photograph: coins are round, and that much a model of shapes can say of them."""

COINS = ((0, 0, 192, 151), (0, 152, 192, 303), (96, 70, 288, 221))
"""Parts of the photograph, (left, top, right, bottom), with no more coins than a scene has objects."""

SURE = 0.5
"""A word is shown from this label score on. `tiny` reads the words that it knows, and guesses at all other strings."""

MOST_BOXES = 4
"""Boxes of an image that are asked about one by one."""

GENERATION = GenerationConfig(max_new_tokens=300)
"""More than any answer about a scene needs."""


@dataclass(frozen=True)
class AskingOn:
    """A predictor that asks on: about the caption it gave, and about the boxes it found."""

    predictor: of.Predictor

    @property
    def source(self) -> str:
        """What the annotations call their source."""
        return self.predictor.source

    def predict_batch(
        self, images: Sequence[Any], tasks: list[Ask], *, generation: GenerationConfig | None
    ) -> list[list[of.Annotation]]:
        """The answers to `tasks` and to the questions that follow from them, for each image."""
        settings = generation or GENERATION
        asked = [(image, PHOTO_QUESTIONS if is_photo(image) else tasks) for image in images]
        first = self.predictor.predict_each(asked, generation=settings)
        requests = [
            (image, [] if is_photo(image) else further_questions(answers))
            for image, answers in zip(images, first, strict=True)
        ]
        second = self.predictor.predict_each(requests, generation=settings)
        return [
            [without_guesses(answer) for answer in (*answers, *further)]
            for answers, further in zip(first, second, strict=True)
        ]


def is_photo(image: Image.Image) -> bool:
    """Whether an image is none of the demo's scenes, which are of one size."""
    return image.size != SceneConfig().extent


def without_guesses(answer: of.Annotation) -> of.Annotation:
    """The place of a word that was not read is kept, the guess is not."""
    if answer.task != "<OCR_WITH_REGION>":
        return answer
    regions = tuple(
        r if (r.label_score or 0) >= SURE else replace(r, label="text", label_score=None) for r in answer.regions
    )
    return replace(answer, regions=regions)


def further_questions(answers: Sequence[of.Annotation]) -> list[Ask]:
    """Where the caption's phrases are, what the boxes hold, the longest caption, one mask by words."""
    asks: list[Ask] = []
    for answer in answers:
        if answer.task == "<DETAILED_CAPTION>" and answer.text:
            asks.append(("<CAPTION_TO_PHRASE_GROUNDING>", answer.text))
        if answer.task == "<OD>":
            for region in answer.regions[:MOST_BOXES]:
                asks += [("<REGION_TO_DESCRIPTION>", region), ("<REGION_TO_SEGMENTATION>", region)]
        if answer.task == "<OCR_WITH_REGION>":
            # The longest caption says what the words read, and should not repeat a guess.
            read = all((region.label_score or 0) >= SURE for region in answer.regions)
            asks += ["<MORE_DETAILED_CAPTION>"] if read else []
        if answer.task == "<DENSE_REGION_CAPTION>":
            seen = Counter(region.label for region in answer.regions)
            if once := [label for label, count in seen.items() if count == 1 and label]:
                asks.append(("<REFERRING_EXPRESSION_SEGMENTATION>", f"the {once[0]}"))
    return asks


def write_images(folder: Path, count: int) -> None:
    """Writes the first `count` scenes of the demo and the parts of the photograph as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    coins = Image.fromarray(skimage.data.coins())
    for number, part in enumerate(COINS, start=1):
        coins.crop(part).save(folder / f"coins-{number}.png")
    for number in range(count):
        scene = make_scene(FIRST_SEED + number, SceneConfig())
        Image.fromarray(scene.image).save(folder / f"scene-{number + 1:02d}.png")


PANELS = ("<OD>", "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_SEGMENTATION>", "<OCR_WITH_REGION>")
"""The tasks of the picture in the README."""


def write_picture(annotated: Path, target: Path, side: int = 440, gap: int = 20, title: int = 34) -> None:
    """One picture of four annotated images side by side, each under the name of the task whose answers it shows.

    For each task it is the image, not shown yet, whose answer is the surest: what works, not what is typical.
    """
    samples = list(of.read(annotated))
    panels: list[Image.Image] = []
    for task, sample in zip(PANELS, _one_for_each(PANELS, samples), strict=True):
        answers = [answer for answer in sample.annotations if answer.task == task]
        panel = draw(open_image(sample.path), answers)
        panels.append(panel.resize((side, round(panel.height * side / panel.width)), Image.Resampling.LANCZOS))
    size = (len(panels) * (side + gap) - gap, title + max(panel.height for panel in panels))
    sheet = Image.new("RGB", size, "white")
    brush = ImageDraw.Draw(sheet)
    font = font_for(map(task_name, PANELS), title // 2)
    for place, (task, panel) in enumerate(zip(PANELS, panels, strict=True)):
        left = place * (side + gap)
        brush.text((left, title / 2), task_name(task), font=font, fill="#4b5563", anchor="lm")
        sheet.paste(panel, (left, title))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def _one_for_each(tasks: Sequence[str], samples: Sequence[of.Sample]) -> Iterator[of.Sample]:
    """For each task, of the images not shown yet, the one with two or more regions whose answer is the surest."""
    left: list[of.Sample] = []
    for task in tasks:
        left = left or list(samples)
        surest = max(range(len(left)), key=lambda place: _sureness(left[place], task))
        yield left.pop(surest)


def _sureness(sample: of.Sample, task: str) -> tuple[int, float]:
    """How many regions the answers hold, up to two, and the lowest label score among them (of masks: place score)."""
    regions = [region for answer in sample.annotations if answer.task == task for region in answer.regions]
    scores = [region.label_score or region.score or 0.0 for region in regions]
    return min(2, len(regions)), min(scores, default=0.0)


def print_summary(samples: Sequence[of.Sample], seconds: float, page: Path) -> None:
    """What was done in ten lines."""
    answers = [answer for sample in samples for answer in sample.annotations]
    caption = next((a.text for a in answers if a.task == "<DETAILED_CAPTION>" and a.text), "none")
    found = [region for answer in answers if answer.task == "<OD>" for region in answer.regions]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("images", f"{len(samples)}, {len(samples) / seconds:.2g} a second")
    table.add_row("answers", f"{len(answers)} to {len({answer.task for answer in answers})} tasks")
    table.add_row("regions", str(sum(len(answer.regions) for answer in answers)))
    table.add_row("a caption", caption[:300])
    if found:
        corners = ", ".join(f"{value:.0f}" for value in region_box(found[0].parts))
        score = "" if found[0].label_score is None else f", label score {found[0].label_score:.2f}"
        table.add_row("a detection", f"{found[0].label} at ({corners}){score}")
    table.add_row("annotations", str(page.parents[1] / "annotations.jsonl"))
    table.add_row("the page", f"[bold]{page}[/bold]")
    Console(soft_wrap=True).print(table)


def main(
    out: Annotated[Path, typer.Option(help="Where images, annotations and the page go.")] = Path("demo"),
    model: Annotated[str, typer.Option(help="tiny, a folder, or a hub name.")] = "tiny",
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 12,
    picture: Annotated[Path | None, typer.Option(help="Also write the picture of the README here.")] = None,
) -> None:
    """Label a folder of images offline and write a page that shows the result."""
    images, labels = out / "images", out / "labels"
    write_images(images, count)
    predictor = of.Predictor.from_pretrained(model)
    started = time.monotonic()
    tally = annotate(images, QUESTIONS, labels, AskingOn(predictor), checkpoint=model, restart=True)
    if tally.failed:
        raise OpenFlorenceError(f"{tally.failed} images could not be annotated: see {labels / 'failed.jsonl'}")
    seconds = time.monotonic() - started
    page = write_report(labels)
    print_summary(list(of.read(labels)), seconds, page)
    if picture is not None:
        write_picture(labels, picture)


if __name__ == "__main__":
    try:
        typer.run(main)
    except OpenFlorenceError as error:
        raise SystemExit(f"demo: {error}") from None
