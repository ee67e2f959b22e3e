"""Drawings: what is said is seen, where it is and nowhere else, on small and on large images."""

import builtins
from typing import Any

import numpy as np
import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.report import draw
from open_florence.report.colours import COLOURS, Palette, rgb
from open_florence.report.fonts import font_for
from open_florence.schema import Annotation, Region

GREY = (120, 120, 120)


def coloured(picture: Image.Image, colour: str) -> Any:
    """Where the picture (H, W) has nearly this colour."""
    return (np.abs(np.asarray(picture).astype(int) - rgb(colour)).max(axis=2) < 12).nonzero()


def test_a_small_image_is_enlarged_and_its_box_with_it() -> None:
    image = Image.new("RGB", (160, 80), GREY)
    picture = draw(
        image, [Annotation("<OD>", regions=(Region.box(40, 40, 120, 60, label="cat", score=0.5),))], Palette()
    )
    assert picture.size == (480, 240)
    rows, columns = coloured(picture, Palette().colour("cat"))
    assert abs(int(columns.min()) - 120) <= 3
    assert abs(int(columns.max()) - 360) <= 3
    assert abs(int(rows.max()) - 180) <= 3


def test_the_image_itself_is_left_alone() -> None:
    image = Image.new("RGB", (500, 500), GREY)
    draw(image, [Annotation("<OD>", regions=(Region.box(40, 40, 120, 60, label="cat"),))])
    assert image.getcolors() == [(250_000, GREY)]


def test_without_annotations_the_image_comes_back() -> None:
    image = Image.new("RGB", (600, 500), GREY)
    assert draw(image, []).tobytes() == image.tobytes()
    assert draw(image, [Annotation("<OD>")]).tobytes() == image.tobytes()


def test_lines_and_letters_grow_with_the_image() -> None:
    def ink_share(width: int, height: int) -> float:
        box = Region.box(width / 4, height / 4, width / 2, height / 2, label="cat", score=0.5)
        picture = draw(Image.new("RGB", (width, height), GREY), [Annotation("<OD>", regions=(box,))], Palette())
        return len(coloured(picture, Palette().colour("cat"))[0]) / (width * height)

    small, large = ink_share(640, 480), ink_share(3840, 2160)
    assert large > small / 3


def test_parts_of_a_polygon_are_united() -> None:
    """Two squares that overlap: where they do, the mask is as translucent as elsewhere and has no outline."""
    parts = (((100.0, 100.0), (300.0, 100.0), (300.0, 300.0), (100.0, 300.0)),)
    parts += (((400.0, 400.0), (200.0, 400.0), (200.0, 200.0), (400.0, 200.0)),)
    picture = draw(Image.new("RGB", (500, 500), GREY), [Annotation("<X>", regions=(Region("polygon", parts),))])
    inside, both = picture.getpixel((150, 150)), picture.getpixel((250, 250))
    assert inside == both != GREY
    assert picture.getpixel((250, 210)) == inside
    assert picture.getpixel((350, 150)) == GREY


def test_a_quad_is_drawn_as_it_lies() -> None:
    quad = Region("quad", (((100.0, 200.0), (300.0, 100.0), (320.0, 140.0), (120.0, 240.0)),))
    picture = draw(Image.new("RGB", (500, 500), GREY), [Annotation("<OCR_WITH_REGION>", regions=(quad,))])
    assert picture.getpixel((200, 150)) != GREY
    assert picture.getpixel((105, 105)) == GREY


def test_a_grounded_phrase_has_the_colour_of_its_box() -> None:
    text = "a red star beside a blue circle"
    star = Region("box", (((20.0, 20.0), (90.0, 90.0)),), "a red star", span=(0, 10))
    circle = Region("box", (((100.0, 20.0), (150.0, 90.0)),), "a blue circle", span=(18, 31))
    grounded = Annotation("<CAPTION_TO_PHRASE_GROUNDING>", text, (star, circle), text)
    picture = draw(Image.new("RGB", (160, 160), GREY), [grounded], Palette())
    assert picture.height > 480
    strip = picture.crop((0, 480, 480, picture.height))
    palette = Palette()
    for label in ("a red star", "a blue circle"):
        assert len(coloured(strip, palette.colour(label))[0]) > 100
        assert len(coloured(picture.crop((0, 0, 480, 480)), palette.colour(label))[0]) > 100


def test_an_answer_about_a_region_stands_at_the_region() -> None:
    asked = Annotation("<REGION_TO_CATEGORY>", "hexagon", query=Region.box(100, 100, 300, 300), score=0.9)
    picture = draw(Image.new("RGB", (500, 500), GREY), [asked], Palette())
    assert picture.size == (500, 500)
    rows, columns = coloured(picture, Palette().colour("hexagon"))
    assert 90 < rows.mean() < 310
    assert 90 < columns.mean() < 310
    assert picture.getpixel((200, 300)) == GREY  # corners, not a box


def test_a_long_caption_is_wrapped() -> None:
    caption = Annotation("<CAPTION>", "a very long caption " * 20 + "x" * 300)
    picture = draw(Image.new("RGB", (500, 400), GREY), [caption])
    assert picture.width == 500
    assert picture.height > 500


@pytest.mark.parametrize(
    "regions",
    [
        (Region.box(-50, -50, 5000, 5000, label="outside"),),
        (Region.box(10, 10, 10, 10, label="a point"),),
        (Region.box(90, 90, 10, 10, label="the wrong way round"),),
        (Region("polygon", (((1.0, 1.0), (2.0, 2.0)),), "two corners"),),
        (Region("polygon", ((), ((1.0, 1.0), (9.0, 1.0), (5.0, 9.0))), "an empty part"),),
        (Region("polygon", (), "no part"),),
        (Region("box", (((float("nan"), 1.0), (9.0, float("inf"))),), "no numbers"),),
        (Region("box", (((1.0,), (9.0,)),), "an interval"),),
        tuple(Region.box(i, i, i + 9, i + 9, label=f"{i}") for i in range(300)),
        (Region.box(10, 10, 60, 60, label="\0 \ud800 \n \u202e ‮ 🙂" * 40, score=0.1),),
    ],
    ids=lambda regions: regions[0].label[:20],
)
def test_any_region_can_be_drawn(regions: tuple[Region, ...]) -> None:
    picture = draw(Image.new("RGB", (100, 80), GREY), [Annotation("<X>", regions=regions, query="a query")])
    assert picture.size == (480, 384)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_any_image_can_be_drawn_on(mode: str) -> None:
    picture = draw(Image.new(mode, (20, 10)), [Annotation("<OD>", regions=(Region.box(1, 1, 9, 9, label="cat"),))])
    assert (picture.mode, picture.size) == ("RGB", (480, 240))


def test_an_extreme_shape_can_be_drawn_on() -> None:
    picture = draw(Image.new("RGB", (4000, 1)), [Annotation("<OD>", "text", (Region.box(1, 0, 9, 1, label="cat"),))])
    assert picture.width == 4000


def test_labels_of_other_scripts_have_letters() -> None:
    """Cyrillic, Greek and accented letters are in a font that comes with the extra, whatever the machine has."""
    font = font_for(["Жук Ωμέγα éßø"], 24)
    absent = bytes(font.getmask("\U0010fffe"))
    assert all(bytes(font.getmask(letter)) != absent for letter in "ЖукΩμέγαéßø")


def test_colours_are_the_same_on_every_picture() -> None:
    image = Image.new("RGB", (500, 500), GREY)
    first = draw(image, [Annotation("<OD>", regions=(Region.box(40, 40, 120, 60, label="a certain cat"),))])
    draw(image, [Annotation("<OD>", regions=(Region.box(40, 40, 120, 60, label="a certain dog"),))])
    again = draw(image, [Annotation("<OD>", regions=(Region.box(40, 40, 120, 60, label="a certain cat"),))])
    assert first.tobytes() == again.tobytes()
    assert any(len(coloured(first, colour)[0]) for colour in COLOURS)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "supervision":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OpenFlorenceError, match=r"open-florence\[draw\]"):
        draw(Image.new("RGB", (50, 50)), [Annotation("<OD>", regions=(Region.box(1, 1, 9, 9),))])
