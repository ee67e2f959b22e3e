"""Colour and size in words: CIELAB as the standard has it, colours as the scenes name them, sizes by the image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from open_florence.errors import OpenFlorenceError
from open_florence.scenes import make_scene
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists import load_specialist
from open_florence.specialists.attributes import COLOURS, colour_of, lab


def sample(path: Path, boxes: dict[str, tuple[tuple[int, int, int, int], str]], *more: Annotation) -> Sample:
    """An image of 400 x 300 with boxes in their colours, found as <OD>."""
    image = Image.new("RGB", (400, 300), "white")
    for corners, colour in boxes.values():
        ImageDraw.Draw(image).rectangle(corners, fill=colour)
    image.save(path)
    regions = tuple(Region.box(*corners, label=label, score=0.5) for label, (corners, _) in boxes.items())
    return Sample("0", str(path), (400.0, 300.0), (Annotation("<OD>", regions=regions), *more))


def labels(answer: list[Annotation]) -> list[str]:
    return [region.label for region in answer[0].regions] if answer else []


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_lab(rgb, expected):
    assert np.allclose(lab(np.array(rgb, np.uint8)), expected, atol=0.05)


def test_words_and_the_query(tmp_path):
    found = {
        "car": ((20, 20, 260, 160), "red"),
        "cup": ((300, 20, 320, 40), "blue"),
        "dog": ((300, 100, 360, 150), "green"),
    }
    answer = load_specialist("attributes").annotate([sample(tmp_path / "a.png", found)])[0]
    assert labels(answer) == ["large red car", "small blue cup", "green dog"]
    assert [(a.task, a.text) for a in answer[1:]] == [
        ("<REGION_TO_DESCRIPTION>", text) for text in ("large red car", "small blue cup", "green dog")
    ]
    assert answer[1].query == Region.box(20, 20, 260, 160, label="car", score=0.5)
    for region in answer[0].regions:
        assert region.score == 0.5
        assert region.label_score > 0.9


def test_what_is_not_said(tmp_path):
    found = {
        "Man": ((20, 20, 80, 90), "red"),
        "red car": ((100, 20, 160, 90), "red"),
        "": ((200, 20, 260, 90), "red"),
        "cat": ((280, 20, 340, 90), "red"),
    }
    assert labels(load_specialist("attributes").annotate([sample(tmp_path / "a.png", found)])[0]) == ["red cat"]
    none = load_specialist("attributes", uncoloured=["cat"]).annotate(
        [sample(tmp_path / "a.png", {"cat": found["cat"]})]
    )
    assert none == [[]]
    many = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    many.save(tmp_path / "noise.png")
    box = Annotation("<OD>", regions=(Region.box(50, 50, 100, 100, label="cat"),))
    assert load_specialist("attributes").annotate([Sample("0", str(tmp_path / "noise.png"), (400, 300), (box,))]) == [
        []
    ]
    assert load_specialist("attributes").annotate([Sample("0", str(tmp_path / "absent.png"), (9.0, 9.0))]) == [[]]


def test_the_pixels_of_the_mask_where_there_is_one(tmp_path):
    found = {"kite": ((100, 100, 180, 160), "blue")}
    box = Region.box(100, 100, 180, 160, label="kite")
    corner = Region("polygon", (((100, 100), (120, 100), (120, 110), (100, 110)),))
    mask = Annotation("<REGION_TO_SEGMENTATION>", regions=(corner,), query=box)
    labelled = sample(tmp_path / "a.png", found, mask)
    image = Image.open(labelled.path)
    ImageDraw.Draw(image).rectangle((100, 100, 121, 111), fill="yellow")
    image.save(labelled.path)
    assert labels(load_specialist("attributes").annotate([labelled])[0]) == ["yellow kite"]


def test_boxes_outside_the_image():
    image = np.full((10, 10, 3), 255, np.uint8)
    assert colour_of(image, Region.box(20, 20, 30, 30)) == ("", 0.0)
    assert colour_of(image, Region.box(-5, -5, 15, 15)) == ("white", 1.0)
    assert colour_of(image, Region.box(3, 3, 3.5, 3.5))[0] in ("white", "")


def test_colours_of_scenes():
    """Things whose colour is known: of those that are named, nine in ten are named rightly."""
    right = []
    for seed in range(25):
        scene = make_scene(seed)
        image = np.asarray(scene.image)
        dense = next(a for a in scene.sample.annotations if a.task == "<DENSE_REGION_CAPTION>")
        for region in dense.regions:
            known = [word for word in region.label.split() if word in COLOURS]
            colour, share = colour_of(image, region)
            if known and share >= 0.5:
                right.append(colour == known[0])
    assert len(right) > 50
    assert np.mean(right) > 0.85


def test_mistakes():
    with pytest.raises(OpenFlorenceError, match="least_share lies between 0 and 1"):
        load_specialist("attributes", least_share=1.5)
    assert load_specialist("attributes").version != load_specialist("attributes", least_share=0.1).version
