"""`export_model` and `open-florence export`: a whole folder or none, and one sentence for everything that fails."""

import sys
from pathlib import Path

import pytest

from open_florence import export
from open_florence.cli import run
from open_florence.cli.export import ExportDType
from open_florence.errors import OpenFlorenceError
from open_florence.export import DTYPES, FORMATS, export_model
from open_florence.export.parity import Parity


def stand_in(*errors, fail=None):
    """An exporter that writes one file a dtype, and is so far from the model."""

    def write(model, processor, folder, dtypes):
        for dtype in dtypes:
            (folder / f"{dtype}.onnx").write_bytes(b"graph")
        if fail:
            raise fail
        return [Parity(dtype, error, 0.0, 0.0, 12, 12) for dtype, error in zip(dtypes, errors, strict=True)]

    return lambda: write


@pytest.fixture
def exporter(monkeypatch):
    return lambda *errors, fail=None: monkeypatch.setitem(export.FORMATS, "onnx", stand_in(*errors, fail=fail))


def test_the_tables_agree():
    assert [kind.value for kind in ExportDType] == list(DTYPES)


def test_a_folder_stands_when_all_dtypes_agree(exporter, tmp_path):
    exporter(1e-6, 1e-3)
    out = tmp_path / "new" / "out"
    found = export_model("tiny", out, dtypes=["float32", "float16", "float32"])
    assert [parity.dtype for parity in found] == ["float32", "float16"]
    assert {path.name for path in out.iterdir()} == {"float32.onnx", "float16.onnx"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(exporter, tmp_path):
    exporter(0.0)
    export_model("tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["float32.onnx"]


@pytest.mark.parametrize("error", [0.002, float("nan"), float("inf")])
def test_files_that_differ_are_not_kept(exporter, tmp_path, capsys, error):
    exporter(error)
    assert run(["export", "tiny", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("float32: image features ")
    assert said.err == (
        f"open-florence: nothing was written to {tmp_path / 'out'}, for in float32 the files are further from the "
        "model than is allowed\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the exporter fell over")])
def test_a_broken_export_leaves_nothing(exporter, tmp_path, error):
    exporter(fail=error)
    with pytest.raises(type(error)):
        export_model("tiny", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_taken_away(exporter, tmp_path):
    exporter(0.0)
    (tmp_path / ".out.exporting").mkdir()
    (tmp_path / ".out.exporting" / "old.onnx").touch()
    export_model("tiny", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*.onnx")] == ["float32.onnx"]


def test_a_folder_that_cannot_be_written(exporter, tmp_path):
    exporter(0.0)
    (tmp_path / "file").touch()
    with pytest.raises(OpenFlorenceError, match=r"file/out cannot be written: Not a directory$"):
        export_model("tiny", tmp_path / "file" / "out")
    exporter(fail=OSError(28, "No space left on device"))
    with pytest.raises(OpenFlorenceError, match=r"out cannot be written: No space left on device$"):
        export_model("tiny", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_holds_something_is_left_alone(exporter, tmp_path):
    exporter(0.0)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OpenFlorenceError, match="exists and is not an empty folder: choose another"):
        export_model("tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_mistakes_are_one_sentence(tmp_path, capsys):
    out = str(tmp_path / "out")
    with pytest.raises(OpenFlorenceError, match=f"exported as {' or '.join(FORMATS)}, not as 'coreml'"):
        export_model("tiny", out, "coreml")
    with pytest.raises(OpenFlorenceError, match="weights are float32, float16, int8, not 'int4'"):
        export_model("tiny", out, dtypes=["int4"])
    for words in (["--format", "coreml"], ["--dtype", "int4"]):
        assert run(["export", "tiny", out, *words]) == 2
        assert words[0] in capsys.readouterr().err
    assert run(["export", "nothing", out]) == 2
    assert "there is no model 'nothing'" in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path, capsys, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert run(["export", "tiny", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "open-florence: ONNX files need the extra `onnx`: pip install 'open-florence[onnx]'\n"
    )
    assert list(tmp_path.iterdir()) == []
