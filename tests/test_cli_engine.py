"""`open-florence engine`: what it prints, its exit codes, and that it goes on where it was."""

import json
import sys

import pytest

from open_florence import cli
from open_florence.cli.engine import Progress
from open_florence.data_engine import recipe as recipes
from open_florence.data_engine.employed import Employed
from open_florence.schema import Annotation, Region


class Eye:
    name, version, tasks, needs = "eye", "1", ("<OD>",), ()
    interrupts = False

    def annotate(self, samples):
        if self.interrupts:
            raise KeyboardInterrupt
        region = Region.box(1, 1, 9, 9, label="cat", score=0.9)
        return [[Annotation("<OD>", regions=(region,))] for _ in samples]


class Student:
    def train(self, samples, weights, folder, checkpoint, start):
        checkpoint.mkdir()

    def specialist(self, checkpoint):
        return Employed(Eye, "eye", isolate=False)


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(recipes, "load_specialist", lambda name, **options: Eye())
    monkeypatch.setattr(recipes, "options_of", lambda name: ())
    monkeypatch.setattr(recipes, "FlorenceStudent", lambda config, tasks: Student())
    return lambda *arguments: cli.run(["engine", *map(str, arguments)])


@pytest.fixture
def labels(tmp_path, run):
    import numpy as np
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    assert run("init", tmp_path / "labels", "--images", tmp_path / "photos") == 0
    file = tmp_path / "labels" / "engine.toml"
    file.write_text(file.read_text().replace('name = "florence"', 'name = "florence"\nisolate = false'))
    return tmp_path / "labels"


def test_from_beginning_to_end(run, labels, capsys, tmp_path):
    assert run("run", labels) == 0
    assert "round 1 is promoted:" in capsys.readouterr().out
    assert run("status", labels) == 0
    assert "round 1: promoted, 3 images" in capsys.readouterr().out
    assert run("status", labels, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == {"ok": 3}
    assert run("review", labels, "--count", 2) == 0
    assert "2 claims to judge are in" in capsys.readouterr().out
    (tmp_path / "verdicts.jsonl").write_text("")
    assert run("review", labels, "--verdicts", tmp_path / "verdicts.jsonl") == 0
    assert "0 verdicts taken in" in capsys.readouterr().out
    assert run("review", labels, "--verdicts", tmp_path / "verdicts.jsonl") == 0
    assert "taken in already" in capsys.readouterr().out
    assert run("review", labels, "--label-studio", tmp_path / "tasks.json") == 0
    assert "3 claims are in" in capsys.readouterr().out
    assert run("export", labels, "--format", "coco", "--out", tmp_path / "out.json") == 0
    assert "the labels of round 1 are in" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out.json").read_bytes())["annotations"]) == 3


def test_a_round_in_pieces(run, labels, capsys):
    assert run("run", labels, "--until-step", "filter") == 0
    assert "the round stopped after the step filter" in capsys.readouterr().out
    assert run("run", labels, "--rounds", 2) == 0
    assert "round 2 is promoted" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(run, labels, capsys, monkeypatch):
    monkeypatch.setattr(Eye, "interrupts", True)
    assert run("run", labels) == 130
    assert capsys.readouterr().err.endswith("open-florence: stopped; the same command goes on from there\n")
    monkeypatch.setattr(Eye, "interrupts", False)
    assert run("run", labels) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nowhere"), "nowhere holds no engine.toml: begin with open-florence engine init nowhere"),
        (("status", "nowhere"), "there is no engine in nowhere"),
        (("export", "nowhere", "--format", "coco"), "no round of nowhere was promoted yet"),
        (("run", "nowhere", "--rounds", "0"), "Invalid value for '--rounds'"),
    ],
)
def test_a_mistake_is_one_sentence(run, capsys, arguments, sentence):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(sys.modules[Progress.__module__], "LOG_EVERY", 0.0)
    with Progress() as progress:
        progress("filter", 3, 10)
        progress.say("a [b] sentence")
    assert capsys.readouterr().err == "filter: 3 of 10\na [b] sentence\n"
