"""The embedder: what its vectors are, for a checkpoint of the contrastive stage and for a plain Florence-2."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from open_florence.errors import OpenFlorenceError
from open_florence.inference.embedder import Embedder, save_embedder
from open_florence.inference.pretrained import save_model
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.embedding import DualEncoder
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tokenizer import Tokenizer

WORDS = ["a red cat", "an orange dog", "a photo of a fish in the water"]


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(Tokenizer.train(WORDS * 5, 300), image_size=32)


@pytest.fixture(scope="module")
def config(processor: Processor) -> FlorenceConfig:
    vision = VisionConfig(
        (8, 8, 16, 16),
        (1, 1, 1, 1),
        (1, 1, 2, 2),
        (1, 1, 2, 2),
        projection_dim=16,
        window=4,
        patch_strides=(4, 2, 2, 1),
    )
    text = TextConfig(len(processor.tokenizer), 16, 1, 1, 2, 2, 32, 32, max_positions=24)
    return FlorenceConfig(vision, text, image_size=32)


@pytest.fixture
def embedder(config: FlorenceConfig, processor: Processor) -> Embedder:
    torch.manual_seed(0)
    return Embedder(DualEncoder(config, 8), processor, "mine")


@pytest.fixture
def plain(config: FlorenceConfig, processor: Processor) -> Embedder:
    torch.manual_seed(1)
    return Embedder(Florence(config), processor, "plain")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)) for _ in range(5)]


def test_vectors_do_not_depend_on_the_batch(embedder: Embedder, images: list[Image.Image]) -> None:
    whole = embedder.images(images), embedder.texts(WORDS)
    embedder.batch_size = 2
    parts = embedder.images(iter(images)), embedder.texts(iter(WORDS))
    assert [(array.shape, array.dtype) for array in whole] == [((5, 8), np.float32), ((3, 8), np.float32)]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)


def test_a_plain_florence_gives_its_mean_visual_token(plain: Embedder, images: list[Image.Image]) -> None:
    assert isinstance(plain.model, Florence)
    with torch.no_grad():
        token = plain.model.encode_image(torch.from_numpy(plain.processor.pixels(images)))[:, 0]
    np.testing.assert_allclose(plain.images(images), F.normalize(token, dim=1).numpy(), atol=1e-6)
    assert not plain.has_texts


def test_a_plain_florence_has_no_texts_and_says_so(plain: Embedder, images: list[Image.Image]) -> None:
    with pytest.raises(
        OpenFlorenceError, match="plain has no text side: a plain Florence-2 gives embeddings of images"
    ):
        plain.texts(["a cat"])
    with pytest.raises(OpenFlorenceError, match="no text side"):
        plain.classify(images[0], ["cat", "dog"])


def test_a_class_is_the_mean_of_its_sentences(embedder: Embedder) -> None:
    sentences = embedder.texts(["a cat", "an orange dog", "photo of cat", "photo of orange dog"])
    mean = sentences[[0, 2]].mean(0), sentences[[1, 3]].mean(0)
    expected = np.stack([row / np.linalg.norm(row) for row in mean])
    found = embedder.classes(["cat", "orange dog"], ["a {}", "photo of {}"])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(OpenFlorenceError, match="at least one name and one template"):
        embedder.classes([], ["a {}"])


def test_classify_is_a_softmax_of_the_scaled_cosines(embedder: Embedder, images: list[Image.Image]) -> None:
    labels = ["cat", "dog", "fish"]
    found = embedder.classify(images[0], labels)
    assert isinstance(embedder.model, DualEncoder)
    logits = embedder.model.scale.item() * embedder.images(images[:1]) @ embedder.classes(labels).T
    expected = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert [found[label] for label in labels] == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_text_that_is_too_long_is_refused_with_its_beginning(embedder: Embedder) -> None:
    with pytest.raises(OpenFlorenceError, match=r"tokens, and this model reads only 24: 'cat cat cat"):
        embedder.texts(["short", "cat " * 30])


def test_what_is_saved_gives_the_same_vectors(embedder: Embedder, images: list[Image.Image], tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoint"
    save_embedder(embedder.model, embedder.processor, folder)  # type: ignore[arg-type]
    again = Embedder.from_pretrained(folder)
    assert (again.has_texts, again.source, again.processor.image_size) == (True, "run", 32)
    np.testing.assert_array_equal(again.images(images), embedder.images(images))
    np.testing.assert_array_equal(again.texts(WORDS), embedder.texts(WORDS))
    half = Embedder.from_pretrained(folder, dtype="bfloat16").images(images)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, embedder.images(images), atol=0.1)


def test_a_florence_folder_is_told_from_one_with_texts(
    plain: Embedder, images: list[Image.Image], tmp_path: Path
) -> None:
    save_model(plain.model, plain.processor, tmp_path)  # type: ignore[arg-type]
    again = Embedder.from_pretrained(tmp_path)
    assert not again.has_texts
    np.testing.assert_allclose(again.images(images), plain.images(images), atol=1e-6)


def test_mistakes_are_one_sentence(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="there is no model 'nowhere'"):
        Embedder.from_pretrained("nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OpenFlorenceError, match="is not valid JSON"):
        Embedder.from_pretrained(tmp_path)
    with pytest.raises(OpenFlorenceError, match="there is no file"):
        embedder.images([tmp_path / "absent.png"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OpenFlorenceError, match="the model cannot be written to"):
        save_embedder(embedder.model, embedder.processor, tmp_path / "file" / "inside")  # type: ignore[arg-type]
