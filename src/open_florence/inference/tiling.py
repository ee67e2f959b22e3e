"""Images larger than the model's input, read in overlapping tiles beside the whole.

A picture of 4,000 pixels squeezed into 768 has nothing small left in it. Tiles of the model's own size show every
pixel, the whole image shows what is larger than a tile, and `tile_fusion` makes one answer of all. It costs as many
times the time as there are tiles; an image that is no larger than one gets exactly the plain answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.images import open_image
from open_florence.inference.predictor import Predictor
from open_florence.inference.seams import Seen, seen
from open_florence.inference.tile_fusion import merge_described, merge_named, merge_text, pick_mask
from open_florence.inference.views import ViewPredictor
from open_florence.questions import Ask, Asks, Query, read_ask
from open_florence.reading_order import read_text
from open_florence.schema import Annotation, Region, Size
from open_florence.tiles import Window, tiles

Merge = Callable[[Sequence[Seen], Sequence[Seen], Sequence[Window]], tuple[Region, ...]]

MERGES: dict[str, Merge] = {
    "<OD>": merge_named,
    "<OPEN_VOCABULARY_DETECTION>": merge_named,
    "<CAPTION_TO_PHRASE_GROUNDING>": merge_named,
    "<DENSE_REGION_CAPTION>": merge_described,
    "<REGION_PROPOSAL>": merge_described,
    "<OCR_WITH_REGION>": merge_text,
    "<REFERRING_EXPRESSION_SEGMENTATION>": pick_mask,
}
"""Tasks that tiles are asked, and how their answers become one; every other is asked about the whole image alone."""

TEXT, PLACED_TEXT = "<OCR>", "<OCR_WITH_REGION>"
"""Text is read in tiles too: it is what stands in the regions of the second, in reading order."""

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
        memory. Raises OpenFlorenceError for tiles of no pixels and an overlap that is not from 0 to 1.
        """
        if tile is None:
            inner = predictor.predictor if isinstance(predictor, ViewPredictor) else predictor
            tile = inner.processor.image_size
        if tile < 1 or not 0 <= overlap < 1 or at_a_time < 1:
            raise OpenFlorenceError(f"a tile is 1 pixel or more with an overlap from 0 to 1, not {tile} with {overlap}")
        self.predictor, self.tile, self.overlap, self.at_a_time = predictor, tile, overlap, at_a_time
        self.source = f"{predictor.source}/tiles-{tile}-{overlap:g}"

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
        asked = look.in_tiles
        if not asked:
            return list(whole[: len(look.questions)])
        said = dict(zip(look.of_whole, whole, strict=True))
        merged = {}
        for question, answers in zip(asked, zip(*self._in_tiles(look, generation), strict=True), strict=True):
            merged[question] = self._merged(look, said[question], answers)
        found = []
        for question in look.questions:
            if question[0] == TEXT and merged[PLACED_TEXT, None].regions:
                placed = merged[PLACED_TEXT, None]
                text = read_text(placed.regions)
                found.append(replace(placed, task=TEXT, text=text, regions=(), score=said[question].score))
            else:
                found.append(merged.get(question, said[question]))
        return found

    def _in_tiles(self, look: _Look, generation: GenerationConfig | None) -> Iterator[list[Annotation]]:
        """The answers about each tile; no more tiles than `at_a_time` are in memory."""
        windows = iter(look.windows)
        while some := list(islice(windows, self.at_a_time)):
            cropped: list[tuple[Any, Asks]] = [(look.picture.crop(window), look.in_tiles) for window in some]
            yield from self.predictor.predict_each(cropped, generation=generation)

    def _merged(self, look: _Look, whole: Annotation, answers: Sequence[Annotation]) -> Annotation:
        """What the tiles, in the order of the windows, and the whole image say, as one answer."""
        everything = (0, 0, look.picture.width, look.picture.height)
        of_whole = [seen(region, everything, look.size) for region in whole.regions]
        of_tiles = [
            seen(region, window, look.size)
            for window, answer in zip(look.windows, answers, strict=True)
            for region in answer.regions
        ]
        return replace(
            whole,
            source=self.source,
            regions=MERGES[whole.task](of_tiles, of_whole, look.windows),
            complete=whole.complete and all(answer.complete for answer in answers),
            dropped=whole.dropped + sum(answer.dropped for answer in answers),
        )
