"""`open-florence embed`: one file of vectors, whole or not at all, and a sentence for whatever is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from open_florence.cli import run
from open_florence.images import image_id
from open_florence.inference.embedder import Embedder, save_embedder
from open_florence.inference.pretrained import save_model
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.embedding import DualEncoder
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of the contrastive stage, "dual", and a plain Florence-2, "plain"."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    processor = Processor(Tokenizer.train(["a red cat"] * 5, 270), image_size=32)
    four = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "groups": (1, 1, 2, 2)}
    vision = VisionConfig(**four, projection_dim=16, window=4, patch_strides=(4, 2, 2, 1))
    config = FlorenceConfig(vision, TextConfig(len(processor.tokenizer), 16, 1, 1, 2, 2, 32, 32, max_positions=24))
    save_embedder(DualEncoder(config, 8), processor, folder / "dual")
    save_model(Florence(config), processor, folder / "plain")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("red", "green", "blue"):
        Image.new("RGB", (20, 10), name).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def test_images_and_texts_go_to_one_file(
    checkpoints: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"broken")
    out = tmp_path / "new" / "vectors.npz"
    texts = ["--text", "a red cat", "--text", "a dog"]
    model = str(checkpoints / "dual")
    assert run(["embed", str(photos), "-m", model, "-o", str(out), "-b", "2", *texts]) == 0
    said = capsys.readouterr()
    assert said.out == f"the vectors of 3 images and 2 texts are in {out}\n"
    assert said.err == f"left out: {photos / 'broken.png'} is not an image\n"
    assert [path.name for path in out.parent.iterdir()] == ["vectors.npz"]
    with np.load(out) as found:  # which refuses pickles
        assert found["paths"].tolist() == [str(photos / f"{name}.png") for name in ("blue", "green", "red")]
        assert found["ids"].tolist() == [image_id(path) for path in found["paths"].tolist()]
        assert found["texts"].tolist() == ["a red cat", "a dog"]
        embedder = Embedder.from_pretrained(model)
        np.testing.assert_allclose(found["image_embeddings"], embedder.images(found["paths"].tolist()), atol=1e-6)
        np.testing.assert_allclose(found["text_embeddings"], embedder.texts(["a red cat", "a dog"]), atol=1e-6)


def test_only_texts(checkpoints: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts.npz"
    assert run(["embed", "--text", "a cat", "-m", str(checkpoints / "dual"), "-o", str(out)]) == 0
    with np.load(out) as found:
        assert sorted(found) == ["text_embeddings", "texts"]


def test_a_plain_florence_is_said_to_be_no_embedding_model(
    checkpoints: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(checkpoints / "plain"), tmp_path / "e.npz"
    assert run(["embed", str(photos), "-m", model, "-o", str(out)]) == 0
    assert "was not trained to give embeddings: each is its mean visual token" in capsys.readouterr().err
    assert run(["embed", str(photos), "-m", model, "-o", str(out), "--text", "a cat"]) == 2
    assert "plain has no text side: a plain Florence-2 gives embeddings of images only" in capsys.readouterr().err


def test_mistakes_are_one_sentence_and_leave_the_old_file(
    checkpoints: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "old.npz"
    out.write_bytes(b"old")
    for path in photos.iterdir():
        path.write_bytes(b"broken")
    common = ["-m", str(checkpoints / "dual"), "-o", str(out)]
    for arguments, sentence in (
        ([str(photos), *common], "none of the 3 images can be read"),
        ([str(tmp_path / "nowhere"), *common], "there is no image or folder"),
        (common, "there is nothing to embed: name images"),
        ([str(photos), "-o", "vectors.parquet"], "embeddings are written to a .npz file"),
        (["--text", "a", *common[:3], str(photos / "red.png" / "x.npz")], "cannot be written: "),
    ):
        assert run(["embed", *arguments]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("open-florence: ")
        assert sentence in last
    assert out.read_bytes() == b"old"
