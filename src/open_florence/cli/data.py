"""`open-florence data`: a data set in one format to the same in another."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    from open_florence.schema import Sample


def data(
    source: Annotated[str, typer.Argument(help="A file or folder of any format; ending in #val, one part of it.")],
    out: Annotated[Path, typer.Argument(help="The file or folder to write; it must not exist or be an empty folder.")],
    to: Annotated[str, typer.Option("--to", help="The format to write: jsonl, voc, coco, yolo, ...")],
    origin: Annotated[
        str | None, typer.Option("--from", help="The format to read; told from the files unless given.")
    ] = None,
) -> None:
    """Write a data set in another format. What is wrong in it is left out and reported, a line each, on stderr.

    open-florence data cells/ cells.json --to coco
    """
    from open_florence.data import HELD_TASKS, WRITERS, read, write

    if to not in WRITERS:
        raise OpenFlorenceError(f"{to!r} is no format that can be written; there are {', '.join(WRITERS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OpenFlorenceError(f"{out} exists and is not an empty folder: choose another")
    if to == "jsonl" and not out.suffix:
        out = out / "annotations.jsonl"
    problems = Problems()
    samples = read(Path(source).absolute(), origin, on_error=problems)
    first = next(samples, None)
    if first is None:
        raise OpenFlorenceError(f"there is nothing to write: nothing in {source} could be read")
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: problems(str(message))
        write(out, counted(chain([first], samples), counts), to)
    images = counts.pop("")
    held = HELD_TASKS.get(to, counts.keys())
    print(f"{out} holds what {to} can of {images} {'image' if images == 1 else 'images'}: {_listed(counts, held)}")
    if counts.keys() - held:
        print(f"{to} has no place for: {_listed(counts, counts.keys() - held)}")
    if problems.count:
        print(f"{problems.count} {'problem was' if problems.count == 1 else 'problems were'} reported")


class Problems:
    """Prints each problem as a line on stderr, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, sentence: str) -> None:
        self.count += 1
        print(" ".join(sentence.split()), file=sys.stderr)


def counted(samples: Iterable[Sample], counts: Counter[str]) -> Iterator[Sample]:
    """The samples as they are; `counts` gets the number of annotations of each task, and of samples under ""."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} images"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for sample in progress.track(samples):
            counts[""] += 1
            counts.update(annotation.task for annotation in sample.annotations)
            yield sample


def _listed(counts: Counter[str], tasks: Iterable[str]) -> str:
    wanted = set(tasks)
    return ", ".join(f"{count} {task}" for task, count in counts.most_common() if task in wanted) or "no annotations"
