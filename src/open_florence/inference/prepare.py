"""Images opened, resized and hashed ahead of the model, in the background: a stream of sources becomes `Prepared`.

Threads take the next source, each as soon as it is free, and either open it themselves or have it opened by the worker
process that each of them has; results are put back in order. A place in the stream is free again once its result was
taken, so memory is flat however long the stream, and `sources` is read no further than `ahead` of what was taken.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from open_florence.errors import OpenFlorenceError
from open_florence.images import ImageLike
from open_florence.inference.prepare_worker import Outcome, Treatment, Worker, open_and_resize
from open_florence.schema import Size

_PATIENCE = 5.0
"""Seconds that closing waits for a thread; only one that stands inside the program's own `sources` takes longer."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for the model, or why there is none."""

    index: int
    """Its position in the stream."""
    levels: NDArray[np.uint8] | None
    """(S, S, 3) red, green, blue, as `Processor.resized` makes it; None where it could not be opened."""
    size: Size
    """(width, height) in pixels of the upright original; zeros where it could not be opened."""
    id: str
    """`image_id` of its pixels; "" unless asked for."""
    reason: str
    """Why it could not be opened, one sentence; "" where it could."""


class Preparer:
    """Prepares streams of images in the background; a context manager, and to be closed.

    `workers` 0 opens images in one thread. n opens paths and the bytes of files in n processes, so that an image that
    crashes a decoder or takes all memory costs only itself; Pillow images, arrays and open files, which would first
    have to be copied to a process, are prepared in n threads (Pillow works outside the interpreter's lock), and so is
    everything on systems other than POSIX. Such an image must stay as it is until its result was taken.

    `draft` lets the decoder of JPEG files make them smaller while it decodes, by 2, 4 or 8 as long as both sides stay
    at least 1.9 `side`: half the time or less for a photograph of 12 megapixels. Levels then differ from those of the
    file decoded whole. Of 70 photographs and scans, each at the size where it matters most (`benchmarks/prepare.py`):
    by 0.8 at most in the mean, by 7 at most in 999 of 1,000 and by 18 at most in any. Of letters one pixel thin and of
    noise in full colours, the hardest we know: by 3, 25 and 32 at most. It does nothing where an id is wanted, as that
    is made of all pixels.
    """

    def __init__(
        self,
        side: int,
        workers: int = 0,
        ahead: int = 16,
        with_id: bool = False,
        draft: bool = False,
        timeout: float = 120.0,
    ) -> None:
        """`side` is `Processor.image_size`; `ahead` counts the images in work or waiting to be taken, at most.

        An image that keeps a worker process for more than `timeout` seconds is given up. Raises OpenFlorenceError for
        numbers that make no sense.
        """
        for name, value, lowest in (("side", side, 1), ("workers", workers, 0), ("ahead", ahead, 1)):
            if value < lowest:
                raise OpenFlorenceError(f"{name} is at least {lowest}, not {value}")
        if not timeout > 0:
            raise OpenFlorenceError(f"timeout is more than 0 seconds, not {timeout:g}")
        self._ahead = ahead
        self._crew = _Crew(Treatment(side, with_id, draft), workers, timeout)
        self._close = weakref.finalize(self, self._crew.close)  # also when it is forgotten, and at the program's end

    def __call__(self, sources: Iterable[ImageLike]) -> Generator[Prepared]:
        """What became of each source, in order.

        Nothing is read before the first is asked for. `sources` is iterated in a thread; what it raises is raised
        here, after the images before it. Whatever is wrong with an image is its `reason`. Raises OpenFlorenceError
        when the preparer is closed.
        """
        stream = _Stream(sources)
        for _ in range(self._ahead):
            self._crew.todo.put(stream)
        try:
            yield from self._in_order(stream)
        finally:
            stream.is_dropped = True

    def close(self) -> None:
        """Ends the threads and processes. What is being opened is given up."""
        self._close()

    def __enter__(self) -> Preparer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _in_order(self, stream: _Stream) -> Generator[Prepared]:
        waiting: dict[int, _Result] = {}
        for index in itertools.count():
            while index not in waiting:
                number, result = self._crew.wait(stream)
                waiting[number] = result
            result = waiting.pop(index)
            if result is None:
                return
            if isinstance(result, BaseException):
                raise result
            self._crew.todo.put(stream)
            yield Prepared(index, *result)


_Result = Outcome | BaseException | None
"""Of one position in the stream: the image, what `sources` raised, or None for its end."""


class _Stream:
    """Sources that are being read, and what became of those that were.

    Its parts need no lock that a garbage collection, wherever it happens, could meet held.
    """

    def __init__(self, sources: Iterable[ImageLike]) -> None:
        self.results: queue.SimpleQueue[tuple[int, _Result]] = queue.SimpleQueue()
        self.is_dropped = False
        self._sources = iter(sources)
        self._reading = threading.Lock()
        self._count = 0
        self._has_ended = False

    def step(self, prepare: Callable[[ImageLike], Outcome]) -> None:
        """Prepares the next source, if there is one and somebody still wants it."""
        with self._reading:
            if self.is_dropped or self._has_ended:
                return
            index = self._count
            try:
                source = next(self._sources)
            except BaseException as error:
                self._has_ended = True
                self.results.put((index, None if isinstance(error, StopIteration) else error))
                return
            self._count += 1
        try:
            self.results.put((index, prepare(source)))
        except BaseException as error:  # not left to the thread: whoever waits for the result would wait forever
            self.results.put((index, error))


class _Crew:
    """The threads, and the process of each. They know nothing of the `Preparer`, so that it can be forgotten."""

    def __init__(self, treatment: Treatment, workers: int, timeout: float) -> None:
        self.todo: queue.SimpleQueue[_Stream | None] = queue.SimpleQueue()
        """A stream stands here as often as it has free places; None tells a thread to end."""
        self._treatment = treatment
        self._workers = [Worker(timeout) for _ in range(workers)]
        self._pause = min(1.0, timeout / 4)
        self._is_closed = False
        lanes: list[Worker | None] = [*self._workers] or [None]
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name="prepare images", daemon=True) for worker in lanes
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, stream: _Stream) -> tuple[int, _Result]:
        """The stream's next result, whichever it is. Meanwhile ends the processes that are late."""
        while True:
            if self._is_closed:
                raise OpenFlorenceError("the preparer of these images is closed")
            try:
                return stream.results.get(timeout=self._pause)
            except queue.Empty:
                for worker in self._workers:
                    worker.stop_if_late()

    def close(self) -> None:
        """Ends processes and threads, and waits for them unless it is called by one of the threads."""
        self._is_closed = True
        for worker in self._workers:
            worker.close()
        for _ in self._threads:
            self.todo.put(None)
        if threading.current_thread() not in self._threads:
            for thread in self._threads:
                thread.join(_PATIENCE)

    def _work(self, worker: Worker | None) -> None:
        try:
            while (stream := self.todo.get()) is not None and not self._is_closed:
                stream.step(lambda source: self._prepare(source, worker))
                del stream  # while it waits for more, nothing is kept of a stream that ended
        finally:
            if worker:
                worker.stop()

    def _prepare(self, source: ImageLike, worker: Worker | None) -> Outcome:
        outcome = None
        if worker and isinstance(source, (str, os.PathLike, bytes)):
            outcome = worker.ask(source, self._treatment)
        return outcome or open_and_resize(source, self._treatment)
