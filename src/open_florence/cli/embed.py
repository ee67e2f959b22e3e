"""`open-florence embed`: images, and texts, to unit vectors in one .npz file."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from open_florence.cli.options import DeviceOption, DType, DTypeOption, ModelOption
from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    from open_florence.inference.embedder import Embedder


def embed(
    images: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of images.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file that takes the vectors.")] = Path("embeddings.npz"),
    text: Annotated[
        list[str] | None, typer.Option("--text", "-t", help="A text to embed too; may be repeated.")
    ] = None,
    model: ModelOption = "tiny",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images at a time.")] = 16,
    device: DeviceOption = None,
    dtype: DTypeOption = None,
) -> None:
    """Turn images and texts into vectors: what is alike lies near. Texts need a model of the contrastive stage.

    open-florence embed photos --model runs/contrastive/checkpoint --text "a red circle" --out embeddings.npz
    """
    from open_florence.images import list_images

    if out.suffix != ".npz":
        raise OpenFlorenceError(f"embeddings are written to a .npz file, and {out.name!r} is none")
    if not images and not text:
        raise OpenFlorenceError("there is nothing to embed: name images, folders of images, or a --text")
    for given in images or []:
        if not given.exists():
            raise OpenFlorenceError(f"there is no image or folder {given}")
    paths = [path for given in images or [] for path in list_images(given)]
    embedder = load_embedder(model, device, dtype)
    embedder.batch_size = batch_size
    if not embedder.has_texts and not text:
        print(
            f"{model} was not trained to give embeddings: each is its mean visual token, good for near duplicates",
            file=sys.stderr,
        )
    arrays: dict[str, Any] = {}
    if text:
        arrays |= {"texts": text, "text_embeddings": embedder.texts(text)}
    if paths:
        arrays |= _embed_images(embedder, paths)
    _write(out, arrays)
    print(f"the vectors of {len(arrays.get('paths', []))} images and {len(text or [])} texts are in {out}")


def load_embedder(model: str, device: str | None, dtype: DType | None) -> Embedder:
    """The embedder of the options. Raises OpenFlorenceError for a model that cannot be had."""
    from open_florence.inference.embedder import Embedder

    return Embedder.from_pretrained(model, dtype=dtype.value if dtype else None, device=device)


def _embed_images(embedder: Embedder, paths: Sequence[Path]) -> dict[str, Any]:
    """The vectors of the images that can be read, their paths and their content ids; of the others a sentence each.

    Raises OpenFlorenceError when no image can be read.
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from open_florence.images import image_id, open_image

    console = Console(stderr=True)
    read: list[str] = []
    ids: list[str] = []
    rows: list[Any] = []
    size = embedder.batch_size
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    for batch in track(batches, "embedding", console=console, transient=True, disable=not console.is_terminal):
        opened = []
        for path in batch:
            try:
                image = open_image(path)
            except OpenFlorenceError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            opened.append(image)
            read.append(str(path))
            ids.append(image_id(image))
        if opened:
            rows.append(embedder.images(opened))
    if not rows:
        raise OpenFlorenceError(f"none of the {len(paths)} images can be read")
    return {"paths": read, "ids": ids, "image_embeddings": np.concatenate(rows)}


def _write(path: Path, arrays: dict[str, Any]) -> None:
    """Writes the file as a whole or not at all."""
    import numpy as np

    from open_florence.data.jsonl import write_whole

    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, [content.getvalue()])
