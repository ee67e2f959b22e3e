"""The records of a large JSON file one after the other, as far as the file is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from open_florence.data.json_stream import stream, stream_list
from open_florence.errors import OpenFlorenceError


def json_items(path: Path, key: str | None, on_error: Callable[[str], object]) -> Iterator[tuple[int, Any]]:
    """The elements of the list at `key` (None: of the list that is the whole file) with their number, from 1.

    Where the file is cut off or is no JSON, what stands before has been given and `on_error` is told; so it is when
    there are none. Raises OpenFlorenceError when the file cannot be opened.
    """
    number = 0
    records: Iterator[tuple[str | None, Any]]
    records = stream(path) if key is not None else ((None, element) for element in stream_list(path))
    try:
        for found, item in records:
            if found == key:
                number += 1
                yield number, item
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        on_error(f"{path} is left out after record {number}: {error!s:.300}")
        return
    if number == 0:
        on_error(f"{path} holds no records" + (f" at {key!r}" if key is not None else ""))
