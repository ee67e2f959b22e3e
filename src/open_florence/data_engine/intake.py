"""Images into the store: each file is opened once, known by its pixels from then on, or set aside with the reason.

What is found is compared with what the store has by its path, so that new files of a folder come in whenever it is
looked at again, and a broken file comes in when it has been mended.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from open_florence.data.store import ImageRow, Store
from open_florence.data_engine.audit.fingerprints import BITS, nearest
from open_florence.data_engine.work import slices
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id, list_images, open_image

SHARD = 256
"""Images that are committed at a time."""


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What a look at the folders brought."""

    added: int = 0
    quarantined: int = 0
    duplicates: int = 0


def find_images(sources: Iterable[str], within: Path) -> list[str]:
    """Paths and addresses of the images of folders, files, addresses, and .txt files that list such, each once.

    `within` is the engine's own folder, from which nothing is taken. Raises OpenFlorenceError for a source that is not
    there, and where nothing is found.
    """
    sources = list(sources)
    own = os.path.abspath(within) + os.sep
    found = dict.fromkeys(path for source in sources for path in _listed(source) if not path.startswith(own))
    if not found:
        raise OpenFlorenceError(f"there is no image in {', '.join(sources)}")
    return list(found)


def take_in(
    store: Store,
    sources: Sequence[str],
    *,
    keep_bytes: bool = False,
    near: int | None = None,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> TakenIn:
    """Adds the images of the sources that the store does not have; one process at a time.

    `keep_bytes` copies them into the store. Files that hold the same pixels as an earlier one are set aside, and those
    within `near` bits of its perceptual hash if that is given. Raises OpenFlorenceError as `find_images` does.
    """
    known = _Known(store, near)
    new = [path for path in find_images(sources, store.folder.parent) if path not in known.paths]
    on_progress(0, len(new))
    counts: Counter[str] = Counter()
    done = 0
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for paths in slices(new, SHARD):
            seen = list(pool.map(lambda path: _look(store, path, keep_bytes), paths))
            contents = {row.path: content for row, content in seen if content is not None}
            rows = list(known.judge([row for row, _ in seen]))
            if rows:
                data = {row.id: contents[row.path] for row in rows if row.status == "ok" and row.path in contents}
                store.add_images(_shard(rows), rows, data or None)
            counts.update(row.status for row in rows)
            done += len(paths)
            on_progress(done, len(new))
    return TakenIn(counts["ok"], counts["quarantined"], counts["duplicate"])


class _Known:
    """What the store has already."""

    def __init__(self, store: Store, near: int | None) -> None:
        self.paths: set[str] = set()
        """Of images that need not be looked at again."""
        self._broken: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._near = near
        self._hashed: list[tuple[int, str]] = []
        for row in store.images(status=None):
            if row.status == "quarantined":
                self._broken[row.path] = row.reason
            else:
                self.paths.add(row.path)
            if row.status == "ok":
                self._remember(row)

    def judge(self, rows: Sequence[ImageRow]) -> Iterator[ImageRow]:
        """The rows as they go into the store, without what it says already."""
        before = len(self._hashed)
        for row, close in zip(rows, self._close([row.phash for row in rows]), strict=True):
            if row.status == "quarantined":
                if self._broken.get(row.path) != row.reason:
                    yield row
            elif (same := self._ids.get(row.id)) is not None:
                copy = f"{row.id}+{_digest(row.path, 4)}"
                yield replace(row, id=copy, status="duplicate", reason=f"the same pixels as {same}")
            elif reason := close or self._close_to(row.phash, self._hashed[before:]):
                yield replace(row, status="duplicate", reason=reason)
            else:
                self._remember(row)
                yield row

    def _remember(self, row: ImageRow) -> None:
        self._ids[row.id] = row.path
        if self._near is not None:
            self._hashed.append((row.phash, row.path))

    def _close(self, hashes: Sequence[int]) -> list[str]:
        """For each hash the nearest image of the store, as a reason; empty where none is near."""
        if self._near is None or not self._hashed:
            return [""] * len(hashes)
        places, bits = nearest(hashes, [phash for phash, _ in self._hashed])
        paths = [self._hashed[place][1] for place in places]
        return [_nearly(path, bit) if bit <= self._near else "" for path, bit in zip(paths, bits.tolist(), strict=True)]

    def _close_to(self, phash: int, others: Iterable[tuple[int, str]]) -> str:
        distances = ((path, (phash ^ other).bit_count()) for other, path in others)
        return next((_nearly(path, bits) for path, bits in distances if bits <= (self._near or 0)), "")


def _nearly(path: str, bits: int) -> str:
    return f"nearly the same as {path}: {bits} of {BITS} bits differ"


def _look(store: Store, path: str, keep_bytes: bool) -> tuple[ImageRow, bytes | None]:
    """The row of an image, and its bytes if they are wanted; the row says why where it cannot be read."""
    from open_florence.data.near_duplicates import perceptual_hash

    try:
        file = store.open(ImageRow(_digest(path), path)) if "://" in path else Path(path)
        content = _read(file) if keep_bytes else None
        image = open_image(io.BytesIO(content) if content is not None else file)
        size = (float(image.width), float(image.height))
        return ImageRow(image_id(image), path, size, perceptual_hash(image)), content
    except OpenFlorenceError as error:
        reason = str(error)
    except Exception as error:  # memory, a codec's own exception: one file must not end the run
        reason = f"{path} cannot be opened: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ImageRow(f"unread-{_digest(path)}", path, status="quarantined", reason=reason), None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be read: {error.strerror or error}") from None


def _listed(source: str) -> Iterator[str]:
    """The images of one source."""
    if "://" in source:
        yield source
    elif source.endswith(".txt") and os.path.isfile(source):
        folder = os.path.dirname(source)
        for line in Path(source).read_text("utf-8").splitlines():
            if line.strip():
                place = line.strip()
                yield from _listed(place if "://" in place else os.path.join(folder, place))
    else:
        yield from (os.path.abspath(path) for path in list_images(source))


def _shard(rows: Sequence[ImageRow]) -> str:
    """A name that the same images always have."""
    return "images/" + _digest("\n".join(f"{row.id} {row.path}" for row in rows))


def _digest(text: str, size: int = 16) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=size).hexdigest()
