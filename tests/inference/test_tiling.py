"""Tiles of a large image: what their edges cut comes out once and whole, and a small image gets the plain answer."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, iou, region_box
from open_florence.inference.predictor import Predictor
from open_florence.inference.tiling import TilePredictor
from open_florence.inference.views import ViewPredictor
from open_florence.schema import Annotation, Region
from open_florence.tiles import Window


class Places(Image.Image):
    """An image without pixels that knows which part of the whole it is."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window
        self._size = (window[2] - window[0], window[3] - window[1])
        self._mode = "RGB"

    def load(self) -> None:  # type: ignore[override]
        pass

    def crop(self, box: Any = None) -> "Places":
        left, top = self.window[:2]
        return Places((box[0] + left, box[1] + top, box[2] + left, box[3] + top))


class Perfect:
    """Finds every true region, cut at the edge of what it is shown; remembers what that was."""

    source = "perfect"

    def __init__(self, truth: list[Region]) -> None:
        self.truth = truth
        self.asked: list[tuple[Window, list[Any]]] = []
        self.most = 0

    def predict_each(self, requests: Any, *, generation: Any = None) -> list[list[Annotation]]:
        self.most = max(self.most, len(requests))
        self.asked += [(image.window, asks) for image, asks in requests]
        return [[self.answer(image.window, *ask) for ask in asks] for image, asks in requests]

    def answer(self, window: Window, task: str, query: Any) -> Annotation:
        shown = [region for one in self.truth if (region := self.cut(one, window)) is not None]
        return Annotation(task, regions=tuple(shown), query=query, source=self.source)

    def cut(self, region: Region, window: Window) -> Region | None:
        x1, y1, x2, y2 = region_box(region.parts)
        left, top, right, bottom = window
        x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
        if x2 - x1 < 0.5 or y2 - y1 < 0.5:
            return None
        return Region.box(x1 - left, y1 - top, x2 - left, y2 - top, label=region.label, score=0.9)


def boxes(regions: Any) -> Array:
    return np.array(sorted(region_box(region.parts).tolist() for region in regions)).reshape(-1, 4)


def things(rng: random.Random, size: tuple[int, int], count: int, most: float) -> list[Region]:
    """Boxes of two labels that do not touch, their sides 4 to `most` pixels."""
    found: list[Region] = []
    for _ in range(count):
        w, h = (min(rng.uniform(4, most), side - 1) for side in size)
        x, y = rng.uniform(0, size[0] - w), rng.uniform(0, size[1] - h)
        grown = np.array([[x - 2, y - 2, x + w + 2, y + h + 2]])
        if not found or iou(grown, boxes(found)).max() == 0:
            found.append(Region.box(x, y, x + w, y + h, label=rng.choice("ab")))
    return found


def ask(truth: list[Region], size: tuple[int, int], tile: int, overlap: float, task: str = "<OD>") -> Annotation:
    perfect: Any = Perfect(truth)
    return TilePredictor(perfect, tile, overlap).predict_each([(Places((0, 0, *size)), [task])])[0][0]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**9), st.integers(40, 160), st.floats(0.1, 0.7), st.booleans())
def test_every_object_comes_back_once(seed: int, tile: int, overlap: float, large: bool) -> None:
    rng = random.Random(seed)
    size = (rng.randint(tile // 2, 4 * tile), rng.randint(tile + 1, 4 * tile))
    truth = things(rng, size, rng.randint(1, 25), 2.5 * tile if large else max(5.0, overlap * tile - 1))
    for task in ("<OD>", "<REGION_PROPOSAL>"):
        found = ask(truth, size, tile, overlap, task).regions
        assert len(found) == len(truth)
        assert np.abs(boxes(found) - boxes(truth)).max() <= 1
        names = {tuple(np.round(region_box(r.parts))): r.label for r in truth}
        assert all(names[tuple(np.round(region_box(r.parts)))] == r.label for r in found)
