"""One Lance table that grows by shards: a shard is one append, there whole or not at all, and never there twice.

The last row of every shard is its marker: it holds the shard's note and nothing else, so a shard without rows is known
too, and rows and note are committed by one rename of one file. Which shards are there is read from the markers of the
fragments (the files of rows) that were not there the last time.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from open_florence.errors import OpenFlorenceError

LOOSE = 512
"""So many shards that are files of their own, and they are merged: every commit writes a list of all files."""
MERGED = 262_144
"""Rows of a file into which small ones are merged. Merging holds several columns of one in memory."""
BATCH = 4096
"""Rows that are read at a time."""
_INDEX_CACHE, _FILE_CACHE, _BUFFER = 64 * 2**20, 4 * 2**20, 32 * 2**20
"""Bytes of indices and of tables of contents kept in memory, and of rows read ahead; Lance itself takes gigabytes."""
_LANCE = re.compile(r"LanceError\(\w+\): |, /\S+\.rs:[0-9:]+")
"""What Lance adds to the reason of an error."""


def lance() -> Any:
    """The module; raises OpenFlorenceError where it is not installed."""
    try:
        import lance
    except ImportError:
        raise OpenFlorenceError("the store needs Lance: pip install 'open-florence[engine]'") from None
    return lance


def arrow() -> Any:
    """The module pyarrow, which comes with Lance; raises OpenFlorenceError where it is not installed."""
    lance()
    import pyarrow

    return pyarrow


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Holds the file's lock, which the system lets go of when the process ends, however it ends.

    Yields whether the lock is held: False only with `wait=False`, when somebody else has it. A shared lock on a disk
    that cannot be written is none: nobody can change anything there.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError as error:
        if not shared:
            raise OpenFlorenceError(f"{path} cannot be written: {error.strerror}") from None
        yield True
        return
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Errors of the disk, Lance and Arrow become an OpenFlorenceError that begins with `what`."""
    try:
        yield
    except OpenFlorenceError:
        raise
    except (OSError, ValueError, RuntimeError, MemoryError, ArithmeticError, TypeError) as error:
        reason = _LANCE.sub("", " ".join(str(error).split())) or type(error).__name__
        raise OpenFlorenceError(f"{what}: {reason:.300}") from error


class Table:
    """A table of shards in the folder `path`. Whoever calls a method that writes holds the lock of the whole store.

    `version` is the number of an earlier state, which can only be read. `readers` is the file whose lock is held,
    shared, while rows are read, so that `compact` leaves the files of that state alone.
    """

    def __init__(self, path: Path, readers: Path, version: int | None = None) -> None:
        self.path = path
        self._readers = readers
        self._fixed = version is not None
        with one_sentence(f"{path} cannot be read"), locked(readers, shared=True):
            self._data = lance().dataset(
                str(path), version=version, index_cache_size_bytes=_INDEX_CACHE, metadata_cache_size_bytes=_FILE_CACHE
            )
        self._shards: dict[str, int] = {}  # shard -> the fragment that holds it
        self._markers: dict[int, int] = {}  # fragment -> how many shards it holds

    @staticmethod
    def create(path: Path, schema: Any) -> None:
        """An empty table, unless there is one."""
        if not path.is_dir() or not any((path / "_versions").glob("*.manifest")):
            lance().write_dataset(schema.empty_table(), str(path), schema=schema)

    @property
    def version(self) -> int:
        """The number of the state that was last read or written."""
        return int(self._data.version)

    @property
    def loose(self) -> int:
        """How many shards are files of their own."""
        return sum(count == 1 for count in self._markers.values())

    def at(self, version: int) -> Table:
        """The table as it was."""
        return Table(self.path, self._readers, version)

    def refresh(self) -> None:
        """Takes note of what was written since, by whomever."""
        if not self._fixed:
            self._data.checkout_latest()
        there = {fragment.fragment_id: fragment for fragment in self._data.get_fragments()}
        fresh = [there[number] for number in sorted(there.keys() - self._markers.keys())]
        counts: Counter[int] = Counter()
        if fresh:
            reader = self._data.scanner(
                columns=["shard"], filter="note IS NOT NULL", fragments=fresh, with_row_address=True, batch_size=BATCH
            )
            for batch in reader.to_batches():
                addresses = batch.column("_rowaddr").to_pylist()
                for shard, address in zip(batch.column("shard").to_pylist(), addresses, strict=True):
                    self._shards[shard] = address >> 32
                    counts[address >> 32] += 1
        self._markers = {number: self._markers.get(number, counts[number]) for number in there}

    def knows(self, shard: str) -> bool:
        """Whether the shard was there at the last look; costs nothing."""
        return shard in self._shards

    def append(self, shard: str, rows: Any) -> bool:
        """Commits the shard, an Arrow table that ends with its marker; False when it is there already."""
        self.refresh()
        if shard in self._shards:
            return False
        self._data = lance().write_dataset(rows, self._data, mode="append")
        self.refresh()
        return True

    def scan(
        self, columns: list[str] | None, condition: str, shards: Collection[Any] | None = None, addresses: bool = False
    ) -> Iterator[Any]:
        """Batches of the rows for which the SQL `condition` holds; those of a shard stand together in their order.

        Of `shards` only the files that hold them are read. With `addresses` there is a column "_rowaddr".
        """
        with one_sentence(f"{self.path} cannot be read"), locked(self._readers, shared=True):
            self.refresh()
            fragments = None
            if shards is not None:
                numbers = sorted({self._shards[shard] for shard in shards if shard in self._shards})
                fragments = [self._data.get_fragment(number) for number in numbers]
                if not fragments:
                    return
            yield from self._data.scanner(
                columns=columns,
                filter=condition,
                fragments=fragments,
                with_row_address=addresses,
                batch_size=BATCH,
                batch_readahead=2,
                fragment_readahead=2,
                io_buffer_size=_BUFFER,
            ).to_batches()

    def take(self, address: int, column: str) -> Any:
        """The value in one row, by the place that `scan` gives as its address."""
        with one_sentence(f"{self.path} cannot be read"), locked(self._readers, shared=True):
            self.refresh()
            found = self._data.get_fragment(address >> 32).take([address & 0xFFFFFFFF], columns=[column])
            return found.column(column)[0].as_py()

    def tag(self, name: str) -> None:
        """Gives the latest state a name, and keeps its files as long as the name is there."""
        self.refresh()
        tags = self._data.tags
        (tags.update if name in tags.list() else tags.create)(name, self.version)

    def compact(self, key: str | None) -> None:
        """Merges small files of rows, and builds an index for looking rows up by the column `key`. None: neither.

        Then removes states without a name and what writers left behind that were killed, unless somebody is reading.
        """
        self.refresh()
        if key is not None:
            self._data.optimize.compact_files(target_rows_per_fragment=MERGED)
            if self._data.has_index:
                self._data.optimize.optimize_indices()  # afterwards: merged files lose their part of this index
            elif self._data.count_rows():
                self._data.create_scalar_index(key, "BLOOMFILTER")
        with locked(self._readers, wait=False) as alone:
            if alone:
                self._data.cleanup_old_versions(
                    older_than=timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False
                )
        self.refresh()
