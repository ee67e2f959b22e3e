"""Tiles of a large image: what their edges cut comes out once and whole, and a small image gets the plain answer."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, iou, region_box
from open_florence.inference.predictor import Predictor
from open_florence.inference.tiling import MERGES, TilePredictor
from open_florence.inference.views import ViewPredictor
from open_florence.scenes import VALIDATION_SEEDS, make_scene
from open_florence.schema import Annotation, Region
from open_florence.selection import overlap as region_overlap
from open_florence.tiles import Window, tiles


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


Cut = Callable[[Region, Window], Region | None]


def cut_box(region: Region, window: Window) -> Region | None:
    """What a window shows of a box, in its own pixels; None where that is next to nothing."""
    x1, y1, x2, y2 = region_box(region.parts)
    left, top, right, bottom = window
    x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if x2 - x1 < 0.5 or y2 - y1 < 0.5:
        return None
    return Region.box(x1 - left, y1 - top, x2 - left, y2 - top, label=region.label, score=0.9)


def cut_mask(region: Region, window: Window) -> Region | None:
    """As `cut_box`, drawn as a polygon."""
    box = cut_box(region, window)
    if box is None:
        return None
    (x1, y1), (x2, y2) = box.parts[0]
    return Region("polygon", (((x1, y1), (x2, y1), (x2, y2), (x1, y2)),), region.label, score=0.9)


def cut_line(region: Region, window: Window) -> Region | None:
    """The letters of a line, all of one width, that a window shows at least half of."""
    box = cut_box(region, window)
    if box is None:
        return None
    x1, _, x2, _ = region_box(region.parts)
    middles = x1 + (np.arange(len(region.label)) + 0.5) * (x2 - x1) / len(region.label)
    text = "".join(c for c, x in zip(region.label, middles, strict=True) if window[0] <= x <= window[2])
    (a, b), (c, d) = box.parts[0]
    return Region("quad", (((a, b), (c, b), (c, d), (a, d)),), text, score=0.9) if text else None


class Perfect:
    """Finds every true region, cut at the edge of what it is shown; remembers what it was asked."""

    source = "perfect"

    def __init__(self, truth: list[Region], cut: Cut = cut_box, size: tuple[int, int] | None = None) -> None:
        """`size` is that of the whole image, where the whole image is to show nothing."""
        self.truth, self.cut, self.blind = truth, cut, (0, 0, *size) if size else None
        self.asked: list[tuple[Window, list[Any]]] = []
        self.most = 0

    def predict_each(self, requests: Any, *, generation: Any = None) -> list[list[Annotation]]:
        self.most = max(self.most, len(requests))
        self.asked += [(image.window, asks) for image, asks in requests]
        return [[self.answer(image.window, *ask) for ask in asks] for image, asks in requests]

    def answer(self, window: Window, task: str, query: Any) -> Annotation:
        shown = [region for one in self.truth if (region := self.cut(one, window)) is not None]
        regions = tuple(shown) if task in MERGES and window != self.blind else ()
        return Annotation(task, f"{task} {window}", regions=regions, query=query, source=self.source)


def ask(perfect: Any, size: tuple[int, int], tile: int, overlap: float, task: Any = "<OD>") -> Annotation:
    return TilePredictor(perfect, tile, overlap).predict_each([(Places((0, 0, *size)), [task])])[0][0]


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


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**9), st.integers(40, 160), st.floats(0.1, 0.7), st.booleans(), st.booleans())
def test_every_object_comes_back_once(seed: int, tile: int, overlap: float, large: bool, blind: bool) -> None:
    rng = random.Random(seed)
    size = (rng.randint(tile // 2, 4 * tile), rng.randint(tile + 1, 4 * tile))
    truth = things(rng, size, rng.randint(1, 25), 2.5 * tile if large else max(5.0, overlap * tile - 1))
    for task in ("<OD>", "<REGION_PROPOSAL>"):
        found = ask(Perfect(truth, size=size if blind else None), size, tile, overlap, task).regions
        assert len(found) == len(truth)
        assert np.abs(boxes(found) - boxes(truth)).max() <= 1
        names = {tuple(np.round(region_box(r.parts))): r.label for r in truth}
        assert all(names[tuple(np.round(region_box(r.parts)))] == r.label for r in found)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**9), st.integers(60, 160), st.floats(0.2, 0.6), st.booleans())
def test_every_line_comes_back_once_and_whole(seed: int, tile: int, overlap: float, blind: bool) -> None:
    rng = random.Random(seed)
    size = (rng.randint(tile + 1, 4 * tile), rng.randint(tile // 2, 3 * tile))
    truth = []
    for row in range(5, size[1] - 12, 20):  # lines shorter and longer than a tile, of letters 4 px wide
        letters = rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyz", rng.randint(1, 60))
        letters = letters[: (size[0] - 4) // 4]
        x, y = rng.uniform(0, size[0] - 4 * len(letters)), row + rng.uniform(0, 6)
        truth.append(Region.box(x, y, x + 4 * len(letters), y + 6, label="".join(letters)))
    perfect: Any = Perfect(truth, cut_line, size if blind else None)
    placed, text = TilePredictor(perfect, tile, overlap).predict(Places((0, 0, *size)), ["<OCR_WITH_REGION>", "<OCR>"])
    assert [region.label for region in placed.regions] == [region.label for region in truth]
    assert np.abs(boxes(placed.regions) - boxes(truth)).max() <= 1
    assert text.text == "\n".join(region.label for region in truth)


@pytest.mark.parametrize("overlap", [0.1, 0.3])
@pytest.mark.parametrize("box", [(30, 30, 60, 60), (70, 95, 180, 170), (20, 20, 330, 300)])
@pytest.mark.parametrize("task", [("<REFERRING_EXPRESSION_SEGMENTATION>", "x"), ("<OPEN_VOCABULARY_DETECTION>", "x")])
def test_masks_are_united_across_seams(box: tuple[int, ...], overlap: float, task: Any) -> None:
    truth = Region.box(*box, label="x")
    perfect = Perfect([truth], cut_mask)
    (found,) = ask(perfect, (350, 320), 100, overlap, task).regions
    assert region_overlap(found, truth) > 0.97
    assert len(found.parts) == 1


def test_a_mask_is_asked_only_of_tiles_that_show_its_place() -> None:
    perfect = Perfect([Region.box(30, 30, 60, 60)], cut_mask)
    ask(perfect, (350, 320), 100, 0.2, ("<REFERRING_EXPRESSION_SEGMENTATION>", "x"))
    assert [window for window, _ in perfect.asked] == [(0, 0, 350, 320), (0, 0, 100, 100)]


def test_what_is_asked_of_whom_and_what_comes_back() -> None:
    perfect: Any = Perfect([Region.box(60, 10, 65, 15, label="word", score=0.9)], cut_line)
    asks = ["<OCR>", "<CAPTION>", ("<OD>", None), "<OD>", "What is it?"]
    large, small = Places((0, 0, 150, 90)), Places((0, 0, 90, 100))
    answers = TilePredictor(perfect, 100, 0.25, at_a_time=1).predict_batch([large, small], asks)
    for some in answers:
        assert [one.task for one in some] == ["<OCR>", "<CAPTION>", "<OD>", "<OD>", "What is it?"]
    of_tiles = [asks for window, asks in perfect.asked if window[2:] not in {(150, 90), (90, 100)} or window[0]]
    assert of_tiles == [[("<OCR_WITH_REGION>", None), ("<OD>", None)]] * 2, "each once, words with their places"
    assert [one.source for one in answers[0]] == ["perfect/tiles-100-0.25", "perfect"] + [
        "perfect/tiles-100-0.25"
    ] * 2 + ["perfect"]
    assert answers[0][0].text == "word"
    assert answers[0][1].text == "<CAPTION> (0, 0, 150, 90)"
    assert {one.source for one in answers[1]} == {"perfect"}, "an image that is no larger than a tile is read plainly"


def test_text_that_no_tile_reads_is_asked_of_the_whole() -> None:
    perfect: Any = Perfect([])
    answer = TilePredictor(perfect, 100).predict(Places((0, 0, 150, 90)), "<OCR>")
    assert isinstance(answer, Annotation)
    assert answer.text == "<OCR> (0, 0, 150, 90)"


def test_an_answer_is_complete_when_those_of_all_tiles_are() -> None:
    class Stuck(Perfect):
        def answer(self, window: Window, task: str, query: Any) -> Annotation:
            return Annotation(task, complete=window[0] == 0, dropped=1)

    answer = ask(Stuck([]), (150, 90), 100, 0.2)
    assert not answer.complete
    assert answer.dropped == 3, "of two tiles and the whole"


def test_few_tiles_are_in_memory_at_a_time() -> None:
    perfect: Any = Perfect([])
    TilePredictor(perfect, 50, 0.2, at_a_time=3).predict(Places((0, 0, 900, 700)), "<OD>")
    assert perfect.most == 3
    assert len(perfect.asked) == 1 + len(list(tiles((900.0, 700.0), (50, 50), 0.2)))


def test_a_stream_costs_an_image_that_cannot_be_read_only_itself() -> None:
    tiny: Any = Predictor.from_pretrained("tiny")
    requests = [(make_scene(VALIDATION_SEEDS[0]).image, ["<OD>"]), (b"no image", ["<OD>"])]
    first, second = TilePredictor(tiny).predict_many(requests, max_images=2, with_id=True, workers=4)
    assert first.annotations == tiny.predict_batch([requests[0][0]], ["<OD>"])[0]
    assert first.size == (160, 160)
    assert first.id
    assert "not an image" in second.reason


def test_small_objects_that_a_resized_image_loses() -> None:
    made = [make_scene(VALIDATION_SEEDS[k]) for k in range(9)]
    canvas = np.zeros((480, 480, 3), np.uint8)
    truth = []
    for k, scene in enumerate(made):
        x, y = k % 3 * 160, k // 3 * 160
        canvas[y : y + 160, x : x + 160] = scene.image
        truth += [(o.name, np.array(o.box) + np.array([x, y, x, y])) for o in scene.objects]
    tiny = Predictor.from_pretrained("tiny")

    def share(answer: Any) -> float:
        found = [
            any(r.label == name and iou(box[None], region_box(r.parts)[None])[0, 0] >= 0.5 for r in answer.regions)
            for name, box in truth
        ]
        return sum(found) / len(found)

    tiled = TilePredictor(tiny, overlap=0.0)
    assert tiled.tile == 160
    assert share(tiled.predict(canvas, "<OD>")) > 0.9
    assert share(tiny.predict(canvas, "<OD>")) < 0.5


def test_views_and_tiles_go_together() -> None:
    tiny = Predictor.from_pretrained("tiny")
    tiled = TilePredictor(ViewPredictor(tiny, 2))
    assert tiled.tile == tiny.processor.image_size
    assert tiled.source == "open-florence-tiny/2-views/tiles-160-0.2"


@pytest.mark.parametrize(
    ("tile", "overlap", "at_a_time", "sentence"),
    [
        (0, 0.2, 1, "a tile is 1 pixel or more"),
        (10, 1.0, 1, "from 0 to 1, not 10 with 1.0"),
        (10, -0.1, 1, "not 10 with -0.1"),
        (10, 0.2, 0, "one or more at a time, not 0"),
    ],
)
def test_tiles_that_cannot_be(tile: int, overlap: float, at_a_time: int, sentence: str) -> None:
    perfect: Any = Perfect([])
    with pytest.raises(OpenFlorenceError, match=sentence):
        TilePredictor(perfect, tile, overlap, at_a_time)
