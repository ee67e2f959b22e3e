import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import region_box
from open_florence.inference.predictor import Predictor
from open_florence.inference.views import VIEWS, View, ViewPredictor, fuse
from open_florence.schema import Annotation, Region


def picture(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)


class Finder:
    """Finds the white rectangle exactly; remembers what it was asked."""

    source = "finder"

    def __init__(self) -> None:
        self.asked: list[tuple[Image.Image, list[Any]]] = []

    def predict_each(self, requests: Any, *, generation: Any = None) -> list[list[Annotation]]:
        self.asked += requests
        answers = []
        for image, asks in requests:
            rows, columns = np.nonzero(np.asarray(image)[..., 0])
            box = Region.box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, label="thing", score=0.1)
            answers.append([Annotation(ask if isinstance(ask, str) else ask[0], regions=(box,)) for ask in asks])
        return answers


@pytest.mark.parametrize("view", VIEWS[8])
def test_what_a_view_shows_is_put_back_where_it_is(view: View) -> None:
    image = picture(60, 40, (5, 10, 20, 33))
    seen = Finder().predict_each([(view.image(image), ["<OD>"])])[0][0].regions[0]
    point = view.back((60.0, 40.0))
    corners = [point(corner) for corner in seen.parts[0]]
    assert sorted(x for x, _ in corners) == [5, 20]
    assert sorted(y for _, y in corners) == [10, 33]


def test_the_views_are_all_different() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    shown = [np.asarray(view.image(Image.fromarray(pixels))) for view in VIEWS[8]]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(shown, 2))


@pytest.mark.parametrize("views", VIEWS)
def test_only_boxes_are_asked_about_in_every_view(views: int) -> None:
    finder: Any = Finder()
    asks = [("<CAPTION>", None), ("<OD>", None), "<REGION_PROPOSAL>"]
    image = picture(60, 40, (5, 10, 20, 33))
    answers = ViewPredictor(finder, views).predict_each([(image, asks), (image, ["<CAPTION>"])])
    assert [[a.task for a in some] for some in answers] == [["<CAPTION>", "<OD>", "<REGION_PROPOSAL>"], ["<CAPTION>"]]
    (found,) = answers[0][1].regions
    assert list(region_box(found.parts)) == [5, 10, 20, 33]
    assert answers[0][1].source == f"finder/{views}-views"
    assert found.score == 1.0, "all views agree"
    assert answers[0][0].regions[0].score == 0.1, "a caption is asked once, about the image as it is"
    assert sum(len(asks) for _, asks in finder.asked) == 3 + 1 + 2 * (views - 1)


def test_the_score_is_the_share_of_views_that_agree() -> None:
    boxes = [Region.box(x, 10, x + 20, 30, label="a", score=s) for x, s in ((10, 0.3), (11, 0.1), (60, 0.9))]
    other = Region.box(10, 10, 30, 30, label="b", score=0.5)
    first, second, third = sorted(fuse([*boxes, other], views=4), key=lambda r: (r.label, r.parts))
    assert [r.score for r in (first, second, third)] == [0.5, 0.25, 0.25]
    assert list(region_box(first.parts)) == pytest.approx([10.25, 10, 30.25, 30]), "weighted by the scores"
    assert third.label == "b"


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([2, 8]))
def test_fusing_loses_no_thing_and_makes_none_up(seed: int, count: int, views: int) -> None:
    rng = random.Random(seed)
    regions = []
    for _ in range(count):
        x, y = rng.uniform(0, 80), rng.uniform(0, 80)
        w, h = rng.uniform(1, 20), rng.uniform(1, 20)
        regions.append(Region.box(x, y, x + w, y + h, label=rng.choice("ab"), score=rng.random()))
    fused = fuse(regions, views)
    assert {r.label for r in fused} == {r.label for r in regions}
    assert 1 <= len(fused) <= len(regions)
    assert all(r.score is not None and 0 < r.score <= 1 for r in fused)
    corners = np.array([region_box(r.parts) for r in regions])
    for region in fused:
        box = np.array(region_box(region.parts))
        assert (box >= corners.min(0) - 1e-9).all()
        assert (box <= corners.max(0) + 1e-9).all()


def test_a_number_of_views_that_there_is_not() -> None:
    with pytest.raises(OpenFlorenceError, match="2 or 8 views of an image, not 3"):
        ViewPredictor(Predictor.from_pretrained("tiny"), 3)
