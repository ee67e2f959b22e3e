"""`open-florence annotate` and `report`: a folder of images to an annotated folder, and that to a page to look at."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    ViewsOption,
    generation_settings,
    load_predictor,
    parse_tasks,
    selection_settings,
    with_tiles,
    with_views,
)
from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    from open_florence.annotate import Tally

MOST_WORKERS = 8
"""More processes than that open images faster than a model takes them."""

LOG_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


def annotate(
    folder: Annotated[Path, typer.Argument(help="A folder of images; folders inside it are searched too.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that takes the annotations.")],
    tasks: Annotated[
        list[str],
        typer.Option("--tasks", "-t", help='What to ask, as "OD,CAPTION"; may be repeated; a query as TASK:query.'),
    ] = ["OD", "CAPTION"],  # noqa: B006
    model: ModelOption = "tiny",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images encoded at a time.")] = 8,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=0, help="Processes that open images; by the cores unless given."),
    ] = None,
    published: PublishedOption = False,
    constrained: ConstrainedOption = False,
    max_new_tokens: LengthOption = None,
    threshold: ThresholdOption = 0.0,
    nms: NmsOption = None,
    views: ViewsOption = 1,
    tile: TileOption = None,
    overlap: OverlapOption = 0.2,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what OUT holds and begin again.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write OUT/report/index.html at the end.")] = False,
    device: DeviceOption = None,
    dtype: DTypeOption = None,
    backend: BackendOption = None,
) -> None:
    """Label a folder of images, safely: stopped or killed, the same command goes on where it was.

    open-florence annotate photos --tasks OD,CAPTION --out labels --report
    """
    from open_florence.annotate import annotate as annotate_images
    from open_florence.images import list_images

    asked = parse_tasks(tasks)
    selection = selection_settings(threshold, nms)
    paths = list_images(folder)
    predictor = with_tiles(with_views(load_predictor(model, device, dtype, backend), views), tile, overlap)
    with Progress() as progress:
        try:
            tally = annotate_images(
                paths,
                asked,
                out,
                predictor,
                batch_size,
                workers=_workers() if workers is None else workers,
                checkpoint=os.path.abspath(model) if Path(model).is_dir() else model,
                generation=generation_settings(published, max_new_tokens, constrained),
                selection=selection,
                restart=restart,
                on_progress=progress,
            )
        except KeyboardInterrupt:
            progress.stop()
            print(
                f"open-florence: stopped with {_annotated(out)} of {len(paths)} images annotated in {out}; "
                "the same command goes on from there",
                file=sys.stderr,
            )
            raise
    print(progress.summary(tally))
    if selection is not None:
        print(selection.say(tally.removed))
    if tally.failed:
        print(f"{tally.failed} could not be annotated: the reasons are in {out / 'failed.jsonl'}")
    if tally.done + tally.before == 0:
        with (out / "failed.jsonl").open("rb") as lines:
            reason = json.loads(next(lines))["reason"]
        raise OpenFlorenceError(f"none of the {tally.total} images could be annotated, the first because {reason}")
    print(f"the annotations are in {out / 'annotations.jsonl'}")
    if report:
        _write_report(out)


def report(folder: Annotated[Path, typer.Argument(help="A folder that `annotate` has written.")]) -> None:
    """Write a page that shows every image of an annotated folder with its annotations drawn on it."""
    _write_report(folder)


def _workers() -> int:
    """Processes that open images: one core is left to the model."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores - 1)


def _annotated(out: Path) -> int:
    """Images that have their line; the last tally may lack a batch that was just being synced."""
    try:
        with (out / "annotations.jsonl").open("rb") as lines:
            return sum(line.endswith(b"\n") for line in lines)
    except FileNotFoundError:
        return 0


def _write_report(folder: Path) -> None:
    from open_florence.report import write_report

    try:
        print(f"the report is {write_report(folder)}")
    except OSError as error:
        raise OpenFlorenceError(f"the report in {folder} cannot be written: {error.strerror or error}") from error


class Progress:
    """A bar on stderr with counts and images per second; without a terminal, a line now and then."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.tally: Tally | None = None
        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("annotating"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._row = self._bar.add_task("annotate", total=None, speed="")
        self._started = self._logged = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        """Takes in how far the run has come."""
        if self.tally is None:  # what earlier runs did must not count as this one's speed
            self._bar.reset(self._row, total=tally.total, completed=tally.before)
        self.tally = tally
        done = tally.before + tally.done + tally.failed
        speed = f"{self._speed(tally):.1f} images/s" + (f", {tally.failed} failed" if tally.failed else "")
        self._bar.update(self._row, total=tally.total, completed=done, speed=speed)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._logged >= LOG_EVERY:
            self._logged = now
            print(f"annotating: {done} of {tally.total}, {speed}", file=sys.stderr, flush=True)

    def summary(self, tally: Tally) -> str:
        """The run in one line."""
        before = f", {tally.before} were already" if tally.before else ""
        return f"{tally.done} images annotated, {self._speed(tally):.1f} images/s{before}"

    def stop(self) -> None:
        """Takes the bar off the terminal's last line, so that a sentence can follow it."""
        self._bar.stop()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _speed(self, tally: Tally) -> float:
        return (tally.done + tally.failed) / max(time.monotonic() - self._started, 1e-9)
