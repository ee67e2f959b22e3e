"""An export answers in a process where all that it does not need cannot be imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from open_florence.scenes import make_scene

CODE = """
import sys

BARRED = {
    "torch", "pydantic", "typer", "rich", "click", "huggingface_hub", "safetensors", "yaml", "transformers", "onnx",
    "onnxscript", "cv2", "scipy",
}

class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BARRED:
            raise ImportError(f"{name} is barred here")

sys.meta_path.insert(0, Bar())
from open_florence.edge import EdgePredictor

answers = EdgePredictor.from_folder(sys.argv[1], threads=1).predict(sys.argv[2], ["<CAPTION>", "<OD>"])
print(answers[0].text)
print(len(answers[1].regions))
assert not BARRED & sys.modules.keys()
"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    Image.fromarray(make_scene(1).image).save(path)
    return path


def run(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_it_answers(exported: Path, picture: Path) -> None:
    done = run(CODE, exported, picture)
    assert done.returncode == 0, done.stderr
    caption, regions = done.stdout.splitlines()
    assert "crescent" in caption
    assert int(regions) > 0


def test_without_onnxruntime_it_says_so(exported: Path, picture: Path) -> None:
    done = run(CODE.replace('"onnx",', '"onnx", "onnxruntime",'), exported, picture)
    assert done.stderr.endswith("OpenFlorenceError: an ONNX export needs onnxruntime: pip install onnxruntime\n")
