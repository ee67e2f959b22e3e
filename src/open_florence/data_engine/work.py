"""Work cut into shards that several processes may share: each is done by one, committed at once, and never twice.

A shard is known by its id, which says what is done to which slice of the images, and is the same whoever computes it.
While a process works on one it holds a lock in LABELS/claims; a lock whose process has died is free again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from open_florence.errors import OpenFlorenceError

try:
    import fcntl
except ModuleNotFoundError:  # a system without file locks: one engine at a time, not enforced
    fcntl = None  # type: ignore[assignment]

Item = TypeVar("Item")

WAIT = 0.5
"""Seconds between two looks at what others are working on."""


def slices(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in their order, `size` at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def shard_id(round: int, step: str, what: str, number: int) -> str:
    """ "001/annotate/detector@1.2/000017": its place in the round, and in the slices of the images."""
    return f"{round:03d}/{step}/{what.replace('/', '_')}/{number:06d}"


class Locks:
    """What this and other processes are working on at the moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def take(self, name: str) -> Iterator[bool]:
        """True inside, if `name` was free: nobody else gets it until the end, however this process ends."""
        file = self._lock(name)
        try:
            yield file is not None
        finally:
            if file is not None:
                with contextlib.suppress(OSError):
                    self._path(name).unlink()  # before the lock goes: who waits for this very file looks again
                os.close(file)

    @contextlib.contextmanager
    def wait(self, name: str, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Holds `name` alone, as soon as nobody else does; `on_wait` is called once if that takes waiting."""
        told = False
        while True:
            with self.take(name) as mine:
                if mine:
                    yield
                    return
            if not told:
                on_wait()
                told = True
            time.sleep(WAIT)

    def _path(self, name: str) -> Path:
        short = "".join(letter if letter.isalnum() or letter in "-_.@" else "_" for letter in name)[-80:]
        return self.folder / f"{short}.{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}.lock"

    def _lock(self, name: str) -> int | None:
        path = self._path(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while True:
                file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
                if fcntl is None:
                    return file
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(file)
                    return None
                if _is_still(path, file):
                    return file
                os.close(file)  # its last owner took it away between our opening and our locking it
        except OSError as error:
            raise OpenFlorenceError(f"{path} cannot be locked: {error.strerror or error}") from error


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False


def share(
    shards: Sequence[str],
    locks: Locks,
    finished: Callable[[], Collection[str]],
    is_done: Callable[[str], bool],
    work: Callable[[str], object],
    on_done: Callable[[int], object] = lambda count: None,
) -> None:
    """Works on every shard that nobody has done or is doing, and returns when all are done.

    `finished()` are the shards that are committed, by whomever; `is_done(shard)` looks again just before the work, and
    may err to False; `work(shard)` does and commits it; `on_done(count)` is told how many are done.
    """
    while True:
        there = set(finished())
        left = [shard for shard in shards if shard not in there]
        on_done(len(shards) - len(left))
        if not left:
            return
        busy = 0
        for number, shard in enumerate(left, start=1):
            with locks.take(shard) as mine:
                if not mine:
                    busy += 1
                elif not is_done(shard):
                    work(shard)
            on_done(len(shards) - len(left) + number - busy)
        if busy == len(left):
            time.sleep(WAIT)
