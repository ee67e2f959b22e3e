"""Any number of images with any number of questions each, answered as a stream.

Images are opened and resized ahead of the model (`Preparer`), each is encoded once, and its questions wait for a row:
as soon as an answer ends, another begins in its place (`searching`), so that no row waits for the longest of a batch.
Everything is bounded: images that are prepared, encoded, answered and, in order, waiting for one before them; so memory
is flat however long the stream, and requests are read only as far as there is room.

Letters: I images, B questions, N visual tokens, S side of the model's images in pixels, d width of the model.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.images import ImageLike
from open_florence.inference.asking import Question
from open_florence.inference.batches import Answered, failed
from open_florence.inference.beam_slots import SlotBeamSearch
from open_florence.inference.constraints import Constraints
from open_florence.inference.greedy_slots import GreedySearch
from open_florence.inference.prepare import Prepared, Preparer
from open_florence.inference.searching import Ended, Search
from open_florence.questions import CLASSIFICATION, Asks, read_ask
from open_florence.schema import Annotation, Region, Size
from open_florence.tasks import Task

if TYPE_CHECKING:
    from open_florence.inference.predictor import Predictor

REFILL = 4
"""New questions are let in when one in so many of the rows is free: encoding several at a time is faster."""

HELD = 4
"""In order, so many times the images that fit into the model may wait, answered, for a slower one before them."""

LIKE = 1.1
"""Questions are encoded together while the longest, with the image's tokens, is at most so many times the shortest."""


@dataclass(slots=True)
class _InFlight:
    """An image between being opened and its last answer."""

    index: int
    levels: NDArray[np.uint8]  # (S, S, 3)
    size: Size
    id: str
    asked: list[tuple[Task, str | Region | None]]
    questions: list[Question]
    answers: dict[int, Annotation] = field(default_factory=dict)
    """By the place of the task."""
    features: Tensor | None = None
    """(N, d), while a question still has to be encoded with them."""


class Engine:
    """One stream of requests through a predictor's model."""

    def __init__(
        self,
        predictor: Predictor,
        settings: GenerationConfig,
        max_images: int,
        workers: int = 0,
        in_order: bool = True,
        with_id: bool = False,
        draft: bool = False,
    ) -> None:
        """`settings` as `Predictor.settings` completes them, without sampling; the rest as in `predict_many`."""
        self.predictor, self.settings, self.max_images = predictor, settings, max_images
        self.workers, self.with_id, self.draft = workers, with_id, draft
        self.slots = max(1, predictor.max_rows // settings.num_beams)
        self.search: Search | None = None
        self.waiting: deque[Question] = deque()
        """Questions about encoded images, for which there was no room yet."""
        self.flying: dict[int, _InFlight] = {}
        """By index: the images with unanswered questions."""
        self.ended: list[Ended] = []
        """Answers of the last step, which are read while the device is busy with the next."""
        self.outbox = _Outbox(in_order)
        self.asks: dict[int, Asks] = {}
        """By index: the tasks of requests whose image is being prepared."""
        self.taken = 0
        """Requests that were taken in."""
        self.is_exhausted = False
        """There are no more of them."""

    def run(self, requests: Iterable[tuple[ImageLike, Asks]]) -> Generator[Answered]:
        """See `Predictor.predict_many`."""
        side, ahead = self.predictor.processor.image_size, 2 * self.max_images + self.workers
        with (
            Preparer(side, self.workers, ahead, self.with_id, self.draft) as preparer,
            contextlib.closing(preparer(self._sources(requests))) as arriving,
        ):
            while not self.is_exhausted or self.flying:
                fresh = self._take(arriving)
                if not self._advance(fresh):
                    yield from self._retry()
                yield from self.outbox.take()

    def _sources(self, requests: Iterable[tuple[ImageLike, Asks]]) -> Iterator[ImageLike]:
        for index, (image, tasks) in enumerate(requests):
            self.asks[index] = tasks
            yield image

    def _take(self, arriving: Iterator[Prepared]) -> list[_InFlight]:
        """The next images, at most `max_images` and only where there is room for their questions."""
        fresh: list[_InFlight] = []
        while self._has_room() and len(fresh) < self.max_images:
            prepared = next(arriving, None)
            if prepared is None:
                self.is_exhausted = True
                break
            self.taken += 1
            image = self._read(prepared, self.asks.pop(prepared.index))
            if image is not None:
                fresh.append(image)
                self.flying[image.index] = image
        return fresh

    def _has_room(self) -> bool:
        if self.is_exhausted or self.taken - self.outbox.sent >= HELD * (self.slots + self.max_images):
            return False
        return len(self.waiting) < self._free()

    def _free(self) -> int:
        """How many questions may be let in: none until it pays."""
        free = self.search.free if self.search else self.slots
        return free if REFILL * free >= self.slots else 0

    def _read(self, prepared: Prepared, asks: Asks) -> _InFlight | None:
        """An image with its questions; None where the model is not needed, and what there is to say is said."""
        index, levels, size, id_, reason = (getattr(prepared, name) for name in Prepared.__slots__)
        if levels is None:
            self.outbox.put(Answered(index, reason=reason))
            return None
        try:
            asked = [read_ask(ask) for ask in asks]
            questions = self.predictor.questions(index, size, asked, self.settings)
        except OpenFlorenceError as error:
            self.outbox.put(failed(index, error, size, id_))
            return None
        if not asked:
            self.outbox.put(Answered(index, [], size, id_))
            return None
        return _InFlight(index, levels, size, id_, asked, questions)

    def _advance(self, fresh: Sequence[_InFlight]) -> bool:
        """Encodes what came, begins what there is room for, and says one token of every answer.

        Returns whether that went well; where it did not, nobody knows which image it was.
        """
        try:
            with torch.inference_mode():
                if fresh:
                    self._encode_images(fresh)
                self._admit()
                if self.search and self.search.active:
                    self.search.begin_step()
            self._finish(self.ended)
            self.ended = self.search.end_step() if self.search and self.search.active else []
        except Exception:  # out of memory, a kernel's own: `_retry` finds out whose it was
            return False
        return True

    def _encode_images(self, images: Sequence[_InFlight]) -> None:
        features = self.predictor.features(np.stack([image.levels for image in images]))  # (I, N, d)
        for image, own in zip(images, features, strict=True):
            try:
                self.predictor.refuse_long(image.questions, len(own))
                for question in image.questions:
                    if question.task.token == CLASSIFICATION:
                        image.answers[question.place] = self.predictor.choose(own[None], question)
            except OpenFlorenceError as error:
                self._fail(image, error)
                continue
            image.features = own
            self.waiting += [question for question in image.questions if question.place not in image.answers]
            self._send_if_done(image)

    def _admit(self) -> None:
        """Encodes questions that wait and gives each a slot, as many as there are."""
        some = [self.waiting.popleft() for _ in range(min(len(self.waiting), self._free()))]
        if not some:
            return
        if self.search is None:
            self.search = self._new_search()
        for questions in _of_like_length(some, len(self._features(some[0]))):
            features = torch.stack([self._features(question) for question in questions])  # (B, N, d)
            self.search.admit(self.predictor.encode(features, questions), questions)
        begun = {question.image for question in some}
        for index in begun - {question.image for question in self.waiting}:
            self.flying[index].features = None

    def _new_search(self) -> Search:
        model = self.predictor.model
        constraints = Constraints.of(self.settings, model.config.text.max_positions)
        kind = GreedySearch if self.settings.num_beams == 1 else SlotBeamSearch
        return kind(model, self.settings, constraints, self.slots)

    def _features(self, question: Question) -> Tensor:
        features = self.flying[question.image].features
        assert features is not None  # kept while a question waits
        return features

    def _finish(self, ended: Sequence[Ended]) -> None:
        """Reads answers in tokens, and sends the images that have them all."""
        for question, said in ended:
            image = self.flying.get(question.image)
            if image is None:  # it failed at another question
                continue
            try:
                image.answers[question.place] = self.predictor.annotation(question, said)
            except Exception as error:
                self._fail(image, error)
                continue
            self._send_if_done(image)

    def _send_if_done(self, image: _InFlight) -> None:
        if len(image.answers) == len(image.asked):
            del self.flying[image.index]
            answers = [image.answers[place] for place in range(len(image.asked))]
            self.outbox.put(Answered(image.index, answers, image.size, image.id))

    def _fail(self, image: _InFlight, error: Exception) -> None:
        del self.flying[image.index]
        self.waiting = deque(question for question in self.waiting if question.image != image.index)
        self.outbox.put(failed(image.index, error, image.size, image.id))

    def _retry(self) -> Iterator[Answered]:
        """Answers every image in flight by itself, from the beginning, after the model failed on all of them."""
        self._finish(self.ended)
        images = list(self.flying.values())
        self.search, self.ended = None, []
        self.waiting.clear()
        self.flying.clear()
        for image in images:
            image.features = None
        for image in images:
            self.outbox.put(self._answer_alone(image))
            yield from self.outbox.take()

    def _answer_alone(self, image: _InFlight) -> Answered:
        try:
            answers = self.predictor.answer(image.levels[None], [image.size], [image.asked], self.settings)
            return Answered(image.index, answers[0], image.size, image.id)
        except Exception as error:  # whatever it is, it must not end a stream of a million images
            return failed(image.index, error, image.size, image.id)


class _Outbox:
    """Requests that are done, until they are handed out: in the order of the stream, or as they come."""

    def __init__(self, in_order: bool) -> None:
        self.sent = 0
        """How many were handed out."""
        self._in_order = in_order
        self._done: dict[int, Answered] = {}

    def put(self, answered: Answered) -> None:
        """Takes in what is done."""
        self._done[answered.index] = answered

    def take(self) -> Iterator[Answered]:
        """Hands out what may be."""
        while self._done:
            index = self.sent if self._in_order else next(iter(self._done))
            if index not in self._done:
                return
            self.sent += 1
            yield self._done.pop(index)


def _of_like_length(questions: Sequence[Question], visual: int) -> Iterator[list[Question]]:
    """The questions in groups that are padded little, beside `visual` tokens of the image each."""
    group: list[Question] = []
    for question in sorted(questions, key=lambda question: len(question.ids)):
        if group and visual + len(question.ids) > LIKE * (visual + len(group[0].ids)):
            yield group
            group = []
        group.append(question)
    yield group
