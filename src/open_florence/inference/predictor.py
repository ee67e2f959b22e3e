"""Images and tasks in, annotations out: the image is encoded once, however many questions are asked about it.

The tower takes most of the time of an answer, so questions about one image are answered in one batch, and several
images' questions together. Letters: I images, B questions, L prompt tokens, N visual tokens, d width of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.images import open_image
from open_florence.inference.calibration import Calibration
from open_florence.inference.generate import generate
from open_florence.inference.pretrained import SHIPPED, find_folder, format_and_place, load_model
from open_florence.inference.score import score_answers
from open_florence.model.florence import Florence, Memory
from open_florence.processor import Processor
from open_florence.questions import CLASSIFICATION, SEPARATOR, Ask, Asks, read_ask, read_labels
from open_florence.schema import Annotation, Region, Size
from open_florence.tasks import Task, find_task


@dataclass(frozen=True, slots=True)
class _Question:
    """One task asked about one image."""

    image: int
    """Its place among the images of the batch."""
    place: int
    """Its place among the tasks."""
    task: Task
    query: str | Region | None
    sentence: str


class Predictor:
    """A model and its processor, ready to answer.

    `predictor.predict("photo.jpg", "<OD>")` gives one `Annotation`, a list of tasks a list of them. Coordinates, in
    queries and answers, are pixels of the original image. Without other settings the answer is the likeliest token
    after the likeliest token and nothing is banned; `published=True` decodes as Microsoft's checkpoints are published
    (3 beams, no three tokens in a row twice): often the better caption, but it breaks answers that rightly repeat.
    """

    def __init__(
        self,
        model: Florence,
        processor: Processor,
        source: str = "",
        max_rows: int = 64,
        max_images: int = 8,
        calibration: Calibration | None = None,
    ) -> None:
        """`source` is written into every annotation. At most `max_rows` beams are decoded and `max_images` images
        encoded at a time, which bounds the memory; neither changes an answer. `calibration` makes probabilities of the
        scores of regions (`Calibration.apply`); it has to be of this very model."""
        self.model = model.eval()
        self.processor = processor
        self.source = source
        self.max_rows = max_rows
        self.max_images = max_images
        self.calibration = calibration

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> Predictor:
        """By name: "tiny", which ships with the package, a folder, or a name on the hub. See `load_model`.

        Scores are calibrated where the checkpoint holds a calibration.json.
        """
        format_and_place(dtype, device)  # what cannot be is refused before anything is downloaded
        folder = find_folder(name_or_folder)
        model, processor = load_model(folder, dtype=dtype, device=device)
        return cls(model, processor, source_name(name_or_folder), calibration=Calibration.load(folder))

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
        """The answer to a task about one image, or the answers to a list of tasks.

        `image`: a path, a PIL image, an array (height, width, 3) or bytes. `tasks`: "<OD>", ("<OD>", query), or a list
        of such; a sentence asks it as it stands. `generation` replaces the default settings; `published` is short for
        `GenerationConfig.published()`. Returns an `Annotation`, or a list of them for a list. Raises OpenFlorenceError
        for an unreadable image, an unknown task, a missing query, or a question too long for the model.
        """
        answers = self.predict_batch([image], tasks, published, generation)[0]
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
        """Each image with tasks of its own, (image, tasks) by (image, tasks): one list of answers per request.

        What `predict_batch` is for when the queries differ between images. Arguments as in `predict`.
        """
        settings = self._settings(published, generation)
        asked = [(image, [read_ask(ask) for ask in asks]) for image, asks in requests]
        answers: list[list[Annotation]] = []
        for some in _chunks(asked, self.max_images):
            answers += self._answer(some, settings)
        return answers

    def classify(self, image: Any, labels: str | Sequence[str]) -> dict[str, float]:
        """How probable each label is among those given, the likeliest first; the probabilities sum to 1.

        A label's weight is the probability that the model answers the caption's question with exactly this label and
        then stops; it is not divided by the label's length, so that the weights are those of whole answers. `labels`:
        a list, or "cat<and>dog".
        """
        task = find_task(CLASSIFICATION)
        query = SEPARATOR.join(read_labels(labels))
        with torch.inference_mode():
            picture = open_image(image)
            question = _Question(0, 0, task, query, task.question(query, _size(picture)))
            memory = self._encode(self._features([picture]), [question])
            return self._label_probabilities(memory, read_labels(query))

    def _answer(
        self, requests: Sequence[tuple[Any, list[tuple[Task, str | Region | None]]]], settings: GenerationConfig
    ) -> list[list[Annotation]]:
        """The answers of at most `max_images` requests."""
        pictures = [open_image(image) for image, _ in requests]
        sizes = [_size(picture) for picture in pictures]
        questions = [
            _Question(image, place, task, query, task.question(query, sizes[image]))
            for image, (_, asked) in enumerate(requests)
            for place, (task, query) in enumerate(asked)
        ]
        questions.sort(key=lambda question: question.task.token)  # answers of like length are decoded together
        answers: dict[tuple[int, int], Annotation] = {}
        with torch.inference_mode():
            features = self._features(pictures)
            choices = [question for question in questions if question.task.token == CLASSIFICATION]
            for question in choices:
                answers[question.image, question.place] = self._choose(features, question)
            written = [question for question in questions if question.task.token != CLASSIFICATION]
            for some in _chunks(written, max(1, self.max_rows // settings.num_beams)):
                answers |= self._write(features, some, sizes, settings)
        return [[answers[image, place] for place in range(len(asked))] for image, (_, asked) in enumerate(requests)]

    def _write(
        self, features: Tensor, questions: Sequence[_Question], sizes: list[Size], settings: GenerationConfig
    ) -> dict[tuple[int, int], Annotation]:
        """Answers in the model's own words: one batch. `features` (I, N, d)."""
        generation = generate(self.model, self._encode(features, questions), settings)
        answers = {}
        for question, ids, logprobs, stopped, bins in zip(
            questions, generation.ids, generation.logprobs, generation.stopped, generation.bins, strict=True
        ):
            size, finished = sizes[question.image], stopped == "eos"
            annotation = self.processor.decode(question.task, ids, logprobs, size, question.query, finished, bins)
            if self.calibration is not None:
                annotation = self.calibration.apply(annotation)
            answers[question.image, question.place] = replace(annotation, source=self.source)
        return answers

    def _choose(self, features: Tensor, question: _Question) -> Annotation:
        """The likeliest of the labels in the query. `features` (I, N, d)."""
        labels = read_labels(str(question.query))
        probabilities = self._label_probabilities(self._encode(features, [question]), labels)
        best, score = next(iter(probabilities.items()))
        return Annotation(question.task.token, best, query=question.query, source=self.source, score=score)

    def _label_probabilities(self, memory: Memory, labels: list[str]) -> dict[str, float]:
        answers = [self.processor.tokenizer.encode(label) for label in labels]
        for label, ids in zip(labels, answers, strict=True):
            if len(ids) > self.model.config.text.max_positions:
                raise OpenFlorenceError(
                    f"the label {label[:40]!r}... is {len(ids)} tokens long, too long for this model"
                )
        logprobs = score_answers(self.model, memory, answers, self._vocabulary(), self.max_rows)
        probabilities = dict(zip(labels, logprobs.softmax(0).tolist(), strict=True))
        return dict(sorted(probabilities.items(), key=lambda item: -item[1]))

    def _features(self, pictures: Sequence[Any]) -> Tensor:
        """PIL images -> image features (I, N, d), on the model's device."""
        return self.model.encode_image(torch.from_numpy(self.processor.pixels(pictures)).to(self.model.device))

    def _encode(self, features: Tensor, questions: Sequence[_Question]) -> Memory:
        """Each question joined with the features of its image; `features` (I, N, d) -> a memory of B rows."""
        input_ids, mask = map(torch.from_numpy, self.processor.prompts([q.sentence for q in questions]))  # (B, L)
        visual, limit = features.shape[1], self.model.config.text.max_positions
        if visual + input_ids.shape[1] > limit:
            longest = questions[int(mask.sum(1).argmax())]
            raise OpenFlorenceError(
                f"the question for {longest.task.token[:40]} has {input_ids.shape[1]} tokens, and beside the image's "
                f"{visual} this model reads only {limit - visual}: {longest.sentence[:60]!r}..."
            )
        rows = torch.tensor([question.image for question in questions], device=self.model.device)
        return self.model.encode(features[rows], input_ids.to(self.model.device), mask.to(self.model.device))

    def _settings(self, published: bool, generation: GenerationConfig | None) -> GenerationConfig:
        if published and generation is not None:
            raise OpenFlorenceError("published=True is a generation setting of its own: give one of the two")
        settings = GenerationConfig.published() if published else generation or GenerationConfig()
        if settings.num_return_sequences > 1:
            raise OpenFlorenceError("a Predictor gives one answer to a question: num_return_sequences has to be 1")
        tokenizer = self.processor.tokenizer
        window = settings.location_window
        return replace(
            settings,
            vocabulary=self._vocabulary() if settings.vocabulary is None else settings.vocabulary,
            suppressed=(*settings.suppressed, *self._placeholder()),
            location_window=self.processor.location_window if window is None else window,
            locations=settings.locations or (tokenizer.location_start, tokenizer.location_count),
        )

    def _vocabulary(self) -> int:
        """Ids with a meaning: published files end in rows that only pad the embedding table."""
        config, known = self.model.config, len(self.processor.tokenizer)
        if config.image_token_id is not None and known > config.image_token_id + 1:  # tokens were added after it
            return min(config.text.vocab_size, known)
        return min(config.used_vocab, known)

    def _placeholder(self) -> tuple[int, ...]:
        """The id of the image placeholder where it stands among those with a meaning: it is never said."""
        image = self.model.config.image_token_id
        return () if image is None or image >= self._vocabulary() else (image,)


def source_name(name_or_folder: str | Path) -> str:
    """What annotations of a checkpoint call their source: "open-florence-tiny", a folder's name, or a hub name."""
    name = str(name_or_folder)
    if re.fullmatch(r"[\w-]+", name) and (SHIPPED / name).is_dir():
        return f"open-florence-{name}"
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    folder = folder.resolve()  # `finetune` calls every checkpoint "checkpoint", and its run has the name
    return folder.parent.name if folder.name == "checkpoint" else folder.name


def _size(picture: Any) -> Size:
    """(width, height) in pixels."""
    return float(picture.width), float(picture.height)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
