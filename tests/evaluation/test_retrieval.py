"""Recall at k of both directions, on vectors whose neighbours are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation import retrieval
from open_florence.evaluation.retrieval import retrieval_recall


def values(*arguments, **settings):
    return {row.key: row.value for row in retrieval_recall(*arguments, **settings)}


def test_each_with_its_own_text():
    found = values(np.eye(4), 3 * np.eye(4), np.arange(4), ks=(1, 2))  # lengths do not count
    assert found == dict.fromkeys(("image_to_text_r1", "image_to_text_r2", "text_to_image_r1", "text_to_image_r2"), 1.0)


def test_any_of_an_images_texts_is_right_but_every_text_asks_for_itself():
    images = np.eye(2)
    texts = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # the second text of image 0 points to image 1
    rows = {row.key: row for row in retrieval_recall(images, texts, [0, 0, 1], ks=(1,))}
    assert rows["text_to_image_r1"].value == pytest.approx(2 / 3)
    assert rows["text_to_image_r1"].count == 3
    assert rows["image_to_text_r1"].value == 0.5  # text 1 is as near to image 1 as its own: the wrong one comes first
    assert rows["image_to_text_r1"].count == 2


def test_vectors_that_are_all_the_same_find_nothing():
    found = values(np.ones((20, 3)), np.ones((20, 3)), np.arange(20), ks=(1, 10))
    assert set(found.values()) == {0.0}


def test_an_image_without_a_text_is_there_to_be_found():
    found = values(np.array([[1.0, 0.0], [1.0, 0.2]]), np.array([[1.0, 0.2]]), [0], ks=(1, 2))
    assert found["text_to_image_r1"] == 0.0
    assert found["text_to_image_r2"] == 1.0
    assert found["image_to_text_r1"] == 1.0


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_like_sorting_the_whole_table(seed, captions):
    random = np.random.default_rng(seed)
    images, owner = random.normal(size=(11, 4)), np.repeat(np.arange(11), captions)
    texts = images[owner] + random.normal(size=(len(owner), 4))
    cosines = (images / np.linalg.norm(images, axis=1)[:, None]) @ (texts / np.linalg.norm(texts, axis=1)[:, None]).T
    found = values(images, texts, owner, ks=(1, 3))
    for k in (1, 3):
        nearest = np.argsort(-cosines, axis=1)[:, :k]
        assert found[f"image_to_text_r{k}"] == np.mean([i in owner[row] for i, row in enumerate(nearest)])
        nearest = np.argsort(-cosines.T, axis=1)[:, :k]
        assert found[f"text_to_image_r{k}"] == np.mean([owner[t] in row for t, row in enumerate(nearest)])


def test_in_pieces_the_same(monkeypatch):
    random = np.random.default_rng(0)
    data = random.normal(size=(40, 8)), random.normal(size=(90, 8)), random.permutation(np.arange(90) % 37)
    whole = retrieval_recall(*data)
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    assert retrieval_recall(*data) == whole


def test_the_interval_draws_images():
    images = np.eye(10)
    texts = np.repeat(np.roll(images, 1, axis=0) * (np.arange(10) % 2)[:, None] + images * 0.5, 20, axis=0)
    row = {row.key: row for row in retrieval_recall(images, texts, np.repeat(np.arange(10), 20))}["text_to_image_r1"]
    assert row.value == 0.5
    assert row.count == 200
    assert row.interval[1] - row.interval[0] > 0.4  # ten coins, not two hundred


@pytest.mark.parametrize(
    ("images", "texts", "owner", "message"),
    [
        (np.eye(3), np.eye(2), [0, 1], "vectors of 3 numbers but texts of 2"),
        (np.eye(3), np.eye(3), [0, 1], "one whole number for each of the 3 texts"),
        (np.eye(3), np.eye(3), [0.0, 1.0, 2.0], "one whole number"),
        (np.eye(3), np.eye(3), [0, 1, 3], "each about one of the 3 images"),
        (np.eye(3), np.zeros((0, 3)), np.zeros(0, int), "needs texts"),
        (np.ones(3), np.eye(3), [0, 1, 2], "the shape"),
        (np.full((3, 3), np.nan), np.eye(3), [0, 1, 2], "not finite"),
    ],
)
def test_what_does_not_fit_is_said(images, texts, owner, message):
    with pytest.raises(OpenFlorenceError, match=message):
        retrieval_recall(images, texts, owner)
