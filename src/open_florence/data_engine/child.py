"""A specialist at the other end of two pipes: what runs in the process of its own that `isolation` starts.

Messages are pickles with their length before them, in turns: first what to load and the answer what it is, then
samples and the answers about them. When the pipe closes the process ends, whatever it is doing: an engine that was
killed leaves nobody behind. What the specialist prints goes to stderr.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from open_florence.data_engine.answers import Answer, Failed, checked
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample
from open_florence.specialists import Specialist

LENGTH = struct.Struct("!Q")


Make = Callable[[], Specialist]


class Declared(NamedTuple):
    """What a specialist says of itself."""

    name: str
    version: str
    tasks: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def source(self) -> str:
        """What its annotations call their source."""
        return f"{self.name}@{self.version}"


class Refused(NamedTuple):
    """It could not be loaded, and why."""

    reason: str


def load(make: Make) -> tuple[Specialist, Declared]:
    """The specialist and what it says of itself. Raises OpenFlorenceError when that is not what one says."""
    specialist = make()
    try:
        declared = Declared(
            str(specialist.name), str(specialist.version), tuple(specialist.tasks), tuple(specialist.needs)
        )
    except AttributeError as error:
        raise OpenFlorenceError(f"{type(specialist).__name__} is no specialist: {error}") from None
    if not declared.name or not declared.version or not declared.tasks:
        raise OpenFlorenceError(f"{type(specialist).__name__} is no specialist without a name, a version and tasks")
    return specialist, declared


def answer(specialist: Specialist, declared: Declared, samples: list[Sample]) -> list[Answer] | Failed:
    """What it says about the samples, checked; `Failed` where it raises."""
    try:
        answers = specialist.annotate(samples)
    except OpenFlorenceError as error:
        return Failed(str(error))
    except Exception as error:
        return Failed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return checked(samples, answers, declared.tasks, declared.source)


def send(pipe: BinaryIO, message: Any) -> None:
    """Writes one message."""
    data = pickle.dumps(message)
    pipe.write(LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Reads one message. Raises EOFError when the other end has closed."""
    (length,) = LENGTH.unpack(_read(pipe, LENGTH.size))
    return pickle.loads(_read(pipe, length))


def _read(pipe: BinaryIO, count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


def serve(inward: BinaryIO, outward: BinaryIO) -> None:
    """Loads what the first message says, then answers until the pipe closes."""
    asked: queue.Queue[list[Sample]] = queue.Queue()
    sys.path[:] = receive(inward)
    try:
        specialist, declared = load(receive(inward))
    except OpenFlorenceError as error:
        return send(outward, Refused(str(error)))
    except Exception as error:
        return send(outward, Refused(f"{type(error).__name__}: {error}"))
    send(outward, declared)

    def listen() -> None:
        try:
            while True:
                asked.put(receive(inward))
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        send(outward, answer(specialist, declared, asked.get()))


def main() -> None:
    """Serves on what were stdin and stdout; what is printed goes to stderr."""
    inward, outward = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    try:
        serve(inward, outward)
    except (EOFError, BrokenPipeError):
        sys.exit(0)
