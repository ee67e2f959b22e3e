"""`open-florence convert` and `evaluate`: what is done to a checkpoint as a whole."""

from __future__ import annotations

from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from open_florence.cli.options import (
    BackendOption,
    DeviceOption,
    DTypeOption,
    ModelOption,
    ViewsOption,
    load_predictor,
    with_views,
)
from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    import torch

SHOWN = 10
"""Sentences about records left out that are printed."""


class Layout(StrEnum):
    """The two published forms of a checkpoint."""

    NATIVE = "native"
    MICROSOFT = "microsoft"


def convert(
    checkpoint: Annotated[str, typer.Argument(help="tiny, a folder, or a name on the hub.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not exist or be empty.")],
    layout: Annotated[
        Layout,
        typer.Option("--layout", help="native: transformers' own Florence-2 class; microsoft: the original code."),
    ] = Layout.NATIVE,
) -> None:
    """Write a checkpoint in the other published layout, keeping its number format."""
    from open_florence.inference.calibration import Calibration
    from open_florence.inference.pretrained import find_folder, load_model, save_model

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OpenFlorenceError(f"{out} exists and is not an empty folder: choose another")
    dtype = _dtype_of(find_folder(checkpoint))
    model, processor = load_model(checkpoint)
    save_model(model, processor, out, layout.value, dtype, calibration=Calibration.load(find_folder(checkpoint)))
    print(f"{out} holds {checkpoint} in the {layout.value} layout")


def _dtype_of(folder: Path) -> torch.dtype | None:
    """The number format of a checkpoint's file, the widest where there are several; None for a LoRA adapter."""
    import torch

    from open_florence.model.checkpoint import read_weights

    if not (folder / "config.json").is_file():
        return None
    kinds = {tensor.dtype for tensor in read_weights(folder)[1].values() if tensor.is_floating_point()}
    return reduce(torch.promote_types, kinds)


def evaluate(
    model: ModelOption = "tiny",
    data: Annotated[
        str, typer.Option("--data", "-d", help="scenes:heldout, scenes:validation, or a path to data (docs/data.md).")
    ] = "scenes:heldout",
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help='Only these, as "OD,CAPTION"; all of the data if not given.'),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many images.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table to this .md or .json file.")] = None,
    views: ViewsOption = 1,
    device: DeviceOption = None,
    dtype: DTypeOption = None,
    backend: BackendOption = None,
) -> None:
    """Measure a model against data whose answers are known, and print the table."""
    from rich.console import Console

    from open_florence.tasks import find_task

    if out is not None and out.suffix not in (".md", ".json"):
        raise OpenFlorenceError(f"the table is written as .md or .json, not as {out.name!r}")
    names = [name for value in tasks or [] for name in value.split(",") if name.strip()]
    wanted = [find_task(name).token for name in names] or None
    whole = data.rpartition("#")[0] or data  # "refcoco#val" is a part of the data in refcoco
    if not data.startswith("scenes:") and not Path(data).exists() and not Path(whole).exists():
        raise OpenFlorenceError(
            f"there is no data {data!r}: give scenes:heldout, scenes:validation, a file or a folder"
        )
    from open_florence.evaluation import evaluate as measure

    table = measure(with_views(load_predictor(model, device, dtype, backend), views), data, limit=limit, tasks=wanted)
    console = Console()
    console.width = console.width if console.is_terminal else 140
    console.print(table)
    for problem in table.problems[:SHOWN]:
        typer.echo(problem, err=True)
    if len(table.problems) > SHOWN:
        typer.echo(f"and {len(table.problems) - SHOWN} more records left out; --out FILE.json names them all", err=True)
    if out is not None:
        try:
            table.save(out)
        except OSError as error:
            raise OpenFlorenceError(f"{out} cannot be written: {error.strerror or error}") from error
