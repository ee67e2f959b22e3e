"""The images of a store: their rows, the bytes that were taken in, and a file on this machine for each of them.

An image stays where it is (a path, a URI) or is taken in: its bytes then lie in a table of their own that only grows,
so that an image is read by its place there, however many there are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from urllib.request import urlopen

from open_florence.data.jsonl import write_whole
from open_florence.data.store_rows import marker_fields, with_marker
from open_florence.data.store_table import arrow
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Size

IMAGE_STATUSES = ("ok", "quarantined", "duplicate")
TIMEOUT = 60.0
"""Seconds that a server may be silent."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One line of the images table; never changed after it is written."""

    id: str
    """`Sample.id`."""
    path: str
    """A path on this machine or a URI: http, https, file. Where it came from, when its bytes were taken in."""
    size: Size = ()
    phash: int = 0
    """A perceptual hash of 64 bits."""
    status: str = "ok"
    """One of `IMAGE_STATUSES`: quarantined is what cannot be read."""
    reason: str = ""
    taken: int | None = None
    """Where the store keeps its bytes, None where it does not; given by the store."""


@cache
def image_schema() -> Any:
    """The columns of images.lance. `path_bytes` is null but for paths that are not UTF-8."""
    pa = arrow()
    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),
            ("path_bytes", pa.binary()),
            ("size", pa.list_(pa.float64())),
            ("phash", pa.uint64()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("taken", pa.uint64()),
            *marker_fields(),
        ]
    )


@cache
def bytes_schema() -> Any:
    """The columns of bytes.lance: the file of an image as it was."""
    pa = arrow()
    return pa.schema([("image", pa.string()), ("data", pa.large_binary()), *marker_fields()])


def image_table(shard: str, rows: Sequence[ImageRow], taken: Mapping[str, int]) -> Any:
    """The shard as an Arrow table of `image_schema`; `taken`: image -> where its bytes are."""
    for row in rows:
        if row.status not in IMAGE_STATUSES or not row.id:
            raise OpenFlorenceError(
                f"an image has an id, and its status is one of {', '.join(IMAGE_STATUSES)}, unlike {row}"
            )
    names = [(row.path, os.fsencode(row.path).decode("utf-8", "replace")) for row in rows]
    columns = {
        "id": [row.id for row in rows],
        "path": [readable for _, readable in names],
        "path_bytes": [None if path == readable else os.fsencode(path) for path, readable in names],
        "size": [row.size for row in rows],
        "phash": [row.phash for row in rows],
        "status": [row.status for row in rows],
        "reason": [row.reason for row in rows],
        "taken": [taken.get(row.id) for row in rows],
    }
    return with_marker(columns, image_schema(), shard, len(rows), None)


def bytes_table(shard: str, data: Mapping[str, bytes]) -> Any:
    """The shard as an Arrow table of `bytes_schema`."""
    columns = {"image": list(data), "data": list(data.values())}
    return with_marker(columns, bytes_schema(), shard, len(data), None)


def image_rows(batch: Any) -> Iterator[ImageRow]:
    """The rows of an Arrow batch of `image_schema`, without markers."""
    for line in batch.to_pylist():
        path = line["path"] if line["path_bytes"] is None else os.fsdecode(line["path_bytes"])
        yield ImageRow(
            line["id"], path, tuple(line["size"]), line["phash"], line["status"], line["reason"], line["taken"]
        )


def is_uri(path: str) -> bool:
    """Whether it is a URI and no path."""
    return path.startswith(("http://", "https://", "file://"))


def from_uri(uri: str, cache_folder: Path) -> Path:
    """The file of a URI, downloaded once; raises OpenFlorenceError when it cannot be had."""
    if uri.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))
    target = cached(cache_folder, uri, unquote(urlsplit(uri).path))
    if not target.exists():
        write_whole(target, _download(uri))
    return target


def cached(cache_folder: Path, key: str, name: str) -> Path:
    """Where the file of `key` lies in the cache, with the suffix of `name`."""
    digest = hashlib.blake2b(os.fsencode(key), digest_size=16).hexdigest()
    return cache_folder / digest[:2] / (digest + PurePosixPath(name).suffix[:16])


def _download(uri: str) -> Iterator[bytes]:
    """The bytes behind the URI, a piece at a time."""
    try:
        with urlopen(uri, timeout=TIMEOUT) as answer:
            length, got = answer.headers.get("Content-Length"), 0
            while piece := answer.read(2**20):
                got += len(piece)
                yield piece
    except (OSError, HTTPException, ValueError) as error:
        raise OpenFlorenceError(f"{uri} cannot be downloaded: {error!s:.200}") from error
    if length is not None and got != int(length):
        raise OpenFlorenceError(f"{uri} cannot be downloaded: the connection broke after {got} of {length} bytes")
