"""The folder of an OpenVINO export: written by the command, whole or not at all, and read without the checkpoint."""

import contextlib
import io
import re
import shutil
import sys

import pytest
import torch
from PIL import Image

from open_florence.cli import run
from open_florence.errors import OpenFlorenceError
from open_florence.export import export_model
from open_florence.export.openvino import compare
from open_florence.inference.calibration import Calibration, Curve
from open_florence.inference.openvino import is_export, load_openvino
from open_florence.inference.openvino_graphs import GRAPHS
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model

pytest.importorskip("openvino")

SUFFIXES = {"float32": "", "float16": "_fp16", "int8": "_int8"}


CALIBRATION = Calibration({"<OD>": Curve((0.0, 1.0), (0.25, 0.75))})


@pytest.fixture(scope="module")
def checkpoint(checkpoint, tmp_path_factory):
    """The random model, with a calibration beside it."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(checkpoint, folder)
    CALIBRATION.save(folder)
    return folder


@pytest.fixture(scope="module")
def written(checkpoint, tmp_path_factory):
    """The folder, and what the command printed."""
    folder, said = tmp_path_factory.mktemp("openvino") / "out", io.StringIO()
    dtypes = [word for dtype in SUFFIXES for word in ("--dtype", dtype)]
    with contextlib.redirect_stdout(said):
        assert run(["export", str(checkpoint), str(folder), "--format", "openvino", *dtypes]) == 0
    return folder, said.getvalue()


def test_the_files(written):
    folder, _ = written
    names = {path.name for path in (folder / "openvino").iterdir()}
    assert names == {
        f"{graph}{suffix}.{end}" for graph in GRAPHS for suffix in SUFFIXES.values() for end in ("xml", "bin")
    }
    sizes = [(folder / "openvino" / f"head{suffix}.bin").stat().st_size for suffix in SUFFIXES.values()]
    assert sizes[0] / 2 <= sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < sizes[1]


def test_the_comparison_is_printed(written):
    lines = written[1].splitlines()
    for line, dtype in zip(lines, SUFFIXES, strict=False):
        assert line.startswith(f"{dtype}: image features ")
        assert re.search(r"logits \S+ off .*; \d+ of 48 tokens the same", line)
    assert len(lines) == 4


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("float16", 5e-3), ("int8", 0.1)])
def test_the_files_say_what_the_model_says(written, checkpoint, dtype, most):
    parity = compare(*load_model(checkpoint), written[0], dtype)
    assert parity.error < most
    assert (parity.error > 1e-5) == (dtype != "float32")


def test_a_predictor_reads_the_folder(written, checkpoint):
    folder, _ = written
    assert is_export(folder)
    assert not is_export(checkpoint)
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    torches, vinos = (Predictor.from_pretrained(path) for path in (checkpoint, folder))
    assert vinos.model.config == torches.model.config
    assert vinos.calibration == torches.calibration == CALIBRATION
    wanted, found = (predictor.predict(image, ["<CAPTION>", "<OD>"]) for predictor in (torches, vinos))
    assert [answer.text for answer in found] == [answer.text for answer in wanted]
    with pytest.raises(OpenFlorenceError):
        Predictor.from_pretrained(folder, backend="torch")


def test_which_weights_are_read(written, checkpoint, tmp_path):
    folder, _ = written
    pixels = torch.randn(1, 3, 24, 24)
    answers = {kind: load_openvino(folder, kind)[0].encode_image(pixels) for kind in (None, "float32", "int8")}
    assert torch.equal(answers[None], answers["float32"])
    assert not torch.equal(answers[None], answers["int8"])
    export_model(checkpoint, tmp_path / "small", "openvino", ["int8"])
    assert torch.equal(load_openvino(tmp_path / "small")[0].encode_image(pixels), answers["int8"])
    compressed = load_openvino(checkpoint, "int8")[0]  # without a folder of its own
    assert torch.equal(compressed.encode_image(pixels), answers["int8"])


def test_the_command_line_reads_the_folder(written, checkpoint, tmp_path, capsys):
    image = tmp_path / "noise.png"
    Image.effect_noise((40, 30), 90).convert("RGB").save(image)
    ask = ["predict", str(image), "--task", "CAPTION", "--format", "jsonl", "--max-new-tokens", "8", "--model"]
    said = []
    for model in ([str(written[0])], [str(checkpoint), "--backend", "openvino"], [str(checkpoint)]):
        assert run([*ask, *model]) == 0
        said.append(re.sub(r'"(score|source)": [^,}]+', "", capsys.readouterr().out))
    assert said[0] == said[1] == said[2]


def test_without_openvino_nothing_is_written(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert run(["export", str(checkpoint), str(tmp_path / "out"), "--format", "openvino"]) == 2
    assert "pip install 'open-florence[openvino]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
