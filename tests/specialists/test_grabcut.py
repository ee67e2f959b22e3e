"""Masks of boxes: things on a plain ground are cut out whole, in the pixels of the image, whatever its size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from open_florence.geometry import iou, mask_iou, rasterize, region_box
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists import load_specialist


def sample(path: Path, image: Image.Image, *boxes: Region) -> Sample:
    image.save(path)
    return Sample("0", str(path), (float(image.width), float(image.height)), (Annotation("<OD>", regions=boxes),))


def disc(scale: int = 1) -> tuple[Image.Image, Region, np.ndarray]:
    """A red disc on green ground, its box and its pixels."""
    rng = np.random.default_rng(0)
    ground = rng.normal((60, 140, 60), 8, (120 * scale, 160 * scale, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(ground)
    box = [50 * scale, 30 * scale, 110 * scale, 90 * scale]
    ImageDraw.Draw(image).ellipse([*box[:2], box[2] - 1, box[3] - 1], fill=(200, 40, 40))
    y, x = np.mgrid[: image.height, : image.width] + 0.5
    truth = (x - 80 * scale) ** 2 + (y - 60 * scale) ** 2 < (30 * scale) ** 2
    return image, Region.box(*box, label="disc", score=0.8), truth


@pytest.mark.parametrize("scale", [1, 6])
def test_a_disc(tmp_path, scale):
    image, box, truth = disc(scale)
    (answer,) = load_specialist("grabcut").annotate([sample(tmp_path / "a.png", image, box)])[0]
    assert (answer.task, answer.query) == ("<REGION_TO_SEGMENTATION>", box)
    (region,) = answer.regions
    assert (region.kind, region.label) == ("polygon", "disc")
    assert mask_iou(rasterize(region.parts, image.size), truth) > 0.9
    assert region.score == iou([region_box(region.parts)], [region_box(box.parts)])[0, 0] > 0.9


def test_a_box_that_does_not_fit_has_a_low_score(tmp_path):
    image, box, _ = disc()
    loose = Region.box(45, 10, 150, 110, label="disc")
    fitting, other = load_specialist("grabcut").annotate([sample(tmp_path / "a.png", image, box, loose)])[0]
    assert other.query == loose
    assert other.regions[0].score < fitting.regions[0].score - 0.2


def test_each_place_once_and_the_same_each_time(tmp_path):
    image, box, _ = disc()
    twice = sample(tmp_path / "a.png", image, box, Region.box(*region_box(box.parts), label="circle"))
    cutter = load_specialist("grabcut")
    answers = cutter.annotate([twice, twice])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 1


def test_boxes_that_cannot_be_cut_out(tmp_path):
    image, _, _ = disc()
    whole, dot, outside = Region.box(0, 0, 160, 120), Region.box(5, 5, 7, 50), Region.box(200, 200, 300, 300)
    assert load_specialist("grabcut").annotate([sample(tmp_path / "a.png", image, whole, dot, outside)]) == [[]]


def test_without_boxes_the_image_is_not_opened(tmp_path):
    assert load_specialist("grabcut").annotate([Sample("0", str(tmp_path / "absent.png"), (9.0, 9.0))]) == [[]]
    assert load_specialist("grabcut").needs == ("<OD>",)
