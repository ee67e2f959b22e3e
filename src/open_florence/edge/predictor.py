"""Images and tasks in, annotations out, from the folder of an ONNX export: what `Predictor` answers, without PyTorch.

Letters: I images, B questions, L prompt tokens, N visual tokens, d width of the model, T answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from open_florence.edge.folder import PARTS, find_format, part_path, read_config
from open_florence.edge.network import Decoding, Memory, Network, Part
from open_florence.edge.rules import Floats, log_softmax
from open_florence.edge.search import search
from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.images import open_image
from open_florence.inference.calibration import Calibration
from open_florence.model.config import FlorenceConfig
from open_florence.processor import Processor
from open_florence.questions import CLASSIFICATION, SEPARATOR, Ask, Asks, read_ask, read_labels
from open_florence.schema import Annotation, Region, Size
from open_florence.tasks import Task, find_task


@dataclass(frozen=True, slots=True)
class _Question:
    """One task asked about the image."""

    place: int
    """Its place among the tasks."""
    task: Task
    query: str | Region | None
    sentence: str


class EdgePredictor:
    """An exported model and its processor, ready to answer.

    `EdgePredictor.from_folder("exported").predict("photo.jpg", "<OD>")`: arguments and answers are those of
    `Predictor`, coordinates pixels of the original image. It needs NumPy, tokenizers, Pillow and onnxruntime.
    """

    def __init__(
        self,
        network: Network,
        processor: Processor,
        config: FlorenceConfig,
        source: str = "",
        max_rows: int = 16,
        calibration: Calibration | None = None,
    ) -> None:
        """`source` is written into every annotation. At most `max_rows` beams are decoded at a time, which bounds the
        memory and changes no answer. `calibration` makes probabilities of the scores of regions; it has to be of this
        very model."""
        self.network = network
        self.processor = processor
        self.config = config
        self.source = source
        self.max_rows = max_rows
        self.calibration = calibration

    @classmethod
    def from_folder(cls, folder: str | Path, dtype: str | None = None, threads: int | None = None) -> EdgePredictor:
        """What `open-florence export --format onnx` wrote, or a downloaded repository of onnx-community.

        `dtype` is float32, float16 or int8; the first of these that the folder holds unless given. `threads` is how
        many work on one answer; all cores unless given. Scores are calibrated where the folder holds a
        calibration.json. Raises OpenFlorenceError for a folder that holds no export, or not in that format.
        """
        folder = Path(folder).expanduser()
        if threads is not None and threads < 1:
            raise OpenFlorenceError(f"threads is at least 1, not {threads}")
        chosen, config = find_format(folder, dtype), read_config(folder)
        network = Network((Part(part_path(folder, name, chosen), threads) for name in PARTS), config.text)
        network.open_ahead()
        calibration = Calibration.load(folder)
        return cls(network, Processor.from_folder(folder), config, folder.resolve().name, calibration=calibration)

    @overload
    def predict(
        self, image: Any, tasks: Ask, published: bool = False, generation: GenerationConfig | None = None
    ) -> Annotation: ...

    @overload
    def predict(
        self, image: Any, tasks: Asks, published: bool = False, generation: GenerationConfig | None = None
    ) -> list[Annotation]: ...

    def predict(
        self, image: Any, tasks: Ask | Asks, published: bool = False, generation: GenerationConfig | None = None
    ) -> Annotation | list[Annotation]:
        """The answer to a task about one image, or the answers to a list of tasks; the image is encoded once.

        Arguments, answers and errors are those of `Predictor.predict`; sampling raises OpenFlorenceError.
        """
        asks = tasks if isinstance(tasks, list) else [tasks]
        answers = self.predict_each([(image, asks)], published, generation)[0]
        return answers if isinstance(tasks, list) else answers[0]

    def predict_batch(
        self,
        images: Sequence[Any],
        tasks: Ask | Asks,
        published: bool = False,
        generation: GenerationConfig | None = None,
    ) -> list[list[Annotation]]:
        """Every task about every image: one list per image, in the order of the tasks. Arguments as in `predict`."""
        asks = tasks if isinstance(tasks, list) else [tasks]
        return self.predict_each([(image, asks) for image in images], published, generation)

    def predict_each(
        self,
        requests: Sequence[tuple[Any, Asks]],
        published: bool = False,
        generation: GenerationConfig | None = None,
    ) -> list[list[Annotation]]:
        """Each image with tasks of its own, (image, tasks) by (image, tasks), one after the other.

        On a few cores several images at a time would be no faster. Arguments as in `predict`.
        """
        settings = self._settings(published, generation)
        asked = [(image, [read_ask(ask) for ask in asks]) for image, asks in requests]
        return [self._answer(open_image(image), tasks, settings) for image, tasks in asked]

    def classify(self, image: Any, labels: str | Sequence[str]) -> dict[str, float]:
        """How probable each label is among those given, the likeliest first: as `Predictor.classify`."""
        picture, task, query = open_image(image), find_task(CLASSIFICATION), SEPARATOR.join(read_labels(labels))
        question = _Question(0, task, query, task.question(query, _size(picture)))
        return self._label_probabilities(self._features(picture), question)

    def _answer(
        self, picture: Any, asked: Sequence[tuple[Task, str | Region | None]], settings: GenerationConfig
    ) -> list[Annotation]:
        """Every task about one image, which is encoded once."""
        size = _size(picture)
        questions = [
            _Question(place, task, query, task.question(query, size)) for place, (task, query) in enumerate(asked)
        ]
        questions.sort(key=lambda question: question.task.token)  # answers of like length are decoded together
        features = self._features(picture)
        answers: dict[int, Annotation] = {}
        for question in questions:
            if question.task.token == CLASSIFICATION:
                label, score = next(iter(self._label_probabilities(features, question).items()))
                answers[question.place] = Annotation(
                    CLASSIFICATION, label, query=question.query, source=self.source, score=score
                )
        written = [question for question in questions if question.place not in answers]
        for some in _chunks(written, max(1, self.max_rows // settings.num_beams)):
            answers |= self._write(features, some, size, settings)
        return [answers[place] for place in range(len(asked))]

    def _write(
        self, features: Floats, questions: Sequence[_Question], size: Size, settings: GenerationConfig
    ) -> dict[int, Annotation]:
        """Answers in the model's own words: one batch. `features` (1, N, d)."""
        decoding = Decoding(self.network, self._encode(features, questions))
        generation = search(decoding, len(questions), self.config.text.max_positions, settings)
        answers = {}
        for question, ids, logprobs, stopped, bins in zip(
            questions, generation.ids, generation.logprobs, generation.stopped, generation.bins, strict=True
        ):
            finished = stopped == "eos"
            annotation = self.processor.decode(question.task, ids, logprobs, size, question.query, finished, bins)
            if self.calibration is not None:
                annotation = self.calibration.apply(annotation)
            answers[question.place] = replace(annotation, source=self.source)
        return answers

    def _label_probabilities(self, features: Floats, question: _Question) -> dict[str, float]:
        """How probable each label of the query is, the likeliest first. `features` (1, N, d)."""
        labels = read_labels(str(question.query))
        answers = [self.processor.tokenizer.encode(label) for label in labels]
        for label, ids in zip(labels, answers, strict=True):
            if len(ids) > self.config.text.max_positions:
                raise OpenFlorenceError(
                    f"the label {label[:40]!r}... is {len(ids)} tokens long, too long for this model"
                )
        memory = self._encode(features, [question])
        totals = np.concatenate([self._score(memory, some) for some in _chunks(answers, self.max_rows)])  # (labels,)
        probabilities = dict(zip(labels, np.exp(log_softmax(totals)).tolist(), strict=True))
        return dict(sorted(probabilities.items(), key=lambda item: -item[1]))

    def _score(self, memory: Memory, answers: Sequence[Sequence[int]]) -> Floats:
        """Log-probabilities (B,) of whole answers to the one question of `memory`, as `inference.score` gives them."""
        text = self.config.text
        lengths = np.array([len(ids) for ids in answers])  # (B,)
        said = np.full((len(answers), lengths.max()), text.pad, np.int64)  # (B, T)
        for row, ids in zip(said, answers, strict=True):
            row[: len(ids)] = ids
        heard = np.roll(said, 1, 1)  # what the decoder reads before each token
        heard[:, 0] = text.decoder_start
        decoding = Decoding(self.network, memory.rows(np.zeros(len(answers), np.int64)))
        logprobs = log_softmax(decoding.logits(heard)[:, :, : self._vocabulary()])  # (B, T, V)
        chosen = np.take_along_axis(logprobs, said[:, :, None], 2)[:, :, 0]  # (B, T)
        place = np.arange(said.shape[1])
        counted = (place > 0) & (place < lengths[:, None])  # the first token is given
        return np.where(counted, chosen, 0).sum(1, dtype=np.float32)  # type: ignore[no-any-return]

    def _features(self, picture: Any) -> Floats:
        """A PIL image -> its features (1, N, d)."""
        return self.network.encode_image(self.processor.pixels([picture]))

    def _encode(self, features: Floats, questions: Sequence[_Question]) -> Memory:
        """Each question joined with the features (1, N, d) of the image -> a memory of B rows."""
        input_ids, mask = self.processor.prompts([question.sentence for question in questions])  # (B, L)
        visual, limit = features.shape[1], self.config.text.max_positions
        if visual + input_ids.shape[1] > limit:
            longest = questions[int(mask.sum(1).argmax())]
            raise OpenFlorenceError(
                f"the question for {longest.task.token[:40]} has {input_ids.shape[1]} tokens, and beside the image's "
                f"{visual} this model reads only {limit - visual}: {longest.sentence[:60]!r}..."
            )
        return self.network.encode(features.repeat(len(questions), 0), input_ids, mask)

    def _settings(self, published: bool, generation: GenerationConfig | None) -> GenerationConfig:
        """The settings of a call with what only the model knows filled in, as `Predictor` does it."""
        if published and generation is not None:
            raise OpenFlorenceError("published=True is a generation setting of its own: give one of the two")
        settings = GenerationConfig.published() if published else generation or GenerationConfig()
        if settings.num_return_sequences > 1:
            raise OpenFlorenceError("a predictor gives one answer to a question: num_return_sequences has to be 1")
        tokenizer, window, vocabulary = self.processor.tokenizer, settings.location_window, self._vocabulary()
        image = self.config.image_token_id
        placeholder = () if image is None or image >= vocabulary else (image,)
        return replace(
            settings,
            vocabulary=vocabulary if settings.vocabulary is None else settings.vocabulary,
            suppressed=(*settings.suppressed, *placeholder),
            location_window=self.processor.location_window if window is None else window,
            locations=settings.locations or (tokenizer.location_start, tokenizer.location_count),
        )

    def _vocabulary(self) -> int:
        """Ids with a meaning: published files end in rows that only pad the embedding table."""
        config, known = self.config, len(self.processor.tokenizer)
        if config.image_token_id is not None and known > config.image_token_id + 1:  # tokens were added after it
            return min(config.text.vocab_size, known)
        return min(config.used_vocab, known)


def _size(picture: Any) -> Size:
    """(width, height) in pixels."""
    return float(picture.width), float(picture.height)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
