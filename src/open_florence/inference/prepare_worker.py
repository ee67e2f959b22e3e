"""A process that opens and resizes one image after the other for `prepare`: how it is asked, and what it does.

Both ends are here. They speak over a socket that is the process's standard input: when the other end is gone, however
it went, the process ends. Requests and replies are pickles behind their length; resized pixels follow as they are,
straight into the array they are for. One call receives them all, without the interpreter's lock: through a pipe the
thread would wait for the lock again every 64 KiB while another thread runs Python. Shared memory is no faster, and
has to be removed. The process is a plain new interpreter, no `multiprocessing` child, so that it runs nothing of the
program it works for, and imports no more than this file does.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from open_florence.errors import OpenFlorenceError
from open_florence.images import ImageLike, image_id, name_of, open_reduced
from open_florence.schema import Size

DRAFT_ROOM = 1.9
"""A JPEG's decoder may make it smaller as long as both sides stay this many times the side they are resized to."""

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from open_florence.inference.prepare_worker import serve; serve()"
_SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
"""No threads for NumPy, and up to 128 MiB of free memory kept: glibc otherwise gives each image's back to the system
and asks for it again, which adds 30 to 40 % to the processor time of an image (mallopt(3))."""
_LENGTH = struct.Struct("<Q")


class Treatment(NamedTuple):
    """What is done with every image."""

    side: int
    """Height and width in pixels that it is resized to."""
    with_id: bool
    draft: bool


class Outcome(NamedTuple):
    """What became of one image; the fields of `Prepared`, which says what they are."""

    levels: NDArray[np.uint8] | None  # (S, S, 3)
    size: Size = (0.0, 0.0)
    id: str = ""
    reason: str = ""


def open_and_resize(source: ImageLike, treatment: Treatment) -> Outcome:
    """The image as `Processor.resized` makes it; whatever goes wrong becomes the outcome's reason."""
    side, with_id, draft = treatment
    try:
        image, size = open_reduced(source, math.ceil(DRAFT_ROOM * side) if draft and not with_id else 0)
        levels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))  # (S, S, 3)
        return Outcome(levels, (float(size[0]), float(size[1])), image_id(image) if with_id else "")
    except OpenFlorenceError as error:
        return Outcome(None, reason=str(error))
    except Exception as error:  # memory, a codec's own exception: the stream has to survive every file
        return Outcome(None, reason=f"{name_of(source)} cannot be opened: {type(error).__name__}: {error}")


class Worker:
    """One process, started when it is first needed and replaced when it dies.

    `ask` and `stop` belong to one thread; `stop_if_late` and `close` may be called by any.
    """

    def __init__(self, timeout: float) -> None:
        """`timeout`: seconds an image may take before `stop_if_late` ends the process."""
        self._timeout = timeout
        self._lock = threading.RLock()  # a garbage collection inside it may call `close`
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._deadline = math.inf  # of the image in work, on the monotonic clock
        self._is_late = False
        self._is_closed = False
        self._can_start = os.name == "posix" and bool(sys.executable)

    @property
    def pid(self) -> int | None:
        """The process's number, None while there is none."""
        process = self._process
        return process.pid if process else None

    def ask(self, source: str | os.PathLike[str] | bytes, treatment: Treatment) -> Outcome | None:
        """What became of the image, also where the process died of it or was ended for being late.

        None where the caller has to open it: no process can be started here, or the process could not read the image
        while the program has taught Pillow formats that a new interpreter does not know.
        """
        channel = self._running()
        if channel is None:
            return None
        self._deadline = time.monotonic() + self._timeout
        try:
            _send(channel, _request(source, treatment))
            outcome = _receive_outcome(channel, treatment.side)
        except (EOFError, OSError):
            why = f"it takes more than {self._timeout:g} s" if self._is_late else "its worker process died"
            self.stop()
            return Outcome(None, reason=f"{name_of(source)} cannot be opened: {why}")
        with self._lock:
            self._deadline = math.inf
            if self._is_late:
                self.stop()  # it was ended in the moment in which it answered
        return None if outcome.reason and _has_added_formats() else outcome

    def stop_if_late(self) -> None:
        """Ends the process where its image takes too long; `ask` then returns."""
        with self._lock:
            if self._process and time.monotonic() > self._deadline:
                self._is_late = True
                self._process.kill()

    def close(self) -> None:
        """Ends the process and lets no other start; the thread that asks still has to `stop`."""
        with self._lock:
            self._is_closed = True
            if self._process:
                self._process.kill()

    def stop(self) -> None:
        """Ends the process, if there is one, and waits until it is gone."""
        with self._lock:
            process, self._process = self._process, None
            channel, self._channel = self._channel, None
            self._deadline, self._is_late = math.inf, False
        if process:
            process.kill()
            process.wait()
        if channel:
            channel.close()

    def _running(self) -> socket.socket | None:
        """The way to a living process: a new one where there was none, or where it died between images."""
        if self._process and self._process.poll() is None:
            return self._channel
        self.stop()
        if self._can_start and not self._is_closed:
            try:
                self._start()
            except (EOFError, OSError):  # no memory, no more processes allowed, an interpreter that does not start
                self.stop()
                self._can_start = False
        return self._channel

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs, self._lock:
            if self._is_closed:
                raise EOFError
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *sys.path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, **_SURROUNDINGS},
                process_group=0,  # Ctrl-C is for the program alone
            )
        _receive(self._channel)  # it says when it is ready, so that a timeout is about the image


def serve() -> None:
    """What the process does: answers requests on its standard input until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # where memory runs out, Linux ends this process rather than the one that holds the model
    with contextlib.suppress(EOFError, OSError), socket.socket(fileno=0) as channel:
        _send(channel, b"")
        while True:
            _answer(channel, _receive(channel))


def _answer(channel: socket.socket, request: bytearray) -> None:
    source, folder, Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, treatment = pickle.loads(request)
    try:
        os.chdir(folder or os.curdir)
        outcome = open_and_resize(source, treatment)
    except OSError as error:
        outcome = Outcome(None, reason=f"{name_of(source)} cannot be opened: {folder}: {error.strerror}")
    _send(channel, pickle.dumps(outcome._replace(levels=None)))
    if outcome.levels is not None:
        channel.sendall(np.ascontiguousarray(outcome.levels).data)


def _request(source: str | os.PathLike[str] | bytes, treatment: Treatment) -> bytes:
    """The source, and what of the program's state decides how it is opened: its folder and Pillow's settings."""
    folder = ""
    if not isinstance(source, bytes):
        source = os.fsdecode(source)
        with contextlib.suppress(FileNotFoundError):  # a folder that was removed
            folder = "" if os.path.isabs(source) else os.getcwd()
    return pickle.dumps((source, folder, Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, treatment))


def _receive_outcome(channel: socket.socket, side: int) -> Outcome:
    outcome: Outcome = pickle.loads(_receive(channel))
    if outcome.reason:
        return outcome
    levels = np.empty((side, side, 3), np.uint8)
    _fill(channel, levels.data.cast("B"))
    return outcome._replace(levels=levels)


def _send(channel: socket.socket, message: bytes) -> None:
    channel.sendall(_LENGTH.pack(len(message)))
    channel.sendall(message)


def _receive(channel: socket.socket) -> bytearray:
    header = bytearray(_LENGTH.size)
    _fill(channel, memoryview(header))
    message = bytearray(_LENGTH.unpack(header)[0])
    _fill(channel, memoryview(message))
    return message


def _fill(channel: socket.socket, buffer: memoryview) -> None:
    """Reads until the buffer is full. Raises EOFError when the other end is gone."""
    while buffer:
        count = channel.recv_into(buffer, 0, socket.MSG_WAITALL)
        if not count:
            raise EOFError
        buffer = buffer[count:]


def _has_added_formats() -> bool:
    """Whether the program registered formats with Pillow (HEIF, for one)."""
    return any(not opener.__module__.startswith("PIL.") for opener, _ in Image.OPEN.values())
