"""Region proposals: things that stand out are covered, in the frame of the image, the same each time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import iou, region_box
from open_florence.schema import Annotation, Sample
from open_florence.specialists import load_specialist

THINGS = [[20.0, 25.0, 80.0, 65.0], [150.0, 20.0, 210.0, 80.0], [100.0, 110.0, 190.0, 140.0]]


def picture(path: Path, scale: int = 1) -> Sample:
    image = Image.new("RGB", (240, 160), (90, 140, 90))
    draw = ImageDraw.Draw(image)
    for box, colour in zip(THINGS, ("red", "blue", "yellow"), strict=True):
        draw.rectangle(box, fill=colour)
    image = image.resize((240 * scale, 160 * scale), Image.Resampling.NEAREST)
    image.save(path)
    return Sample("0", str(path), (240.0 * scale, 160.0 * scale))


@pytest.mark.parametrize("methods", [["selective_search"], ["mser"], ["selective_search", "mser"]])
@pytest.mark.parametrize("scale", [1, 2])
def test_things_are_covered(tmp_path, methods, scale):
    sample = picture(tmp_path / "a.png", scale)
    specialist = load_specialist("proposals", methods=methods)
    (answer,) = specialist.annotate([sample])[0]
    assert specialist.annotate([sample, sample]) == [[answer], [answer]]  # although OpenCV ranks with chance
    found = np.array([region_box(region.parts) for region in answer.regions])
    assert iou(np.array(THINGS) * scale, found).max(axis=1).min() > 0.75
    assert found.min() >= 0
    assert (found[:, 2:] <= sample.size).all()
    assert (found[:, :2] < found[:, 2:]).all()


def test_limits(tmp_path):
    sample = picture(tmp_path / "a.png")
    (answer,) = load_specialist("proposals", most=4, overlap=0.3).annotate([sample])[0]
    assert 1 <= len(answer.regions) <= 4
    found = [region_box(region.parts) for region in answer.regions]
    assert iou(found, found)[~np.eye(len(found), dtype=bool)].max(initial=0) <= 0.3
    scores = [region.score for region in answer.regions]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert all(region.label == "" for region in answer.regions)


@pytest.mark.parametrize("size", [(1, 1), (500, 2), (20, 19), (320, 240)])
def test_plain_and_tiny_images(tmp_path, size):
    Image.new("RGB", size, "white").save(tmp_path / "a.png")
    (answer,) = load_specialist("proposals").annotate([Sample("0", str(tmp_path / "a.png"), size)])[0]
    assert answer == Annotation("<REGION_PROPOSAL>")


@pytest.mark.parametrize("options", [{"methods": ["edges"]}, {"methods": []}, {"most": 0}, {"overlap": 2}])
def test_mistakes(options):
    with pytest.raises(OpenFlorenceError, match="proposals: "):
        load_specialist("proposals", **options)
