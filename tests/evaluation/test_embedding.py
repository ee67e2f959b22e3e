"""Retrieval and zero-shot classification, on an embedder that reads colours and words without any weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.embedding import evaluate_retrieval, evaluate_zero_shot, zero_shot_rows
from open_florence.images import open_image
from open_florence.schema import Annotation, Sample
from open_florence.tasks.templates import fill

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "cyan")


class Eye:
    """One axis a colour; an image is what colour it has, a text which it names. `blind` to some, it sees nothing."""

    source = "eye"

    def __init__(self, blind: Sequence[str] = ()) -> None:
        self.blind = blind

    def images(self, images: Iterable[Any]) -> np.ndarray:
        pixels = [Image.new("RGB", (1, 1), name).getpixel((0, 0)) for name in COLOURS]
        seen = [COLOURS[pixels.index(open_image(image).getpixel((0, 0)))] for image in images]
        return np.array([self._vector(colour) for colour in seen])

    def texts(self, texts: Iterable[str]) -> np.ndarray:
        return np.stack([self._vector(next(c for c in COLOURS if c in text)) for text in texts])

    def classes(self, names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        return self.texts([fill(templates[0], name) for name in names])

    def _vector(self, colour: str) -> np.ndarray:
        if colour in self.blind:
            return np.ones(len(COLOURS), np.float32) / len(COLOURS) ** 0.5
        return np.eye(len(COLOURS), dtype=np.float32)[COLOURS.index(colour)]


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    found = []
    for colour in COLOURS:
        path = tmp_path / f"{colour}.png"
        Image.new("RGB", (8, 6), colour).save(path)
        captions = [Annotation("<CAPTION>", text) for text in (f"a {colour} wall", f"{colour} everywhere")]
        found.append(Sample(colour, str(path), (8.0, 6.0), (*captions, Annotation("<CLASSIFICATION>", colour))))
    return found


def test_every_caption_finds_its_image_and_every_image_a_caption(samples: list[Sample]) -> None:
    report = evaluate_retrieval(Eye(), samples, ks=(1, 2))
    assert (report.images, report.model, report.data) == (7, "eye", "samples")
    assert set(report.metrics.values()) == {1.0}
    assert {row.key: row.count for row in report.rows} == {
        "image_to_text_r1": 7,
        "image_to_text_r2": 7,
        "text_to_image_r1": 14,
        "text_to_image_r2": 14,
    }


def test_what_is_not_seen_is_not_found(samples: list[Sample]) -> None:
    metrics = evaluate_retrieval(Eye(blind=("red",)), samples, ks=(1,)).metrics
    assert metrics["text_to_image_r1"] == pytest.approx(1.0)  # the one vector like no other is red's
    metrics = evaluate_retrieval(Eye(blind=("red", "blue")), samples, ks=(1,)).metrics
    assert metrics == {"image_to_text_r1": pytest.approx(5 / 7), "text_to_image_r1": pytest.approx(5 / 7)}


def test_images_without_such_a_text_ask_nothing(samples: list[Sample], tmp_path: Path) -> None:
    silent = Sample("x", str(tmp_path / "absent.png"), (8.0, 6.0), (Annotation("<OCR>", "STOP"),))
    assert evaluate_retrieval(Eye(), [silent, *samples], limit=3).images == 2
    with pytest.raises(OpenFlorenceError, match="nothing to retrieve: no image has a text of <DETAILED_CAPTION>"):
        evaluate_retrieval(Eye(), [silent], task="detailed_caption")


def test_zero_shot_is_the_nearest_name(samples: list[Sample]) -> None:
    report = evaluate_zero_shot(Eye(), samples)
    assert report.metrics == {"zero_shot_top1": 1.0, "zero_shot_top5": 1.0}
    assert report.rows[0].note == "of 7 classes, chance 0.143"
    few = evaluate_zero_shot(Eye(blind=("red", "blue")), samples[:3], classes=("red", "green", "blue"))
    assert few.metrics == {"zero_shot_top1": pytest.approx(2 / 3)}, "three classes have no top 5"


def test_vectors_that_are_all_the_same_are_right_by_chance() -> None:
    same = np.ones((4, 2), np.float32)
    row, *_ = zero_shot_rows(same, ["a", "b", "a", "b"], same[:2], ["a", "b"])
    assert (row.value, row.count) == (0.5, 4)


def test_a_class_that_cannot_be_chosen_is_named(samples: list[Sample]) -> None:
    with pytest.raises(OpenFlorenceError, match="the class 'red' of the data is not among those to choose from"):
        evaluate_zero_shot(Eye(), samples[:2], classes=("green", "blue"))
    with pytest.raises(OpenFlorenceError, match="nothing to classify: no image has a <CLASSIFICATION> annotation"):
        evaluate_zero_shot(Eye(), [])


class Counting:
    """Every image and every text a vector of its own."""

    source = ""

    def images(self, images: Iterable[Any]) -> np.ndarray:
        return np.eye(16, dtype=np.float32)[: len(list(images))]

    def texts(self, texts: Iterable[str]) -> np.ndarray:
        return self.images(texts)

    classes = None


def test_scenes_are_asked_for_by_name() -> None:
    report = evaluate_retrieval(Counting(), "scenes:validation", limit=4, task="<DETAILED_CAPTION>")  # type: ignore[arg-type]
    assert (report.data, report.images) == ("scenes:validation", 4)
    assert report.metrics["text_to_image_r1"] == 1.0
