"""Our own format: one sample a line of JSON, as `Sample.to_json` writes it.

A line counts when its newline has been written. A last line without one that does not parse is what a crash leaves
behind: it is passed over in silence. Any other line that is no sample is reported with its number.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample


def read_jsonl(path: Path, on_error: Callable[[str], object]) -> Iterator[Sample]:
    """Samples in the order of the file; `on_error` is told of every line that is none.

    A relative path of an image is taken from the file's folder if the image is there, and is else left as written.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be read: {error.strerror}") from None
    folder = os.fspath(path.parent)
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                sample = Sample.from_json(json.loads(line))
            except ValueError as error:
                if line.endswith(b"\n"):
                    on_error(f"{path}, line {number}, is left out: {error!s:.300}")
                continue
            yield _located(sample, folder)


def write_jsonl(path: Path, samples: Iterable[Sample]) -> None:
    """Writes the samples as they come; the file takes the place of an older one when the last is on the disk."""
    write_whole(path, (line_of(sample.to_json()) for sample in samples))


def line_of(record: dict[str, Any]) -> bytes:
    """One line of JSON with its newline, in UTF-8, words of any language readable as they are.

    Characters that some readers take for the end of a line, and file names that are not UTF-8, are written as escapes.
    """
    text = json.dumps(record, ensure_ascii=False)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = b""
    if not data or len(text.splitlines()) > 1:
        data = json.dumps(record).encode()
    return data + b"\n"


def write_whole(path: Path, lines: Iterable[bytes]) -> None:
    """Writes a file so that it is there whole or not at all: to a temporary file beside it, synced, then renamed.

    Raises OpenFlorenceError when the disk or the folder refuses it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for line in lines:
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _located(sample: Sample, folder: str) -> Sample:
    beside = os.path.join(folder, sample.path)  # strings: pathlib interns every name it has ever seen
    if os.path.isabs(sample.path) or not os.path.isfile(beside):
        return sample
    return replace(sample, path=beside)
