"""Streams answered batch by batch: order, failures, and nothing left running. `tests/test_annotate.py` has more."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.inference.batches import in_batches
from open_florence.schema import Annotation


def requests(count: int) -> Iterator[tuple[Image.Image, list[str]]]:
    for k in range(count):
        yield Image.new("RGB", (k + 1, 2)), [str(k)]


def echo(batch: list[tuple[Image.Image, Any]]) -> list[list[Annotation]]:
    """Says each task back with the width of the image; refuses an image 4 pixels wide, breaks on one of 6."""
    if any(image.width == 4 for image, _ in batch):
        raise OpenFlorenceError("four is too many")
    if any(image.width == 6 for image, _ in batch):
        raise ZeroDivisionError("six")
    return [[Annotation(task, str(image.width)) for task in tasks] for image, tasks in batch]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_request_has_its_answer_in_order(size: int) -> None:
    found = list(in_batches(echo, requests(8), size, with_id=True))
    assert [answered.index for answered in found] == list(range(8))
    assert [answered.size for answered in found] == [(k + 1.0, 2.0) for k in range(8)]
    assert found[2].id == image_id(Image.new("RGB", (3, 2)))
    assert [[a.text for a in answered.annotations] for answered in found] == [
        [] if k in (4, 6) else [str(k)] for k in range(1, 9)
    ]
    assert (found[3].reason, found[3].is_refused) == ("four is too many", True)
    assert (found[5].reason, found[5].is_refused) == ("the model failed: ZeroDivisionError: six", False)


def test_requests_are_read_a_little_ahead_and_no_thread_stays() -> None:
    read = []

    def endless() -> Iterator[tuple[Image.Image, list[str]]]:
        for k in itertools.count():
            read.append(k)
            yield Image.new("RGB", (1, 1)), ["a"]

    stream = in_batches(echo, endless(), 4)
    for _ in range(9):
        next(stream)
    assert len(read) <= 12 + 4 + 2
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "open images"]


def test_what_the_requests_raise_comes_after_the_answers_before() -> None:
    def broken() -> Iterator[tuple[Image.Image, list[str]]]:
        yield from requests(2)
        raise KeyError("gone")

    stream = in_batches(echo, broken(), 1)
    assert [next(stream).index, next(stream).index] == [0, 1]
    with pytest.raises(KeyError):
        next(stream)
