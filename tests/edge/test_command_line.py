"""Commands that take a model take the folder of an export as well."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from open_florence.cli import run
from open_florence.edge.folder import is_export
from open_florence.scenes import make_scene


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.fromarray(make_scene(1).image).save(path)
    return path


def predict(picture: Path, folder: Path, *options: str) -> int:
    return run(["predict", str(picture), "--task", "CAPTION", "--format", "jsonl", "--model", str(folder), *options])


def test_predict(exported: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(picture, exported) == 0
    (annotation,) = json.loads(capsys.readouterr().out)["annotations"]
    assert annotation["source"] == exported.name
    assert "crescent" in annotation["text"]


def test_annotate(exported: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["annotate", str(picture), "--tasks", "CAPTION", "--out", str(out), "--model", str(exported)]
    assert run(command) == 0
    (line,) = (out / "annotations.jsonl").read_text().splitlines()
    assert json.loads(line)["annotations"][0]["source"] == exported.name


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--device", "cuda"], "runs on the CPU"), (["--dtype", "bfloat16"], "float32, float16, int8")],
)
def test_what_it_cannot_do(
    exported: Path, picture: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert predict(picture, exported, *options) == 2
    assert says in capsys.readouterr().err


def test_weights_beside_it_are_preferred(exported: Path, tmp_path: Path) -> None:
    assert is_export(exported)
    folder = shutil.copytree(exported, tmp_path / "both")
    (folder / "model.safetensors").touch()
    assert not is_export(folder)
    assert not is_export(tmp_path / "nowhere")
