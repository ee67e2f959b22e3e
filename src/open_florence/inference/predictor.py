"""Images and tasks in, annotations out: the image is encoded once, however many questions are asked about it.

The tower takes most of the time of an answer, so questions about one image are answered in one batch, and several
images' questions together. Letters: I images, B questions, L prompt tokens, N visual tokens, d width of the model.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.images import ImageLike, open_image
from open_florence.inference.asking import Asking, Question, Said
from open_florence.inference.batches import Answered, in_batches
from open_florence.inference.calibration import Calibration
from open_florence.inference.engine import Engine
from open_florence.inference.generate import generate
from open_florence.inference.openvino import check_request, choose_backend, load_openvino
from open_florence.inference.pretrained import SHIPPED, find_folder, format_and_place, load_model
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.questions import CLASSIFICATION, SEPARATOR, Ask, Asks, read_ask, read_labels
from open_florence.schema import Annotation, Region, Size
from open_florence.tasks import Task, find_task


class Predictor(Asking):
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
        super().__init__(model, processor, source, max_rows, calibration)
        self.max_images = max_images

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        backend: str | None = None,
    ) -> Predictor:
        """By name: "tiny", which ships with the package, a folder, or a name on the hub. See `load_model`.

        `backend` "openvino" computes with OpenVINO, on the CPU only, see `load_openvino`; it is "torch" unless given,
        but for a folder that `open-florence export --format openvino` wrote. Scores are calibrated where the checkpoint
        holds a calibration.json.
        """
        if choose_backend(name_or_folder, backend) == "openvino":
            check_request(dtype, device)
            folder = find_folder(name_or_folder)
            compiled, processor = load_openvino(folder, dtype, device)
            model = cast(Florence, compiled)  # it has the methods that answering takes
        else:
            format_and_place(dtype, device)  # what cannot be is refused before anything is downloaded
            folder = find_folder(name_or_folder)
            model, processor = load_model(folder, dtype=dtype, device=device)
            model.pack()
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
        settings = self.settings(published, generation)
        asked = [(image, [read_ask(ask) for ask in asks]) for image, asks in requests]
        answers: list[list[Annotation]] = []
        for some in _chunks(asked, self.max_images):
            pictures = [open_image(image) for image, _ in some]
            levels = np.stack([self.processor.resized(picture) for picture in pictures])
            answers += self.answer(levels, list(map(_size, pictures)), [tasks for _, tasks in some], settings)
        return answers

    def predict_many(
        self,
        requests: Iterable[tuple[ImageLike, Asks]],
        published: bool = False,
        generation: GenerationConfig | None = None,
        *,
        workers: int = 0,
        in_order: bool = True,
        with_id: bool = False,
        draft: bool = False,
        max_images: int | None = None,
    ) -> Generator[Answered]:
        """Any number of requests, (image, tasks) as in `predict_each`, answered as a stream: the way to ask millions.

        Yields an `Answered` per request, in order or, with `in_order` False, as each is done. An image that cannot be
        opened, a question that the model refuses or fails at, is one with a `reason`, and costs the others nothing.
        The answers are those of `predict`, scores up to float noise. Memory does not grow with the stream: `requests`,
        which is iterated in a background thread, is read only as far as there is room, and nothing happens while
        nobody asks for the next answer. Closing the generator ends everything it began.

        `workers`: processes that open and resize images ahead of the model (0: one thread). `max_images` are encoded
        at a time, as the predictor says unless given. `with_id` adds each image's `image_id`. `draft` decodes large
        JPEGs at a half, a quarter or an eighth, which is two to three times faster and moves pixels a little (see
        `Preparer`); not together with `with_id`, which needs every pixel. Where a generation samples, or an engine
        other than PyTorch has no slots, requests are answered in batches of `max_images`, and `workers`, `in_order`
        and `draft` mean nothing. Raises OpenFlorenceError for settings that make no sense.
        """
        settings = self.settings(published, generation)
        images = self.max_images if max_images is None else max_images
        if images < 1:
            raise OpenFlorenceError(f"max_images is at least 1, not {images}")
        if draft and with_id:
            raise OpenFlorenceError("an id needs every pixel of an image, so draft and with_id exclude each other")
        if settings.do_sample or not hasattr(self.model, "new_slots"):
            return in_batches(partial(self.predict_each, generation=settings), requests, images, with_id)
        return Engine(self, settings, images, workers, in_order, with_id, draft).run(requests)

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
            levels = self.processor.resized(picture)[None]
            memory = self.encode(self.features(levels), self.questions(0, _size(picture), [(task, query)]))
            return self.label_probabilities(memory, read_labels(query))

    def answer(
        self,
        levels: NDArray[np.uint8],
        sizes: Sequence[Size],
        asked: Sequence[Sequence[tuple[Task, str | Region | None]]],
        settings: GenerationConfig,
    ) -> list[list[Annotation]]:
        """One batch: what is asked about each of the images, at most `max_images` of them.

        `levels` (I, S, S, 3), see `Processor.resized`; `sizes` (width, height) of the original images, in pixels.
        """
        questions = [
            question
            for image, (size, tasks) in enumerate(zip(sizes, asked, strict=True))
            for question in self.questions(image, size, tasks, settings)
        ]
        questions.sort(key=lambda question: question.task.token)  # answers of like length are decoded together
        answers: dict[tuple[int, int], Annotation] = {}
        with torch.inference_mode():
            features = self.features(levels)
            choices = [question for question in questions if question.task.token == CLASSIFICATION]
            for question in choices:
                answers[question.image, question.place] = self.choose(features[question.image][None], question)
            written = [question for question in questions if question.task.token != CLASSIFICATION]
            for some in _chunks(written, max(1, self.max_rows // settings.num_beams)):
                answers |= self._write(features, some, settings)
        return [[answers[image, place] for place in range(len(tasks))] for image, tasks in enumerate(asked)]

    def _write(
        self, features: Tensor, questions: Sequence[Question], settings: GenerationConfig
    ) -> dict[tuple[int, int], Annotation]:
        """Answers in the model's own words: one batch. `features` (I, N, d)."""
        rows = torch.tensor([question.image for question in questions], device=self.model.device)
        automata = [question.automaton for question in questions]
        found = generate(self.model, self.encode(features[rows], questions), settings, automata)
        said = map(Said, found.ids, found.logprobs, found.stopped, found.bins)
        return {(q.image, q.place): self.annotation(q, answer) for q, answer in zip(questions, said, strict=True)}


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
