"""`--tile` and `--overlap` of `predict` and `annotate`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from open_florence.cli import run
from open_florence.inference.predictor import Predictor
from open_florence.inference.tiling import TilePredictor
from open_florence.scenes import VALIDATION_SEEDS, make_scene
from open_florence.schema import Sample


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image of two scenes side by side, in a folder of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    scenes = [make_scene(VALIDATION_SEEDS[k]).image for k in (0, 1)]
    Image.fromarray(np.concatenate(scenes, axis=1)).save(folder / "a.png")
    return folder / "a.png"


def test_predict_reads_a_large_image_in_tiles(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(photo), "--task", "OD", "--tile", "auto", "--overlap", "0", "--format", "jsonl"]) == 0
    sample = Sample.from_json(json.loads(capsys.readouterr().out))
    tiled = TilePredictor(Predictor.from_pretrained("tiny"), 160, 0.0)
    assert sample.annotations == (tiled.predict(Image.open(photo), "<OD>"),)
    assert sample.annotations[0].source == "open-florence-tiny/tiles-160-0"


def test_annotate_writes_down_the_tiles_and_goes_on_with_the_same_alone(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["annotate", str(photo.parent), "--tasks", "OD", "--out", str(tmp_path / "out"), "--tile", "200"]
    assert run(arguments) == 0
    settings = json.loads((tmp_path / "out" / "run.json").read_text())
    assert settings["model"] == "open-florence-tiny/tiles-200-0.2"
    (line,) = (tmp_path / "out" / "annotations.jsonl").read_text().splitlines()
    assert Sample.from_json(json.loads(line)).annotations[0].source == settings["model"]
    capsys.readouterr()
    assert run([*arguments, "--overlap", "0.3"]) == 2
    assert "was annotated with another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tile", "overlap", "sentence"),
    [
        ("large", "0.2", "--tile is a number of pixels or auto, not 'large'"),
        ("0", "0.2", "a tile is 1 pixel or more"),
        ("auto", "1", "with an overlap from 0 to 1, not 160 with 1"),
    ],
)
def test_tiles_that_cannot_be(
    photo: Path, tile: str, overlap: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(photo), "--tile", tile, "--overlap", overlap]) == 2
    assert sentence in capsys.readouterr().err
