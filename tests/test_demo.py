"""The recipes of the demo and of the README's picture."""

import importlib.util
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import open_florence as of
from open_florence.data_engine.config import read_config
from open_florence.data_engine.employed import Employed
from open_florence.data_engine.round import STEPS
from open_florence.scenes import HELDOUT_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, make_scene
from open_florence.schema import Annotation, Region
from open_florence.specialists import load_specialist


def recipe(name):
    spec = importlib.util.spec_from_file_location(
        f"recipe_{name}", Path(__file__).parents[1] / "recipes" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(monkeypatch):
    module = recipe("demo")
    monkeypatch.setattr(module, "PHOTOS", ("astronaut",))
    monkeypatch.setattr(module, "COINS", module.COINS[:1])
    return module


picture = recipe("picture")


class Student:
    """Learns nothing and knows what `tiny` knows; the first time it is taught, a person presses Ctrl-C."""

    taught = 0

    def train(self, samples, weights, folder, checkpoint, start):
        Student.taught += 1
        if Student.taught == 1:
            raise KeyboardInterrupt
        checkpoint.mkdir()

    def specialist(self, checkpoint):
        return Employed(partial(load_specialist, "florence", tasks=["<OD>"]), "florence", isolate=False)


def test_the_whole_demo_is_stopped_goes_on_and_shows_again(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("open_florence.data_engine.recipe.FlorenceStudent", lambda config, tasks: Student())
    monkeypatch.setattr(Student, "taught", 0)
    with pytest.raises(SystemExit) as stopped:
        demo.main(tmp_path, 6, 1)
    assert stopped.value.code == 130
    said = capsys.readouterr().err
    assert "goes on from there" in said
    assert "annotate: everybody" in said
    demo.main(tmp_path, 6, 1)
    first = capsys.readouterr()
    assert "annotate: everybody" not in first.err
    assert all(line in first.err for line in (demo.EXPLAINED["train"], demo.EXPLAINED["audit"]))
    demo.main(tmp_path, 6, 1)
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, "")
    assert Student.taught == 2

    assert "round 1" in first.out
    assert "the round's labels" in first.out
    for path in ("report/index.html", "labels/review/round-001/index.html", "coco-round-001.json"):
        assert (tmp_path / path).exists()
    samples = list(of.read(tmp_path))
    names = ["astronaut.png", "coins-1.png", *(f"scene-0{number}.png" for number in range(1, 7))]
    assert [Path(sample.path).name for sample in samples] == names
    nobody_labelled = samples[names.index("scene-02.png")].annotations
    assert {"<OD>", "<CAPTION>"} <= {a.task for a in nobody_labelled if a.regions or a.text}
    audited = (tmp_path / "labels" / "audit" / "split-001.jsonl").read_text().splitlines()
    trained = json.loads((tmp_path / "labels" / "rounds" / "001" / "steps" / "train.json").read_bytes())
    assert len(audited) == len(trained["excluded"]) == 2


def test_the_truth_is_that_of_every_second_scene(demo, tmp_path):
    truth = demo.write_images(tmp_path, 4)
    assert [Path(sample.path).name for sample in truth] == ["scene-01.png", "scene-03.png"]
    assert {a.task for sample in truth for a in sample.annotations} <= set(demo.KNOWN)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("there", [True, False])
def test_the_demo_does_without_tesseract(demo, tmp_path, monkeypatch, capsys, there):
    monkeypatch.setattr(demo.shutil, "which", lambda name: "/usr/bin/tesseract" if there else None)
    config = read_config(demo.begin(tmp_path, 4, 7))
    assert ("tesseract" in [one.name for one in config.specialist]) == there
    assert ("not installed" in capsys.readouterr().out) == (not there)
    assert (config.train.steps, config.audit.images) == (7, 1)


def test_every_step_is_explained(demo):
    assert set(demo.EXPLAINED) == {"images", *STEPS} - {"migrate"}  # there is nothing to migrate in a first round


@pytest.mark.parametrize("name", ["demo", "picture"])
def test_the_seeds_are_their_own(name):
    first = recipe(name).FIRST_SEED
    assert all(first not in seeds for seeds in (TRAINING_SEEDS, VALIDATION_SEEDS, HELDOUT_SEEDS))


class Knowing:
    """Answers as the scenes themselves do, and asks nothing of what it is not asked."""

    def __init__(self, count):
        scenes = [make_scene(picture.FIRST_SEED + number) for number in range(count)]
        self.scenes = {scene.image.tobytes(): scene.sample.annotations for scene in scenes}

    def predict_batch(self, images, tasks):
        return self.predict_each([(image, tasks) for image in images])

    def predict_each(self, requests):
        return [[self._answer(self.scenes[image.tobytes()], ask) for ask in asks] for image, asks in requests]

    def _answer(self, known, ask):
        task, query = ask if isinstance(ask, tuple) else (ask, None)
        same = [a for a in known if a.task == task and (query is None or a.query == query or isinstance(query, Region))]
        return replace(same[0], query=query) if same else Annotation(task, query=query)


def test_the_picture_of_the_readme(tmp_path):
    scenes = picture.look(Knowing(5), 5)
    assert all({a.task for a in answers} >= {"<OD>", picture.GROUNDING, picture.WORDS} for _, answers in scenes)
    picture.sheet(scenes).save(tmp_path / "picture.png", optimize=True)
    with Image.open(tmp_path / "picture.png") as made:
        assert made.width == 4 * 460 - 20
    assert (tmp_path / "picture.png").stat().st_size < 400_000


def test_a_word_that_was_not_read_is_not_shown():
    quad = ((0.0, 0.0), (9.0, 0.0), (9.0, 4.0), (0.0, 4.0))
    words = tuple(Region("quad", (quad,), "STOP", label_score=score) for score in (0.9, 0.1))
    answer = picture.without_guesses(Annotation("<OCR_WITH_REGION>", regions=words))
    assert [region.label for region in answer.regions] == ["STOP", "text"]
