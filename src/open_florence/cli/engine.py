"""`open-florence engine`: from a folder of images to audited labels and a model that was trained on them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from open_florence.cli.annotate import LOG_EVERY

if TYPE_CHECKING:
    from rich.progress import TaskID

engine = typer.Typer(
    name="engine",
    no_args_is_help=True,
    help="Label images by specialists, filter, train, label again, audit: round by round.",
)

SENTENCES = 10
"""Reasons and warnings that are printed after a round; status has all."""

Folder = Annotated[Path, typer.Argument(metavar="LABELS", help="The engine's folder.")]
RoundOption = Annotated[
    int | None, typer.Option("--round", min=1, help="A finished round; the last promoted unless given.")
]


@engine.command()
def init(
    labels: Folder,
    images: Annotated[list[str], typer.Option("--images", help="A folder, file or address; may be repeated.")],
    ontology: Annotated[
        Path | None, typer.Option("--ontology", help="An ontology (.toml), or a text file with a class a line.")
    ] = None,
    human: Annotated[
        Path | None, typer.Option("--human", help="Human labels, in any format of `data`: audit split and specialist.")
    ] = None,
) -> None:
    """Begin: write LABELS/engine.toml, which says who annotates and what is trained, and LABELS/ontology.toml.

    open-florence engine init LABELS --images photos/ --ontology classes.toml
    """
    from open_florence.data_engine.engine import init as begin

    path = begin(labels, images, ontology, human)
    print(f"what the engine does stands in {path}: change it as you like, then open-florence engine run {labels}")


@engine.command()
def run(
    labels: Folder,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How many rounds, the begun one among them.")] = 1,
    until: Annotated[
        str | None, typer.Option("--until-step", help="Stop after this step: annotate, filter, enhance, train, ...")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Begin a round although the last was not promoted.")] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Close the round that was begun, and begin the next.")
    ] = False,
) -> None:
    """Do the next round, or go on with the one that was begun. Stopped or killed, the same command goes on."""
    from open_florence.data_engine.engine import Engine

    with Progress() as progress:
        try:
            work = Engine(labels, show=progress, say=progress.say)
            manifests = work.run(rounds, until, force=force, abandoned=abandon)
        except KeyboardInterrupt:
            progress.stop()
            print("open-florence: stopped; the same command goes on from there", file=sys.stderr)
            raise
    for manifest in manifests:
        print(f"round {manifest['round']} is {'promoted' if manifest['promoted'] else 'not promoted'}:")
        told = [*manifest["reasons"], *manifest["warnings"]]
        for sentence in told[:SENTENCES]:
            print(f"  {sentence}")
        if len(told) > SENTENCES:
            print(f"  ... and {len(told) - SENTENCES} more")
    if not manifests:
        print(f"the round stopped after the step {until}")
    print(f"see open-florence engine status {labels}")


@engine.command()
def status(
    labels: Folder,
    everything: Annotated[bool, typer.Option("--all", help="Whole tables, and every reason by itself.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Rounds, counts by level, task, class and source, what was dropped or failed and why, audit and drift."""
    from open_florence.data_engine.status import show
    from open_florence.data_engine.status import status as look

    found = look(labels)
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else show(found, everything))


@engine.command()
def review(
    labels: Folder,
    verdicts: Annotated[
        Path | None, typer.Option("--verdicts", help="Take in what a person said: the page's file, or an export.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Claims to judge.")] = 200,
    whole_images: Annotated[
        bool, typer.Option("--whole-images", help="COUNT images with all their claims: needed for recall.")
    ] = False,
    label_studio: Annotated[
        Path | None, typer.Option("--label-studio", help="Write tasks for Label Studio to this .json instead.")
    ] = None,
    number: RoundOption = None,
) -> None:
    """Write a page to judge what is most worth judging; then take the verdicts in with --verdicts."""
    from open_florence.data_engine.engine import ONTOLOGY
    from open_florence.data_engine.export import choose_round
    from open_florence.data_engine.ontology import Ontology
    from open_florence.data_engine.review.reviewing import take_verdicts, write_label_studio, write_page

    chosen = choose_round(labels, number)
    if verdicts is not None:
        taken = take_verdicts(labels, chosen, verdicts, lambda sentence: print(sentence, file=sys.stderr))
        if taken.again:
            print("these verdicts were taken in already")
        else:
            print(f"{taken.verdicts} verdicts taken in: the next round takes them for the truth")
        return
    if label_studio is not None:
        claims, left_out = write_label_studio(labels, chosen, label_studio, count)
        print(f"{claims - left_out} claims are in {label_studio}, {left_out} have no place there")
        return
    path = labels / ONTOLOGY
    classes = Ontology.load(path).names if path.exists() else ()
    page, claims = write_page(labels, chosen, count, whole_images=whole_images, classes=classes)
    print(f"{claims} claims to judge are in {page}; then open-florence engine review {labels} --verdicts FILE")


@engine.command()
def export(
    labels: Folder,
    to: Annotated[str, typer.Option("--format", "-f", help="coco, yolo, jsonl, label-studio, voc, icdar or parquet.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file or folder to write; inside LABELS/export unless given.")
    ] = None,
    number: RoundOption = None,
) -> None:
    """Write the labels of the last promoted round, or of another, in a format of others."""
    from open_florence.data_engine.export import default_place
    from open_florence.data_engine.export import export as write

    place = out or default_place(labels, to)
    chosen = write(labels, place, to, number)
    print(f"the labels of round {chosen.number} are in {place}")


class Progress:
    """A bar for every step on stderr; without a terminal, a line now and then."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._rows: dict[str, TaskID] = {}
        self._logged = time.monotonic()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Takes in how far a step is."""
        if step not in self._rows:
            self._rows[step] = self._bar.add_task(step, total=total)
        self._bar.update(self._rows[step], completed=done, total=total)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._logged >= LOG_EVERY):
            self._logged = now
            print(f"{step}: {done} of {total}", file=sys.stderr, flush=True)

    def say(self, sentence: str) -> None:
        """A sentence above the bars."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Takes the bars off the terminal's last lines, so that a sentence can follow them."""
        self._bar.stop()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
