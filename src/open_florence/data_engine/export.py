"""The labels of a round as samples, and in the formats of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from open_florence.data import WRITERS, write
from open_florence.data.store import Store
from open_florence.data_engine.closing import last_promoted
from open_florence.data_engine.round_folder import RoundFolder, rounds
from open_florence.data_engine.work import slices
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample

FORMATS = (*(name.replace("_", "-") for name in WRITERS), "parquet")
"""What can be exported; parquet holds everything that the store knows, not the labels alone."""

BLOCK = 512


def choose_round(labels: Path, number: int | None = None) -> RoundFolder:
    """The round asked for, or the last that was promoted. Raises OpenFlorenceError where there is none, or no end."""
    if number is None:
        last = last_promoted(labels)
        if last is None:
            raise OpenFlorenceError(f"no round of {labels} was promoted yet: see open-florence engine status {labels}")
        return last
    for one in rounds(labels):
        manifest = one.manifest()
        if one.number == number and manifest and manifest["labels"]:
            return one
    raise OpenFlorenceError(f"{labels} has no finished round {number}: see open-florence engine status {labels}")


def labelled(store: Store, chosen: RoundFolder) -> Iterator[Sample]:
    """The images of a finished round with its labels, in the order of their ids; paths are files on this machine.

    An image whose file has gone keeps the path that the store knows.
    """
    manifest = chosen.manifest() or {}
    at = manifest["tag"]
    for part in slices(chosen.images(), BLOCK):
        said: dict[str, list[tuple[str, Annotation]]] = {}
        rows = store.rows(image=part, step=manifest["labels"], round=chosen.number, status="kept", at=at)
        for row in rows:
            said.setdefault(row.image, []).append((row.id, row.annotation))
        images = {row.id: row for row in store.images(ids=part, at=at)}
        for image in part:
            picture = images[image]
            found = tuple(annotation for _, annotation in sorted(said.get(image, ()), key=lambda one: one[0]))
            sample = Sample(image, picture.path, picture.size, found)
            try:
                yield replace(sample, path=str(store.open(picture)))
            except OpenFlorenceError:
                yield sample


def export(labels: Path, out: Path, format: str, number: int | None = None) -> RoundFolder:
    """Writes the labels of a round, the last promoted unless `number` says which, and returns the round.

    Raises OpenFlorenceError for a format there is not, a round that is not finished, or where `out` is in use.
    """
    if format not in FORMATS:
        raise OpenFlorenceError(f"{format!r} is no format to export to; there are {', '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OpenFlorenceError(f"{out} exists and is not an empty folder: choose another with --out")
    chosen = choose_round(labels, number)
    store = Store(labels / "store")
    if format == "parquet":
        store.to_parquet(out, at=(chosen.manifest() or {})["tag"])
    else:
        write(out, labelled(store, chosen), format.replace("-", "_"))
    return chosen


def default_place(labels: Path, format: str) -> Path:
    """Where an export goes unless said otherwise."""
    suffix = {"jsonl": ".jsonl", "coco": ".json", "label-studio": ".json"}.get(format, "")
    return labels / "export" / f"{format}{suffix}"
