"""The annotated folder on the disk: lines appended so that a run killed at any moment can be gone on with.

    OUT/run.json            what was asked of which model; written first, and what a later run has to agree with
    OUT/annotations.jsonl   one `Sample` a line, appended and synced to the disk
    OUT/failed.jsonl        {"path", "reason"} of every image that could not be annotated

An image is done when its line is written, newline included; what a crash left of a last line is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from open_florence.data.jsonl import line_of, write_whole
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample


class Failure(NamedTuple):
    """An image that could not be annotated, and why."""

    path: Path
    reason: str


class AnnotatedFolder:
    """The folder on disk, held by one run at a time (not enforced on systems without `fcntl`)."""

    def __init__(self, folder: Path, settings: dict[str, Any], restart: bool = False) -> None:
        """Opens or makes it. `done` are the paths that have their line. Raises OpenFlorenceError, see `annotate`."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = (folder / "annotations.jsonl").open("a+b", buffering=0)
            self._failures = (folder / "failed.jsonl").open("ab", buffering=0)
        except OSError as error:
            raise OpenFlorenceError(f"the folder {folder} cannot be written: {error.strerror}") from None
        try:
            _lock(self._lines, folder)
            if restart:
                self._lines.truncate(0)
                self._failures.truncate(0)
                (folder / "run.json").unlink(missing_ok=True)
            self._agree(settings)
            self.done = _recover(self._lines)
        except BaseException:
            self.close()
            raise

    def append(self, samples: Iterable[Sample], failures: Iterable[Failure]) -> None:
        """Writes some; when this returns they survive a power cut. Raises OpenFlorenceError when the disk is full."""
        lines = b"".join(line_of(sample.to_json()) for sample in samples)
        try:
            for failure in failures:
                _write(self._failures, line_of({"path": str(failure.path), "reason": failure.reason}))
            _write(self._lines, lines)
            os.fsync(self._lines.fileno())
        except OSError as error:
            raise OpenFlorenceError(f"the folder {self.folder} cannot be written: {error.strerror}") from error

    def forget_failures(self, paths: Iterable[Path]) -> None:
        """Takes the images that are about to be tried again off failed.jsonl."""
        again = {str(path) for path in paths}
        failed = self.folder / "failed.jsonl"
        kept = [line for line in failed.read_bytes().splitlines(keepends=True) if _path_of(line) not in {*again, None}]
        self._failures.close()
        write_whole(failed, kept)
        self._failures = failed.open("ab", buffering=0)

    def close(self) -> None:
        """Lets go of the files and with them of the lock."""
        self._lines.close()
        self._failures.close()

    def __enter__(self) -> AnnotatedFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _agree(self, settings: dict[str, Any]) -> None:
        """Writes run.json, or compares it with this run's settings."""
        path = self.folder / "run.json"
        if not path.exists():
            if self._lines.seek(0, os.SEEK_END):
                raise OpenFlorenceError(
                    f"{self.folder} holds annotations but no run.json that says how they were made: "
                    "choose another folder, or restart"
                )
            date = datetime.now(UTC).isoformat(timespec="seconds")
            text = json.dumps({**settings, "date": date}, indent=2, ensure_ascii=False)
            write_whole(path, [text.encode("utf-8", "backslashreplace"), b"\n"])
            return
        try:
            earlier = json.loads(path.read_bytes())
            settings = json.loads(json.dumps(settings))  # tuples compare as lists
            differing = [name for name, value in settings.items() if earlier.get(name) != value]
        except (ValueError, AttributeError):
            raise OpenFlorenceError(f"{path} is damaged: choose another folder, or restart") from None
        if differing:
            name = differing[0]
            raise OpenFlorenceError(
                f"{self.folder} was annotated with another {name} ({_shown(earlier.get(name))}, now "
                f"{_shown(settings[name])}): choose another folder, or restart to throw its annotations away"
            )


def _recover(file: BinaryIO) -> set[str]:
    """The paths that have their line. What is left of a line that was being written is cut off."""
    done = set()
    file.seek(0)
    end = 0
    with os.fdopen(os.dup(file.fileno()), "rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            if path := _path_of(line):
                done.add(path)
    file.truncate(end)
    return done


def _path_of(line: bytes) -> str | None:
    """The path in a line of annotations.jsonl or failed.jsonl; None where the line is damaged."""
    try:
        path = json.loads(line)["path"]
    except (ValueError, KeyError, TypeError):
        return None
    return path if isinstance(path, str) else None


def _write(file: BinaryIO, data: bytes) -> None:
    """All of `data`, straight to the system: an unbuffered file may take less than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _lock(file: BinaryIO, folder: Path) -> None:
    """Holds `file` for this process until it is closed or the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OpenFlorenceError(f"another run is writing to {folder}") from None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(" ".join(str(part) for part in task.values()) for task in value)
    return str(value)
