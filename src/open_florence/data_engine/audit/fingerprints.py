"""Images known by their content: the same pixels by the content hash, the same picture by a perceptual hash.

Two images are the same picture when few of the 64 bits of their perceptual hashes differ: a copy that was scaled or
compressed again. Copies that were cut, turned or mirrored are not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from open_florence.images import open_image

BITS = 64
PAIRS = 1 << 20
"""Pairs of hashes that are compared at a time."""
BATCH = 1024

_ONES = np.array([value.bit_count() for value in range(1 << 16)], dtype=np.uint8)


class Pictured(Protocol):
    """A `Sample`, a row of the store's images, or anything else that says where its image is.

    Where it has a `phash` other than 0 that is taken for its perceptual hash; otherwise its image is opened.
    """

    @property
    def id(self) -> str:
        """Content hash of the pixels."""

    @property
    def path(self) -> str:
        """A file that exists."""


Picture = TypeVar("Picture", bound=Pictured)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is remembered of an image."""

    id: str
    phash: int
    path: str
    """Where it was, for messages alone."""

    @classmethod
    def of(cls, picture: Pictured) -> Fingerprint:
        """Raises OpenFlorenceError where the image has to be opened and cannot be."""
        from open_florence.data.near_duplicates import perceptual_hash

        known: int = getattr(picture, "phash", 0)
        return cls(picture.id, known or perceptual_hash(open_image(picture.path)), picture.path)

    def to_json(self) -> dict[str, Any]:
        """A dict of strings."""
        return {"id": self.id, "phash": f"{self.phash:016x}", "path": self.path}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Fingerprint:
        """The inverse of `to_json`."""
        return cls(record["id"], int(record["phash"], 16), record["path"])


def nearest(hashes: Sequence[int], known: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each hash (N,) which of the known ones (K,), K >= 1, is nearest, and in how many bits they differ: (N,) each.

    Of several the first. Memory does not grow with N x K.
    """
    ours, theirs = np.array(hashes, dtype=np.uint64), np.array(known, dtype=np.uint64)
    indices, distances = (np.zeros(len(ours), dtype=np.int64) for _ in range(2))
    step = max(1, PAIRS // len(theirs))
    for start in range(0, len(ours), step):
        differing = ours[start : start + step, None] ^ theirs  # (n, K)
        counts = _ONES[differing.view(np.uint16)].reshape(*differing.shape, 4).sum(axis=2, dtype=np.int64)
        indices[start : start + step] = counts.argmin(axis=1)
        distances[start : start + step] = counts.min(axis=1)
    return indices, distances


def batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    """The pictures in their order, some at a time."""
    left = iter(pictures)
    while batch := list(islice(left, BATCH)):
        yield batch
