"""From a question about an image to its annotation, step by step: what one answer, a batch and the engine share.

Letters: I images, B questions, L prompt tokens, N visual tokens, S side of the model's images in pixels, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig, Stopped
from open_florence.inference.calibration import Calibration
from open_florence.inference.pixels import pixel_values
from open_florence.inference.score import score_answers
from open_florence.legal_tokens import Automaton, automaton
from open_florence.model.florence import Florence, Memory
from open_florence.processor import Processor
from open_florence.questions import read_labels
from open_florence.schema import Annotation, Region, Size
from open_florence.tasks import Task


@dataclass(frozen=True, slots=True)
class Question:
    """One task asked about one image."""

    image: int
    """Its place among the images of the batch, or of the stream."""
    place: int
    """Its place among the tasks asked about the image."""
    task: Task
    query: str | Region | None
    sentence: str
    ids: list[int]
    """The sentence's tokens."""
    size: Size
    """(width, height) of the original image, in pixels."""
    automaton: Automaton | None = None
    """What its answer keeps to where it is `constrained`; None allows everything."""


class Said(NamedTuple):
    """An answer in tokens, as `Generation` has it."""

    ids: list[int]
    logprobs: list[float]
    stopped: Stopped
    bins: list[float]


class Asking:
    """A model and its processor, and the steps between a question and its annotation."""

    def __init__(
        self,
        model: Florence,
        processor: Processor,
        source: str = "",
        max_rows: int = 64,
        calibration: Calibration | None = None,
    ) -> None:
        """Arguments as in `Predictor`."""
        self.model = model.eval()
        self.processor = processor
        self.source = source
        self.max_rows = max_rows
        self.calibration = calibration

    def questions(
        self,
        image: int,
        size: Size,
        asked: Sequence[tuple[Task, str | Region | None]],
        settings: GenerationConfig | None = None,
    ) -> list[Question]:
        """What is asked about one image, worded. `settings`, completed, as far as answers are `constrained`.

        Raises OpenFlorenceError for a query that is not its task's kind.
        """
        tokenizer, questions = self.processor.tokenizer, []
        for place, (task, query) in enumerate(asked):
            sentence, kept = task.question(query, size), None
            if settings is not None and settings.constrained:
                kept = automaton(task, query, tokenizer, settings.vocabulary or self.vocabulary())
            questions.append(Question(image, place, task, query, sentence, tokenizer.encode(sentence), size, kept))
        return questions

    def features(self, levels: NDArray[np.uint8]) -> Tensor:
        """Resized images (I, S, S, 3), see `Processor.resized` -> image features (I, N, d), on the model's device."""
        return self.model.encode_image(pixel_values(self.processor, levels, self.model.device))

    def encode(self, features: Tensor, questions: Sequence[Question]) -> Memory:
        """Each question joined with the features of its image, (B, N, d) -> a memory of B rows.

        Raises OpenFlorenceError where one is too long for the model.
        """
        self.refuse_long(questions, features.shape[1])
        input_ids, mask = map(torch.from_numpy, self.processor.padded([question.ids for question in questions]))
        return self.model.encode(features, input_ids.to(self.model.device), mask.to(self.model.device))

    def refuse_long(self, questions: Sequence[Question], visual: int) -> None:
        """Raises OpenFlorenceError where a question does not fit beside `visual` tokens of the image."""
        limit = self.model.config.text.max_positions
        longest = max(questions, key=lambda question: len(question.ids))
        if visual + len(longest.ids) > limit:
            raise OpenFlorenceError(
                f"the question for {longest.task.token[:40]} has {len(longest.ids)} tokens, and beside the image's "
                f"{visual} this model reads only {limit - visual}: {longest.sentence[:60]!r}..."
            )

    def annotation(self, question: Question, said: Said) -> Annotation:
        """What an answer in tokens says about the image, scored."""
        ids, logprobs, stopped, bins = said
        annotation = self.processor.decode(
            question.task, ids, logprobs, question.size, question.query, stopped == "eos", bins
        )
        if self.calibration is not None:
            annotation = self.calibration.apply(annotation)
        return replace(annotation, source=self.source)

    def choose(self, features: Tensor, question: Question) -> Annotation:
        """The likeliest of the labels in the query. `features` (1, N, d) of the question's image."""
        labels = read_labels(str(question.query))
        probabilities = self.label_probabilities(self.encode(features, [question]), labels)
        best, score = next(iter(probabilities.items()))
        return Annotation(question.task.token, best, query=question.query, source=self.source, score=score)

    def label_probabilities(self, memory: Memory, labels: list[str]) -> dict[str, float]:
        """How probable each label is as the whole answer to the one question of `memory`, the likeliest first."""
        answers = [self.processor.tokenizer.encode(label) for label in labels]
        for label, ids in zip(labels, answers, strict=True):
            if len(ids) > self.model.config.text.max_positions:
                raise OpenFlorenceError(
                    f"the label {label[:40]!r}... is {len(ids)} tokens long, too long for this model"
                )
        logprobs = score_answers(self.model, memory, answers, self.vocabulary(), self.max_rows)
        probabilities = dict(zip(labels, logprobs.softmax(0).tolist(), strict=True))
        return dict(sorted(probabilities.items(), key=lambda item: -item[1]))

    def settings(self, published: bool, generation: GenerationConfig | None) -> GenerationConfig:
        """The settings of a call, completed by what the model says. Raises OpenFlorenceError where they contradict."""
        if published and generation is not None:
            raise OpenFlorenceError("published=True is a generation setting of its own: give one of the two")
        settings = GenerationConfig.published() if published else generation or GenerationConfig()
        if settings.num_return_sequences > 1:
            raise OpenFlorenceError("a Predictor gives one answer to a question: num_return_sequences has to be 1")
        tokenizer = self.processor.tokenizer
        window = settings.location_window
        return replace(
            settings,
            vocabulary=self.vocabulary() if settings.vocabulary is None else settings.vocabulary,
            suppressed=(*settings.suppressed, *self._placeholder()),
            location_window=self.processor.location_window if window is None else window,
            locations=settings.locations or (tokenizer.location_start, tokenizer.location_count),
        )

    def vocabulary(self) -> int:
        """Ids with a meaning: published files end in rows that only pad the embedding table."""
        config, known = self.model.config, len(self.processor.tokenizer)
        if config.image_token_id is not None and known > config.image_token_id + 1:  # tokens were added after it
            return min(config.text.vocab_size, known)
        return min(config.used_vocab, known)

    def _placeholder(self) -> tuple[int, ...]:
        """The id of the image placeholder where it stands among those with a meaning: it is never said."""
        image = self.model.config.image_token_id
        return () if image is None or image >= self.vocabulary() else (image,)
