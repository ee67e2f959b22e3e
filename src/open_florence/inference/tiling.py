"""Images larger than the model's input, read in overlapping tiles beside the whole.

A picture of 4,000 pixels squeezed into 768 has nothing small left in it. Tiles of the model's own size show every
pixel, the whole image shows what is larger than a tile, and `tile_fusion` makes one answer of all. It costs as many
times the time as there are tiles; an image that is no larger than one gets exactly the plain answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.geometry import region_box
from open_florence.images import ImageLike, open_image
from open_florence.inference.batches import Answered, in_batches
from open_florence.inference.seams import Seen, seen
from open_florence.inference.tile_fusion import merge_described, merge_named, merge_text, refine_mask
from open_florence.questions import Ask, Asks, Query, read_ask
from open_florence.reading_order import read_text
from open_florence.schema import Annotation, Region, Size
from open_florence.tiles import Window, tiles

if TYPE_CHECKING:
    from open_florence.inference.predictor import Predictor
    from open_florence.inference.views import ViewPredictor

Merge = Callable[[Sequence[Seen], Sequence[Seen], Sequence[Window]], tuple[Region, ...]]

MASK = "<REFERRING_EXPRESSION_SEGMENTATION>"
"""Asked only of the tiles that show where the whole image has its mask."""

MERGES: dict[str, Merge] = {
    "<OD>": merge_named,
    "<OPEN_VOCABULARY_DETECTION>": merge_named,
    "<CAPTION_TO_PHRASE_GROUNDING>": merge_named,
    "<DENSE_REGION_CAPTION>": merge_described,
    "<REGION_PROPOSAL>": merge_described,
    "<OCR_WITH_REGION>": merge_text,
    MASK: refine_mask,
}
"""Tasks that tiles are asked, and how their answers become one; every other is asked about the whole image alone."""

TEXT, PLACED_TEXT = "<OCR>", "<OCR_WITH_REGION>"
"""The first is read in tiles too: it is what stands in the regions of the second, in reading order."""

OVERLAP = 0.2

Question = tuple[str, Query]
"""A task's token and its query."""


@dataclass(frozen=True, slots=True)
class _Look:
    """One image, what is asked about it, and the tiles it is read in: none where it is small enough."""

    picture: Image.Image
    questions: list[Question]
    windows: list[Window]

    @property
    def size(self) -> Size:
        """(width, height) in pixels."""
        return float(self.picture.width), float(self.picture.height)

    @property
    def in_tiles(self) -> list[Question]:
        """What the tiles are asked, each once."""
        if not self.windows:
            return []
        asked = ((PLACED_TEXT, None) if token == TEXT else (token, query) for token, query in self.questions)
        return list(dict.fromkeys(question for question in asked if question[0] in MERGES))

    @property
    def of_whole(self) -> list[Question]:
        """What the whole image is asked: everything, and first what the answer in tiles needs."""
        return [*self.questions, *(question for question in self.in_tiles if question not in self.questions)]


class TilePredictor:
    """A predictor that reads large images in overlapping tiles as well as whole, and answers in pixels of the whole."""

    def __init__(
        self,
        predictor: Predictor | ViewPredictor,
        tile: int | None = None,
        overlap: float = OVERLAP,
        at_a_time: int = 8,
    ) -> None:
        """Tiles are squares of `tile` pixels, unless given as large as the model's input, so that no pixel is lost.

        Neighbours share `overlap` of a side at least; `at_a_time` tiles are cut out and read together, which bounds the
        memory. Raises OpenFlorenceError for tiles of no pixels, none at a time, and an overlap that is not from 0 to 1.
        """
        if tile is None:
            inner: Any = getattr(predictor, "predictor", predictor)  # of several views
            tile = int(inner.processor.image_size)
        if at_a_time < 1:
            raise OpenFlorenceError(f"tiles are read one or more at a time, not {at_a_time}")
        if tile < 1 or not 0 <= overlap < 1:
            raise OpenFlorenceError(f"a tile is 1 pixel or more with an overlap from 0 to 1, not {tile} with {overlap}")
        self.predictor, self.tile, self.overlap, self.at_a_time = predictor, tile, overlap, at_a_time
        self.source = f"{predictor.source}/tiles-{tile}-{overlap:g}"

    def predict(
        self, image: Any, tasks: Ask | Asks, *, generation: GenerationConfig | None = None
    ) -> Annotation | list[Annotation]:
        """As `Predictor.predict`: the answer to a task about one image, or the answers to a list of tasks."""
        answers = self.predict_batch([image], tasks, generation=generation)[0]
        return answers if isinstance(tasks, list) else answers[0]

    def predict_each(
        self, requests: Sequence[tuple[Any, Asks]], *, generation: GenerationConfig | None = None
    ) -> list[list[Annotation]]:
        """As `Predictor.predict_each`; answers that tiles had a part in name this predictor as their source."""
        looks = [self._look(image, asks) for image, asks in requests]
        wholes = self.predictor.predict_each([(look.picture, look.of_whole) for look in looks], generation=generation)
        return [self._answer(look, whole, generation) for look, whole in zip(looks, wholes, strict=True)]

    def predict_batch(
        self, images: Sequence[Any], tasks: Ask | Asks, *, generation: GenerationConfig | None = None
    ) -> list[list[Annotation]]:
        """Every task about every image, as `predict_each`."""
        asks = tasks if isinstance(tasks, list) else [tasks]
        return self.predict_each([(image, asks) for image in images], generation=generation)

    def predict_many(
        self,
        requests: Iterable[tuple[ImageLike, Asks]],
        *,
        generation: GenerationConfig | None = None,
        workers: int = 0,
        with_id: bool = False,
        max_images: int | None = None,
    ) -> Generator[Answered]:
        """As `Predictor.predict_many`, in order: one image after the other, `max_images` of its tiles at a time.

        Images are opened ahead by one thread; `workers` would have nothing to do, for tiles are cut, not opened.
        """
        tiled = TilePredictor(self.predictor, self.tile, self.overlap, max_images or self.at_a_time)
        return in_batches(partial(tiled.predict_each, generation=generation), requests, 1, with_id)

    def _look(self, image: Any, asks: Asks) -> _Look:
        picture = open_image(image)
        questions: list[Question] = [(task.token, query) for task, query in map(read_ask, asks)]
        size = (float(picture.width), float(picture.height))
        large = max(size) > self.tile
        return _Look(picture, questions, list(tiles(size, (self.tile, self.tile), self.overlap)) if large else [])

    def _answer(
        self, look: _Look, whole: Sequence[Annotation], generation: GenerationConfig | None
    ) -> list[Annotation]:
        """The answers about one image, from those about the whole of it."""
        said = dict(zip(look.of_whole, whole, strict=True))
        shown: dict[Question, list[tuple[Window, Annotation]]] = {question: [] for question in look.in_tiles}
        for window, question, answer in self._in_tiles(look, said, generation):
            shown[question].append((window, answer))
        merged = {question: self._merged(look, said[question], answers) for question, answers in shown.items()}
        found = []
        for question in look.questions:
            placed = merged.get((PLACED_TEXT, None)) if question[0] == TEXT else None
            if placed is not None and placed.regions:
                text = read_text(placed.regions)
                found.append(replace(placed, task=TEXT, text=text, regions=(), score=said[question].score))
            else:
                found.append(merged.get(question, said[question]))
        return found

    def _in_tiles(
        self, look: _Look, said: dict[Question, Annotation], generation: GenerationConfig | None
    ) -> Iterator[tuple[Window, Question, Annotation]]:
        """What the tiles answer to each question they are asked; no more than `at_a_time` of them are in memory."""
        asked = (
            (window, [q for q in look.in_tiles if q[0] != MASK or _shows(window, said[q])]) for window in look.windows
        )
        requests = ((window, questions) for window, questions in asked if questions)
        while some := list(islice(requests, self.at_a_time)):
            cropped: list[tuple[Any, Asks]] = [(look.picture.crop(window), questions) for window, questions in some]
            answers = self.predictor.predict_each(cropped, generation=generation)
            for (window, questions), found in zip(some, answers, strict=True):
                yield from ((window, question, one) for question, one in zip(questions, found, strict=True))

    def _merged(self, look: _Look, whole: Annotation, answers: Sequence[tuple[Window, Annotation]]) -> Annotation:
        """What the tiles and the whole image say to one question, as one answer."""
        everything = (0, 0, look.picture.width, look.picture.height)
        of_whole = [seen(region, everything, look.size) for region in whole.regions]
        of_tiles = [seen(region, window, look.size) for window, answer in answers for region in answer.regions]
        return replace(
            whole,
            source=self.source,
            regions=MERGES[whole.task](of_tiles, of_whole, look.windows),
            complete=whole.complete and all(answer.complete for _, answer in answers),
            dropped=whole.dropped + sum(answer.dropped for _, answer in answers),
        )


def _shows(window: Window, answer: Annotation) -> bool:
    """Whether a window shows some of the boxes around the regions of an answer."""
    boxes = np.array([region_box(region.parts) for region in answer.regions]).reshape(-1, 4)
    return bool(((boxes[:, :2] < window[2:]) & (boxes[:, 2:] > window[:2])).all(axis=1).any())
