"""Faces and people: found on a photo, in the pixels of the photo, with scores; nothing on what holds neither."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import iou, region_box
from open_florence.schema import Annotation, Sample
from open_florence.specialists import load_specialist
from open_florence.specialists.people import FACE, PERSON


def sample(path: Path) -> Sample:
    with Image.open(path) as image:
        return Sample("0", str(path), (float(image.width), float(image.height)))


def boxes(annotation: Annotation, label: str) -> np.ndarray:
    return np.array([region_box(r.parts) for r in annotation.regions if r.label == label]).reshape(-1, 4)


def test_a_face_in_a_photo_and_in_its_mirror_image(data_folder, tmp_path):
    image = Image.open(data_folder / "photos_skimage" / "astronaut.png").convert("RGB").crop((100, 0, 356, 256))
    image.save(tmp_path / "1.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "2.png")
    image.resize((320, 320)).save(tmp_path / "3.png")
    people = load_specialist("people", find=["face"])
    answers = [found for (found,) in people.annotate([sample(path) for path in sorted(tmp_path.iterdir())])]
    for answer, face in zip(
        answers, ([70, 60, 180, 190], [76, 60, 186, 190], [70 * 1.25, 60 * 1.25, 180 * 1.25, 190 * 1.25]), strict=True
    ):
        assert iou(boxes(answer, FACE)[:1], [face])[0, 0] > 0.5
        scores = [region.score for region in answer.regions]
        assert all(0 < score < 1 for score in scores)
        assert scores == sorted(scores, reverse=True)


@pytest.fixture
def walker(tmp_path: Path) -> Path:
    """A person of ellipses, 60 x 180 pixels at (170, 60), which the classifier of gradients takes for one."""
    from PIL import ImageDraw, ImageFilter

    image = Image.new("RGB", (400, 300), (150, 150, 150))
    draw = ImageDraw.Draw(image)
    draw.ellipse((187, 60, 213, 92), fill=(60, 50, 50))
    draw.rounded_rectangle((172, 94, 228, 165), 14, fill=(40, 40, 60))
    draw.rectangle((178, 160, 196, 240), fill=(30, 30, 40))
    draw.rectangle((204, 160, 222, 240), fill=(30, 30, 40))
    path = tmp_path / "walker.png"
    image.filter(ImageFilter.GaussianBlur(1)).save(path)
    return path


def test_a_person_without_the_margin_of_the_classifiers_window(walker):
    (answer,) = load_specialist("people", find=["person"]).annotate([sample(walker)])[0]
    found = boxes(answer, PERSON)
    assert iou(found, [[170, 60, 230, 240]]).max() > 0.5


def test_images_with_neither_and_images_that_are_tiny(tmp_path):
    Image.new("RGB", (200, 300), "green").save(tmp_path / "green.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (900, 3)).save(tmp_path / "line.png")
    answers = load_specialist("people").annotate([sample(path) for path in sorted(tmp_path.iterdir())])
    assert answers == [[Annotation("<OD>")]] * 3


def test_mistakes(tmp_path):
    with pytest.raises(OpenFlorenceError, match="what it can find is face and person"):
        load_specialist("people", find=["dog"])
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(OpenFlorenceError, match="is not an image"):
        load_specialist("people").annotate([Sample("0", str(tmp_path / "a.png"), (1.0, 1.0))])
