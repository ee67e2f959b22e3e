"""`calibrate`, and `--threshold` and `--nms` of `predict` and `annotate`: what is printed, written and left out."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from open_florence.cli import run
from open_florence.evaluation.evaluate import Asked, Source
from open_florence.evaluation.metrics import Answers
from open_florence.inference.calibration import Calibration
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import save_model
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region
from open_florence.tokenizer import Tokenizer

# --- calibrate


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny architecture with random weights."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a red square and two green circles"] * 20, 1500)
    preset = PRESETS["tiny"]
    config = replace(preset, text=replace(preset.text, vocab_size=len(tokenizer), max_positions=96))
    folder = tmp_path_factory.mktemp("checkpoint") / "random"
    save_model(Florence(config), Processor(tokenizer, image_size=64), folder)
    return folder


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[Predictor]:
    """Stands in for a model's answers: 200 images with a box each, right more often the higher its low score."""
    asked: list[Predictor] = []
    rng = np.random.default_rng(0)

    def ask(predictor: Predictor, data: str, limit: int | None, tasks: list[str]) -> Asked:
        asked.append(predictor)
        assert "<OD>" in tasks
        assert "<CAPTION>" not in tasks
        answers = Answers()
        for image in range(200):
            sure = rng.random()
            true, found = Region.box(0, 0, 9, 9, label="a"), Region.box(0, 0, 9, 9, label="a", score=sure / 10)
            found = found if rng.random() < sure else replace(found, label="b")
            answers.add(Annotation("<OD>", regions=(true,)), Annotation("<OD>", regions=(found,)), image, (9.0, 9.0))
        source = Source(data, limit, iter(()), {}, per_class=False)
        return Asked(source, {"<OD>": answers}, 200, ["one image is left out"])

    monkeypatch.setattr(sys.modules["open_florence.evaluation.evaluate"], "ask", ask)
    return asked


def test_a_calibrated_copy(checkpoint: Path, answered: list[Predictor], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "calibrated"
    assert run(["calibrate", "--model", str(checkpoint), "--data", "known", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    (line,) = (line for line in printed.out.splitlines() if "<OD>" in line and "│" in line)
    _, count, _, before, after = (cell.strip() for cell in line.strip("│").split("│"))
    assert int(count) == 200
    assert float(after) < 0.15 < float(before)
    assert "one image is left out" in printed.err
    assert not (checkpoint / "calibration.json").exists()
    predictor = Predictor.from_pretrained(out)
    assert predictor.calibration is not None
    assert predictor.calibration.curves["<OD>"](0.09) > 0.6
    assert {path.name for path in out.iterdir()} == {*(p.name for p in checkpoint.iterdir()), "calibration.json"}

    assert run(["calibrate", "--model", str(out), "--data", "known"]) == 0  # again, in its own folder
    assert [predictor.calibration for predictor in answered] == [None, None]
    assert Calibration.load(out) != predictor.calibration


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "tiny"], "tiny is not a folder of yours: name one with --out"),
        (["--model", "tiny", "--out", "full"], "full exists and is not an empty folder"),
        (["--model", "nowhere"], "there is no model 'nowhere'"),
    ],
)
def test_what_cannot_be_calibrated(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert run(["calibrate", "--data", "known", *arguments]) == 2
    assert said in capsys.readouterr().err


# --- threshold and nms


class Fake:
    """A predictor without a model: one sure box, another on the same thing, an unsure one."""

    source = "fake"

    def predict(self, image: Image.Image, tasks: list[Any], *, generation: Any = None) -> list[Annotation]:
        boxes = (
            Region.box(0, 0, 20, 20, label="cat", score=0.9),
            Region.box(0, 1, 20, 20, label="cat", score=0.8),
            Region.box(30, 0, 39, 9, label="dog", score=0.2),
        )
        return [Annotation(task, regions=boxes, source=self.source) for task, _ in tasks]

    def predict_batch(self, images: list[Any], tasks: list[Any], *, generation: Any) -> list[list[Annotation]]:
        return [self.predict(image, tasks, generation=generation) for image in images]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two images, and no model to be loaded."""
    for module in ("annotate", "predict"):
        monkeypatch.setattr(sys.modules[f"open_florence.cli.{module}"], "load_predictor", lambda *_: Fake())
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30), "red" if name == "a" else "blue").save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def scores(lines: list[str]) -> list[list[float]]:
    return [[region["score"] for region in json.loads(line)["annotations"][0]["regions"]] for line in lines]


def test_predict_leaves_out_and_says_so(photos: Path, capsys: Any) -> None:
    command = ["predict", str(photos), "--task", "OD", "--format", "jsonl"]
    assert run([*command, "--threshold", "0.5", "--nms", "0.5"]) == 0
    printed = capsys.readouterr()
    assert scores(printed.out.splitlines()) == [[0.9], [0.9]]
    assert "left out: 2 regions with a score below 0.5, 2 that overlap a better one (IoU 0.5)" in printed.err
    assert run(command) == 0
    printed = capsys.readouterr()
    assert scores(printed.out.splitlines()) == [[0.9, 0.8, 0.2]] * 2
    assert "left out" not in printed.err


def test_annotate_leaves_out_says_so_and_goes_on_only_with_the_same_numbers(
    photos: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    command = ["annotate", str(photos), "--tasks", "OD", "--out", str(out), "--batch-size", "1"]
    assert run([*command, "--threshold", "0.5"]) == 0
    assert "left out: 2 regions with a score below 0.5" in capsys.readouterr().out
    assert scores((out / "annotations.jsonl").read_text().splitlines()) == [[0.9, 0.8]] * 2
    assert json.loads((out / "run.json").read_text())["selection"] == {"threshold": 0.5, "nms": None}
    assert run([*command, "--threshold", "0.4"]) == 2
    assert "another selection" in capsys.readouterr().err
    assert run([*command, "--threshold", "0.5"]) == 0


@pytest.mark.parametrize("command", ["predict", "annotate"])
def test_numbers_that_cannot_be(command: str, photos: Path, tmp_path: Path, capsys: Any) -> None:
    out = ["--out", str(tmp_path / "out")] if command == "annotate" else []
    assert run([command, str(photos), *out, "--nms", "1.5"]) == 2
    assert "nms lies between 0 and 1, not at 1.5" in capsys.readouterr().err
