"""Streams of images answered batch by batch, for whatever answers batches: views, tiles, other engines, fakes in tests.

Images are opened ahead by a background thread, a batch is answered at once, and where that fails each of its images is
tried alone, so that an image costs only itself. Nothing here needs PyTorch.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id, open_image
from open_florence.schema import Annotation, Size


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request, (image, tasks), of a stream."""

    index: int
    """Its place in the stream, from 0."""
    annotations: list[Annotation] = field(default_factory=list)
    """The answers, in the order of the tasks; none where the request failed."""
    size: Size = (0.0, 0.0)
    """(width, height) of the upright image, in pixels; zeros where it could not be opened."""
    id: str = ""
    """`image_id` of its pixels, where asked for."""
    reason: str = ""
    """Why the request failed, in a sentence; "" where it did not."""
    is_refused: bool = False
    """The model refused the question (OpenFlorenceError); the image itself may be sound."""


def failed(index: int, error: Exception, size: Size = (0.0, 0.0), id: str = "") -> Answered:
    """What becomes of a request at which a model raised `error`."""
    refused = isinstance(error, OpenFlorenceError)
    reason = str(error) if refused else f"the model failed: {type(error).__name__}: {error}"
    return Answered(index, size=size, id=id, reason=reason, is_refused=refused)


Answer = Callable[[list[tuple[Image.Image, Any]]], list[list[Annotation]]]
"""Answers a batch of (image, tasks): one list per image."""


def in_batches(
    answer: Answer, requests: Iterable[tuple[Any, Any]], batch_size: int, with_id: bool = False
) -> Generator[Answered]:
    """What `answer` says to each request, (image, tasks), in order; at most three batches are in memory at a time.

    `requests` is iterated in a background thread. Raises what it raises, after the answers to those before.
    """
    with contextlib.closing(_opened(requests, batch_size, with_id)) as opened:
        for batch in _batches(opened, batch_size):
            yield from _answer_batch(batch, answer)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A request whose image was opened, or why it could not be."""

    index: int
    tasks: Any
    image: Image.Image | None
    id: str = ""
    reason: str = ""

    @property
    def size(self) -> Size:
        return (float(self.image.width), float(self.image.height)) if self.image else (0.0, 0.0)


def _answer_batch(batch: Sequence[_Opened], answer: Answer) -> Iterator[Answered]:
    good = [(item.image, item.tasks) for item in batch if item.image is not None]
    answers: Iterator[list[Annotation]] | None = None
    with contextlib.suppress(Exception):  # whatever it is, each is tried alone, and then it is told
        answers = iter(answer(good) if good else [])
    for item in batch:
        if item.image is None:
            yield Answered(item.index, reason=item.reason)
        elif answers is not None:
            yield Answered(item.index, next(answers), item.size, item.id)
        else:
            yield _answer_alone(item, item.image, answer)


def _answer_alone(item: _Opened, image: Image.Image, answer: Answer) -> Answered:
    try:
        return Answered(item.index, answer([(image, item.tasks)])[0], item.size, item.id)
    except Exception as error:  # whatever it is, it must not end a stream of a million images
        return failed(item.index, error, item.size, item.id)


def _opened(requests: Iterable[tuple[Any, Any]], ahead: int, with_id: bool) -> Generator[_Opened]:
    """The requests in order, opened by one background thread that stays at most `ahead` in front."""
    waiting: queue.Queue[_Opened | BaseException | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: _Opened | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def fill() -> None:
        try:
            for index, (image, tasks) in enumerate(requests):
                if stop.is_set():
                    return
                put(_open(index, image, tasks, with_id))
            put(None)
        except BaseException as error:  # of `requests`: told where they are waited for
            put(error)

    thread = threading.Thread(target=fill, name="open images", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _open(index: int, source: Any, tasks: Any, with_id: bool) -> _Opened:
    try:
        image = open_image(source)
        return _Opened(index, tasks, image, image_id(image) if with_id else "")
    except OpenFlorenceError as error:
        return _Opened(index, tasks, None, reason=str(error))
    except Exception as error:  # memory, a codec's own exception: the thread has to survive every file
        return _Opened(index, tasks, None, reason=f"{source} cannot be opened: {type(error).__name__}: {error}")


def _batches(items: Iterator[_Opened], size: int) -> Iterator[list[_Opened]]:
    """Lists of `size` images that could be opened, with the failures found on the way."""
    batch: list[_Opened] = []
    for item in items:
        batch.append(item)
        if sum(other.image is not None for other in batch) == size or len(batch) >= 8 * size:
            yield batch
            batch = []
    if batch:
        yield batch
