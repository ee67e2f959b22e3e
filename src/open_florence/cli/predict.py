"""`open-florence predict`: answers about a few images, printed."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from open_florence.cli.options import (
    BackendOption,
    ConstrainedOption,
    DeviceOption,
    DTypeOption,
    LengthOption,
    ModelOption,
    NmsOption,
    OverlapOption,
    PublishedOption,
    ThresholdOption,
    TileOption,
    generation_settings,
    load_predictor,
    parse_tasks,
    selection_settings,
    with_tiles,
)
from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    from open_florence.schema import Annotation, Region, Sample


class Format(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    task: Annotated[
        list[str], typer.Option("--task", "-t", help="What to ask; may be repeated. See `open-florence tasks`.")
    ] = ["OD"],  # noqa: B006
    query: Annotated[
        str | None, typer.Option("--query", "-q", help="The words, or the region x1,y1,x2,y2, that a task needs.")
    ] = None,
    model: ModelOption = "tiny",
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print the answers.")] = Format.TABLE,
    draw: Annotated[
        Path | None, typer.Option("--draw", help="A folder for the images with the answers drawn on them.")
    ] = None,
    published: PublishedOption = False,
    constrained: ConstrainedOption = False,
    max_new_tokens: LengthOption = None,
    threshold: ThresholdOption = 0.0,
    nms: NmsOption = None,
    tile: TileOption = None,
    overlap: OverlapOption = 0.2,
    device: DeviceOption = None,
    dtype: DTypeOption = None,
    backend: BackendOption = None,
) -> None:
    """Ask about images and print the answers.

    open-florence predict photo.jpg --task CAPTION --task "OPEN_VOCABULARY_DETECTION:red car"
    """
    from open_florence.images import image_id, list_images, open_image
    from open_florence.schema import Sample
    from open_florence.selection import sum_removed

    asked = parse_tasks(task, query)
    selection = selection_settings(threshold, nms)
    for given in images:
        if not given.exists():
            raise OpenFlorenceError(f"there is no image or folder {given}")
    paths = [path for given in images for path in list_images(given)]
    if draw is not None:
        _make_folder(draw)
    predictor = with_tiles(load_predictor(model, device, dtype, backend), tile, overlap)
    unreadable: list[str] = []
    samples: list[Sample] = []
    removed = []
    for path in paths:
        try:
            image = open_image(path)
        except OpenFlorenceError as error:
            unreadable.append(str(error))
            continue
        answers = predictor.predict(
            image, list(asked), generation=generation_settings(published, max_new_tokens, constrained)
        )
        if selection is not None:
            answers, gone = selection.apply_all(answers)
            removed.append(gone)
        size = (float(image.width), float(image.height))
        sample = Sample(image_id(image), str(path), size, tuple(answers))
        if draw is not None:
            _draw(image, sample, draw)
        if format is Format.TABLE:
            print_table(sample)
        elif format is Format.JSONL:
            print(json.dumps(sample.to_json(), ensure_ascii=False), flush=True)
        else:
            samples.append(sample)
    if format is Format.JSON:
        print(json.dumps([sample.to_json() for sample in samples], indent=2, ensure_ascii=False))
    if selection is not None:
        print(selection.say(sum_removed(removed)), file=sys.stderr)
    if unreadable:
        raise OpenFlorenceError("; ".join(unreadable))


def print_table(sample: Sample) -> None:
    """A sample's answers as a table on stdout: a row for each text and each region."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        *("task", "answer", "score", "where (pixels)", "place score"),
        title=Text(sample.path, overflow="fold"),
        title_justify="left",
    )
    for annotation in sample.annotations:
        for row in rows(annotation):
            table.add_row(*(Text(cell, overflow="fold") for cell in row))
        table.add_section()
    console = Console()
    console.width = console.width if console.is_terminal else 120
    console.print(table)


def rows(annotation: Annotation) -> list[tuple[str, str, str, str, str]]:
    """(task and query, answer, its score, where, the place's score) of everything an annotation says."""
    task = annotation.task
    if isinstance(annotation.query, str) and annotation.query != annotation.text:
        task += f" {annotation.query}"
    elif annotation.query is not None and not isinstance(annotation.query, str):
        task += f" {_where(annotation.query)}"
    found = [
        (region.label, _score(region.label_score), _where(region), _score(region.score))
        for region in annotation.regions
    ]
    if annotation.text and not any(region.span for region in annotation.regions):
        found.insert(0, (annotation.text, _score(annotation.score), "", ""))
    found = found or [("(nothing)", _score(annotation.score), "", "")]
    if not annotation.complete:
        found.append(("(incomplete: the answer was cut short or part of it could not be read)", "", "", ""))
    return [(task if number == 0 else "", *row) for number, row in enumerate(found)]


def _where(region: Region) -> str:
    if region.kind == "polygon":
        points = [point for part in region.parts for point in part]
        low, high = (tuple(edge(axis) for axis in zip(*points, strict=True)) for edge in (min, max))
        return f"{_numbers(low)} {_numbers(high)} (outline of {len(points)} points)" if points else ""
    return " ".join(_numbers(point) for point in region.parts[0])


def _numbers(point: tuple[float, ...]) -> str:
    return ",".join(f"{value:.0f}" for value in point)


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpenFlorenceError(f"the folder {folder} cannot be made: {error.strerror}") from None


def _draw(image: Any, sample: Sample, folder: Path) -> None:
    """Writes the picture under a name that no image of the user has, and says where it is."""
    from open_florence.report import draw

    target = folder / f"{Path(sample.path).name}.annotated.png"
    try:
        draw(image, sample.annotations).save(target)
    except OSError as error:
        raise OpenFlorenceError(f"{target} cannot be written: {error.strerror or error}") from error
    print(f"drawn: {target}", file=sys.stderr)
