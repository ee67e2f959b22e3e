"""`open-florence scenes`: images whose every label is known, as PNG files and annotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    from open_florence.schema import Sample


def scenes(
    out: Annotated[Path, typer.Argument(help="The folder to write: annotations.jsonl, and the images in images/.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 16,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="The first one's seed; the next have the next.")] = 0,
    size: Annotated[int, typer.Option("--size", help="Pixels a side.")] = 160,
    sprites: Annotated[
        Path | None, typer.Option("--sprites", help="A folder of RGBA cut-outs named by class, used as the objects.")
    ] = None,
) -> None:
    """Make images of known content, with exact annotations of every task."""
    from rich.console import Console
    from rich.progress import track

    from open_florence.data import write
    from open_florence.scenes import SceneConfig, make_scene

    annotations = out / "annotations.jsonl"
    if annotations.exists():
        raise OpenFlorenceError(f"{annotations} exists already: choose another folder")
    config = SceneConfig(size=size, sprites=None if sprites is None else str(sprites))
    make_scene(seed, config)  # a mistake in the settings shows here, before anything is written

    def samples() -> Iterator[Sample]:
        from PIL import Image

        seeds = range(seed, seed + count)
        console = Console(stderr=True)
        for number in track(seeds, "making scenes", console=console, transient=True, disable=not console.is_terminal):
            scene = make_scene(number, config)
            path = f"images/{number:06d}.png"  # relative to annotations.jsonl, so that the folder can be moved
            Image.fromarray(scene.image).save(out / path)
            yield replace(scene.sample, path=path)

    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpenFlorenceError(f"the folder {out} cannot be written: {error.strerror}") from None
    write(annotations, samples())
    print(f"{count} scenes are in {out}")
