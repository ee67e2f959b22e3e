"""The command line: what is printed, what is written, and one sentence for every mistake."""

import dataclasses
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.main import get_command

from open_florence.cli import COMMANDS, app, run
from open_florence.cli.options import parse_tasks
from open_florence.data import read, write
from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.inference.pretrained import load_model, save_model
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region, Sample
from open_florence.tasks import TASKS
from open_florence.tokenizer import Tokenizer

SUBPROCESS = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


class Fake:
    """A predictor without a model: the same two answers about every image."""

    source = "fake"

    def predict(self, image: Image.Image, tasks: list[Any], *, generation: Any = None) -> list[Annotation]:
        return [self._answer(*task, generation) for task in tasks]

    def predict_batch(self, images: Sequence[Any], tasks: list[Any], *, generation: Any) -> list[list[Annotation]]:
        return [self.predict(image, tasks, generation=generation) for image in images]

    def _answer(self, task: str, query: Any, generation: Any) -> Annotation:
        if task == "<OD>":
            boxes = (Region.box(1, 2, 30.4, 20, label="[red] cat", score=0.75), Region.box(0, 0, 9, 9, label="猫"))
            return Annotation(task, regions=boxes, source=self.source, complete=generation is None)
        query = Region.box(*query) if isinstance(query, tuple) else query
        return Annotation(task, f"answer to {task}", query=query, source=self.source, score=0.5)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded."""
    for module in ("annotate", "predict"):
        monkeypatch.setattr(sys.modules[f"open_florence.cli.{module}"], "load_predictor", lambda *_: Fake())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two images."""
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny architecture with random weights, of few positions so that its endless answers are short."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a red square and two green circles"] * 20, 1500)
    preset = PRESETS["tiny"]
    text = dataclasses.replace(preset.text, vocab_size=len(tokenizer), max_positions=96)
    folder = tmp_path_factory.mktemp("checkpoint") / "random"
    processor = Processor(tokenizer, image_size=64)
    save_model(Florence(dataclasses.replace(preset, text=text)), processor, folder)
    return folder


@pytest.mark.parametrize(
    ("values", "query", "asked"),
    [
        (["OD"], None, [("<OD>", None)]),
        (["od,<Caption>", "OCR"], None, [("<OD>", None), ("<CAPTION>", None), ("<OCR>", None)]),
        ([" OD , caption,"], None, [("<OD>", None), ("<CAPTION>", None)]),
        (["VQA:what is it?"], None, [("<VQA>", "what is it?")]),
        (["VQA"], "what, then?", [("<VQA>", "what, then?")]),
        (["OD", "VQA"], "how many", [("<OD>", None), ("<VQA>", "how many")]),
        (["VQA:a", "VQA"], "b", [("<VQA>", "a"), ("<VQA>", "b")]),
        (
            ["OD,CAPTION_TO_PHRASE_GROUNDING:a red car, a dog,CAPTION"],
            None,
            [("<OD>", None), ("<CAPTION_TO_PHRASE_GROUNDING>", "a red car, a dog"), ("<CAPTION>", None)],
        ),
        (["VQA:does it say STOP, GO or OCR?, OCR"], None, [("<VQA>", "does it say STOP, GO or OCR?"), ("<OCR>", None)]),
        (["VQA:time is 10:30, od"], None, [("<VQA>", "time is 10:30, od")]),
        (["REGION_TO_OCR:1,2, 3 4.5,OD"], None, [("<REGION_TO_OCR>", (1.0, 2.0, 3.0, 4.5)), ("<OD>", None)]),
        (["region-to-ocr"], "1,2,3,4", [("<REGION_TO_OCR>", (1.0, 2.0, 3.0, 4.0))]),
        (["REGION_TO_OCR:<loc_1><loc_2><loc_3><loc_4>"], None, [("<REGION_TO_OCR>", "<loc_1><loc_2><loc_3><loc_4>")]),
        (["What is this, a cat?"], None, [("What is this, a cat?", None)]),
        (["Answer: what is this?"], None, [("Answer: what is this?", None)]),
    ],
)
def test_tasks_are_parsed(values: list[str], query: str | None, asked: list[tuple[str, Any]]) -> None:
    assert parse_tasks(values, query) == asked


@pytest.mark.parametrize(
    ("values", "query", "said"),
    [
        (["ODD"], None, "there is no task 'ODD'; did you mean <OD>?"),
        (["OD,CAPTON"], None, "there is no task 'CAPTON'; did you mean <CAPTION>?"),
        (["VQA:is it,CAPTOIN"], None, "there is no task 'CAPTOIN'; did you mean <CAPTION>?"),
        (["VQQ:what is it?"], None, "there is no task 'VQQ'; did you mean <VQA>?"),
        (["OD:cat"], None, "<OD> takes no query, but was given 'cat'"),
        (["OD"], "cat", "<OD> takes no query, but was given 'cat'"),
        (["VQA"], None, '<VQA> needs words as its query, written as "VQA:red car"'),
        (["REGION_TO_OCR"], None, '(x1,y1,x2,y2 in pixels) as its query, written as "REGION_TO_OCR:10,20,200,150"'),
        (["REGION_TO_OCR:1,2,3"], None, "x1,y1,x2,y2 in pixels, not '1,2,3'"),
        (["REGION_TO_OCR:here"], None, "x1,y1,x2,y2 in pixels, not 'here'"),
        ([""], None, "no task is given"),
    ],
)
def test_task_mistakes(values: list[str], query: str | None, said: str) -> None:
    with pytest.raises(OpenFlorenceError) as caught:
        parse_tasks(values, query)
    assert said in str(caught.value)


@pytest.mark.usefixtures("fake")
def test_predict_prints_a_table(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(photos / "a.png"), "-t", "OD", "-t", "REGION_TO_OCR:1,2,3,4", "--published"]) == 0
    out, err = capsys.readouterr()
    for words in (
        "a.png",
        "[red] cat",
        "1,2 30,20",
        "0.75",
        "猫",
        "incomplete",
        "<REGION_TO_OCR> 1,2 3,4",
        "answer to",
    ):
        assert words in out
    assert err == ""


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("command", ["predict", "annotate"])
def test_constrained_reaches_the_predictor(
    command: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(Fake, "_answer", lambda _, task, __, settings: given.append(settings) or Annotation(task))
    out = ["--out", str(tmp_path / "out")] if command == "annotate" else []
    assert run([command, str(photos), "--constrained", "--max-new-tokens", "9", *out]) == 0
    assert {(settings.constrained, settings.max_new_tokens) for settings in given} == {(True, 9)}


@pytest.mark.usefixtures("fake")
def test_predict_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(photos), "--task", "od", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert run(["predict", str(photos), "--task", "od", "--format", "jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == listed
    assert [sample["path"] for sample in listed] == [str(photos / "a.png"), str(photos / "b.png")]
    assert listed[0]["annotations"][0]["regions"][1]["label"] == "猫"


@pytest.mark.usefixtures("fake")
def test_predict_draws_beside_the_images_without_touching_them(photos: Path) -> None:
    before = (photos / "a.png").read_bytes()
    assert run(["predict", str(photos / "a.png"), "--draw", str(photos)]) == 0
    assert (photos / "a.png").read_bytes() == before
    assert sorted(path.name for path in photos.iterdir()) == ["a.png", "a.png.annotated.png", "b.png"]


@pytest.mark.usefixtures("fake")
def test_predict_answers_the_others_when_an_image_is_broken(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "a.png").write_bytes(b"broken")
    assert run(["predict", str(photos), "-f", "jsonl"]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == f"open-florence: {photos / 'a.png'} is not an image\n"


@pytest.mark.usefixtures("fake")
def test_annotate_and_report(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "c.png").write_bytes(b"broken")
    command = ["annotate", str(photos), "--tasks", "OD,CAPTION", "-o", str(tmp_path / "out")]
    assert run([*command, "--report"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 images annotated, ")
    assert "1 could not be annotated: the reasons are in " in out
    assert (tmp_path / "out" / "report" / "index.html").is_file()
    assert [len(sample.annotations) for sample in read(tmp_path / "out")] == [2, 2]
    assert run(command) == 0
    assert capsys.readouterr().out.startswith("0 images annotated")
    assert run([*command, "--tasks", "OCR"]) == 2
    assert "was annotated with another tasks" in capsys.readouterr().err
    assert run([*command, "--tasks", "OCR", "--restart"]) == 0
    assert run(["report", str(tmp_path / "out")]) == 0
    assert "the report is " in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_ctrl_c_says_how_to_go_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Fake, images: Sequence[Any], *_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fake, "predict_batch", interrupted)
    assert run(["annotate", str(photos), "-o", str(tmp_path / "out")]) == 130
    assert "stopped with 0 of 2 images annotated" in capsys.readouterr().err
    assert run(["predict", str(photos)]) == 0


@pytest.mark.usefixtures("fake")
def test_a_run_in_which_nothing_works_is_a_failure(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "predict_batch", lambda *_, **__: 1 / 0)
    assert run(["annotate", str(photos), "-o", str(tmp_path / "out")]) == 2
    assert (
        "none of the 2 images could be annotated, the first because the model failed: ZeroDivisionError"
        in capsys.readouterr().err
    )


def mistakes(folder: Path) -> list[tuple[list[str], str]]:
    """Command lines and what is said about them."""
    image, nowhere, empty = str(folder / "photos" / "a.png"), str(folder / "nowhere"), str(folder / "empty")
    notes = folder / "notes.txt"
    notes.write_text("words")
    (folder / "empty").mkdir()
    return [
        (["predict", image, "--task", "ODD"], "there is no task 'ODD'; did you mean <OD>?"),
        (["predict", image, "--task", "VQA"], '<VQA> needs words as its query, written as "VQA:red car"'),
        (["predict", nowhere], f"there is no image or folder {nowhere}"),
        (["predict", empty], f"there is no image in {empty}"),
        (["predict", image, "-m", str(folder)], f"there is no config.json in {folder}"),
        (["predict", image, "-m", str(notes)], f"{notes} is a file"),
        (["predict", image, "-m", "no-such-model"], "there is no model 'no-such-model'"),
        (["predict", image, "-m", "microsoft/Florence-2-no-such"], "microsoft/Florence-2-no-such "),
        (["predict", image, "-m", empty], empty),
        (["predict", image, "--device", "abacus"], "there is no device abacus here"),
        (["predict", image, "--dtype", "int4"], "Invalid value for '--dtype'"),
        (["predict", image, "--dtype", "int8"], "not int8"),
        (["predict", image, "--backend", "openvino", "--device", "cuda"], "runs on the CPU, not on cuda"),
        (["predict", image, "--format", "xml"], "Invalid value for '--format' / '-f'"),
        (["predict", image, "--draw", str(notes)], f"the folder {notes} cannot be made: "),
        (["predict"], "Missing argument"),
        (["predict", image, "--tsk", "OD"], "No such option: --tsk"),
        (["annotate", empty, "--out", nowhere], f"there is no image in {empty}"),
        (["annotate", empty], "Missing option '--out'"),
        (["annotate", str(folder / "photos"), "-o", nowhere, "-b", "0"], "Invalid value for '--batch-size'"),
        (["report", empty], f"there is no annotations.jsonl in {empty}"),
        (["convert", "no-such-model", nowhere], "there is no model 'no-such-model'"),
        (["convert", "tiny", str(folder / "photos")], f"{folder / 'photos'} exists and is not an empty folder"),
        (["evaluate", "--data", nowhere], f"there is no data '{nowhere}'"),
        (["evaluate", "--tasks", "ODD"], "there is no task 'ODD'"),
        (["evaluate", "--out", "table.txt"], "as .md or .json, not as 'table.txt'"),
        (["scenes", nowhere, "--size", "8"], "a scene is at least"),
        (["scenes", str(notes)], "cannot be written: "),
        (["scenes", nowhere, "--sprites", empty], "sprites"),
        (["anotate"], "No such command 'anotate'"),
    ]


def test_mistakes_are_one_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments, said in mistakes(tmp_path):
        assert run(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert err.startswith("open-florence: "), arguments
        assert err.count("\n") == 1, (arguments, err)
        assert said in err, arguments


def test_tasks_lists_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tasks"]) == 0
    out = capsys.readouterr().out
    assert all(task in out for task in TASKS)
    for words in ("What does the image describe?", "quads with words", "polygons", "the phrases of the query"):
        assert words in out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert run(arguments) == 0
        out = capsys.readouterr().out
        assert all(command.__name__ in out for command in COMMANDS)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("open-florence 0.")
    for command in COMMANDS:
        assert run([command.__name__, "--help"]) == 0


def test_scenes_are_written_and_can_be_moved(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    assert run(["scenes", str(tmp_path / "out"), "--count", "3", "--seed", "5", "--size", "96"]) == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    samples = list(read(tmp_path / "moved"))
    assert len(samples) == 3
    for sample in samples:
        assert open_image(sample.path).size == sample.size == (96.0, 96.0)
        assert {annotation.source for annotation in sample.annotations} != {""}
    assert run(["scenes", str(tmp_path / "moved")]) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_convert_there_and_back_changes_no_bit(checkpoint: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    model, processor = load_model(checkpoint)
    save_model(model, processor, tmp_path / "a", dtype=dtype)
    assert run(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--layout", "microsoft"]) == 0
    assert run(["convert", str(tmp_path / "b"), str(tmp_path / "c")]) == 0
    first, there, back = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert first.keys() == back.keys() != there.keys()
    assert all(torch.equal(first[name], back[name]) and back[name].dtype == first[name].dtype for name in first)


def test_evaluate_prints_and_writes_the_table(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    command = ["evaluate", "-m", str(checkpoint), "--limit", "2", "--tasks", "REGION_TO_CATEGORY"]
    assert run([*command, "--out", str(tmp_path / "table.md")]) == 0
    assert "metric" in capsys.readouterr().out
    assert "| metric |" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_evaluate_names_the_images_it_left_out(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(photos / "gone.png"), *map(str, sorted(photos.glob("*.png"))[:1])]
    samples = [Sample(path, path, (50.0, 40.0), (Annotation("<CAPTION>", "a cat"),)) for path in paths]
    write(photos / "annotations.jsonl", samples)
    assert run(["evaluate", "-m", str(checkpoint), "--data", str(photos)]) == 0
    printed = capsys.readouterr()
    table = " ".join(printed.out.split())  # its title may be broken into lines anywhere
    assert "1 images" in table
    assert "1 records left out" in table
    assert "gone.png is left out: there is no file" in printed.err


def test_from_end_to_end(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """The installed command in a process of its own: annotate, interrupted by SIGINT, resumed, reported."""
    for number in range(200):  # enough for the interrupt to come in the middle on a fast or busy machine too
        Image.new("RGB", (50, 40), (number, 0, 0)).save(photos / f"{number}.png")
    (photos / "7.png").write_bytes(b"broken")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "open_florence", "annotate", str(photos), "-m", str(checkpoint)]
    command += ["--tasks", "OD,OPEN_VOCABULARY_DETECTION:a cat, a dog", "--out", str(out), "--batch-size", "2"]
    # A suite that runs in the background ignores SIGINT, and its children would, too.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, env=SUBPROCESS, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "annotations.jsonl").exists() and (out / "annotations.jsonl").stat().st_size:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert 0 < len(list(read(out))) < 200
    done = subprocess.run([*command, "--report"], env=SUBPROCESS, capture_output=True, text=True, check=True)
    assert "were already" in done.stdout
    samples = list(read(out))
    assert sorted(sample.path for sample in samples) == sorted(
        str(path) for path in photos.iterdir() if path.name != "7.png"
    )
    assert [a.query for a in samples[0].annotations] == [None, "a cat, a dog"]
    assert samples[0].annotations[0].source == "random"
    assert (out / "report" / "index.html").stat().st_size > 10_000


def test_a_reader_that_leaves_early_is_no_error(photos: Path) -> None:
    command = f"{sys.executable} -m open_florence tasks | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=SUBPROCESS, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_the_commands_of_the_documentation_can_be_given() -> None:
    page = Path(__file__).parents[1] / "docs" / "annotate.md"
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("open-florence ")]
    assert len(lines) == 2
    for line in lines:
        _, _, folder, *options = shlex.split(line)
        assert folder == "photos"
        assert parse_tasks([value for name, value in pairwise(options) if name == "--tasks"])
        known = {option for parameter in get_command(app).commands["annotate"].params for option in parameter.opts}
        assert {option for option in options if option.startswith("--")} <= known
