"""Samples from files and to files: `read` and `write`, and the table of formats they know.

| format | read from | written to |
|---|---|---|
| jsonl | a .jsonl file, or a folder that holds annotations.jsonl | a file |
| voc | a folder of Pascal VOC files (.xml), with or without images beside it | a folder |
| icdar | a folder of text quads as in ICDAR 2015 or SROIE (.txt, .csv), images beside it | a folder |

A format of your own is a row in `READERS` and `WRITERS`: `READERS["mine"] = my_reader`, then `read(path, "mine")`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import TypeVar

from open_florence.data.icdar import looks_like_icdar, read_icdar, write_icdar
from open_florence.data.jsonl import read_jsonl, write_jsonl
from open_florence.data.voc import read_voc, write_voc
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample

__all__ = ["READERS", "SIGNS", "WRITERS", "read", "write"]

OnError = Callable[[str], object]
"""Told one sentence, with file and line, for each record or box that is left out."""

READERS: dict[str, Callable[[Path, OnError], Iterator[Sample]]] = {
    "jsonl": read_jsonl,
    "voc": read_voc,
    "icdar": read_icdar,
}
WRITERS: dict[str, Callable[[Path, Iterable[Sample]], None]] = {
    "jsonl": write_jsonl,
    "voc": write_voc,
    "icdar": write_icdar,
}

SIGNS: dict[str, Callable[[Path], bool]] = {
    "jsonl": lambda path: path.suffix == ".jsonl" or (path / "annotations.jsonl").is_file(),
    "voc": lambda path: path.is_dir() and next(path.glob("**/*.xml"), None) is not None,
    "icdar": looks_like_icdar,
}
"""Whether a path looks like a format, by the names of files or the head of one; the first that says so is it."""


def read(path: str | PathLike[str], format: str | None = None, on_error: OnError = warnings.warn) -> Iterator[Sample]:
    """The samples of a file or folder, one after the other: memory does not grow with their number.

    `format` is a row of `READERS`; None tells it from the path. What cannot be read is left out and `on_error` is told
    why: by default a warning each; `problems.append` collects them; a function that raises stops the reading. Raises
    OpenFlorenceError when the path does not exist or is of no format known here.
    """
    source = Path(path)
    if not source.exists():
        raise OpenFlorenceError(f"there is no file or folder {source}")
    if format is None:
        format = _format_of(source)
    if source.is_dir() and format == "jsonl":
        source = source / "annotations.jsonl"
    return _row(READERS, format)(source, on_error)


def write(path: str | PathLike[str], samples: Iterable[Sample], format: str | None = None) -> None:
    """Writes samples: to one .jsonl file, or to a folder of VOC files when `path` has no such suffix.

    A file appears whole or not at all: a crash in the middle leaves what was there before. `format` is a row of
    `WRITERS`; None tells it from the path. Raises OpenFlorenceError when it cannot be written.
    """
    target = Path(path)
    _row(WRITERS, format or ("jsonl" if target.suffix == ".jsonl" else "voc"))(target, samples)


def _format_of(source: Path) -> str:
    for format, looks_like in SIGNS.items():
        if looks_like(source):
            return format
    raise OpenFlorenceError(f"{source} looks like none of the formats {', '.join(SIGNS)}; if it is one, name it")


Row = TypeVar("Row")


def _row(table: dict[str, Row], format: str) -> Row:
    if format not in table:
        raise OpenFlorenceError(f"there is no format {format!r}; there are {', '.join(table)}")
    return table[format]
