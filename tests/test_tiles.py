"""Tiles cover the image with the overlap asked for, and a crop keeps what is whole in it."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region
from open_florence.tiles import crop, tiles

SIDES = st.integers(1, 400)


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, st.integers(1, 120), st.integers(1, 120), st.floats(0, 0.9))
def test_tiles_cover_the_image_and_share_the_overlap(w: int, h: int, tile_w: int, tile_h: int, overlap: float) -> None:
    windows = list(tiles((float(w), float(h)), (tile_w, tile_h), overlap))
    assert len(set(windows)) == len(windows)
    for length, tile, axis in ((w, tile_w, 0), (h, tile_h, 1)):
        spans = sorted({(window[axis], window[axis + 2]) for window in windows})
        assert {end - start for start, end in spans} == {min(tile, length)}
        assert (spans[0][0], spans[-1][1]) == (0, length)
        wanted = min(int(tile * overlap), tile - 1)
        assert all(before[1] - after[0] >= wanted - 1 for before, after in pairwise(spans))


def test_a_crop_moves_what_is_whole_and_leaves_out_what_is_cut() -> None:
    image = Image.new("RGB", (100, 100), "white")
    image.putpixel((30, 40), (255, 0, 0))
    whole = Region("quad", (((30, 40), (50, 41), (50, 50), (30, 49)),), "whole", score=0.5)
    nearly = Region.box(15, 60, 55, 70, label="nearly")
    halved = Region.box(60, 40, 80, 50, label="halved")
    annotation = Annotation("<OCR_WITH_REGION>", regions=(whole, nearly, halved), source="human")
    picture, moved = crop(image, annotation, (18, 30, 70, 80))
    assert picture.size == (52, 50)
    assert picture.getpixel((12, 10)) == (255, 0, 0)
    assert moved.regions == (
        Region("quad", (((12.0, 10.0), (32.0, 11.0), (32.0, 20.0), (12.0, 19.0)),), "whole", score=0.5),
        Region.box(0, 30, 37, 40, label="nearly"),
    )
    assert moved.source == "human"
    assert len(crop(image, annotation, (18, 30, 70, 80), min_visible=0.5)[1].regions) == 3


@pytest.mark.parametrize(("tile", "overlap"), [((0, 5), 0.2), ((5, 5), 1.0), ((5, 5), -0.1)])
def test_impossible_tiles(tile: tuple[int, int], overlap: float) -> None:
    with pytest.raises(OpenFlorenceError, match="tiles are 1 pixel or more"):
        list(tiles((10.0, 10.0), tile, overlap))
