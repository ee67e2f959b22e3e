"""The demo's recipe: on a random model, and on one that knows the answers."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import open_florence as of
from open_florence.inference.generate import GenerationConfig
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.report import write_report
from open_florence.scenes import make_scene
from open_florence.tasks import find_task
from open_florence.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    path = Path(__file__).parents[2] / "recipes" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo_recipe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Knowing:
    """Answers every question about the demo's scenes as the scenes themselves do, the unforeseen with nothing."""

    source = "knowing"

    def __init__(self, first_seed: int) -> None:
        scenes = [make_scene(first_seed + number) for number in range(4)]
        self.scenes = {scene.image.tobytes(): scene for scene in scenes}

    def predict_batch(self, images: Sequence[Image.Image], tasks: list[Any], **_: Any) -> list[list[of.Annotation]]:
        return self.predict_each([(image, tasks) for image in images])

    def predict_each(self, requests: Sequence[tuple[Image.Image, list[Any]]], **_: Any) -> list[list[of.Annotation]]:
        return [
            [self._answer(image, *(ask if isinstance(ask, tuple) else (ask, None))) for ask in tasks]
            for image, tasks in requests
        ]

    def _answer(self, image: Image.Image, task: str, query: Any) -> of.Annotation:
        scene = self.scenes.get(np.asarray(image).tobytes())
        known = scene.sample.annotations if scene else ()
        same = [a for a in known if a.task == task]
        fits = [a for a in same if query is None or a.query == query or task.startswith("<REGION")]
        return fits[0] if fits else of.Annotation(task, query=query)


def test_a_random_model_goes_through_the_whole_demo(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "GENERATION", GenerationConfig(max_new_tokens=12))
    torch.manual_seed(0)
    words = ["What does the image describe? Locate the objects with category name in the image."]
    tokenizer = Tokenizer.train(words, 300)
    model = Florence(PRESETS["tiny"].with_vocabulary(len(tokenizer)))
    of.save_model(model, Processor(tokenizer, image_size=160), tmp_path / "model")
    demo.main(tmp_path / "demo", str(tmp_path / "model"), 2, tmp_path / "picture.png")
    samples = list(of.read(tmp_path / "demo" / "labels"))
    names = [Path(sample.path).name for sample in samples]
    assert names == ["coins-1.png", "coins-2.png", "coins-3.png", "scene-01.png", "scene-02.png"]
    assert [answer.task for answer in samples[0].annotations] == demo.PHOTO_QUESTIONS
    assert (tmp_path / "demo" / "labels" / "failed.jsonl").read_bytes() == b""
    assert (tmp_path / "demo" / "labels" / "report" / "index.html").is_file()
    printed = capsys.readouterr().out
    assert "index.html" in printed
    assert len(printed.splitlines()) <= 10


def test_what_follows_from_the_answers_is_asked(demo: ModuleType, tmp_path: Path) -> None:
    demo.write_images(tmp_path / "images", 4)
    annotator = demo.AskingOn(Knowing(demo.FIRST_SEED))
    demo.annotate(tmp_path / "images", demo.QUESTIONS, tmp_path / "labels", annotator)
    samples = list(of.read(tmp_path / "labels"))
    tasks = {answer.task for sample in samples for answer in sample.annotations}
    assert tasks >= {
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "<REGION_TO_DESCRIPTION>",
        "<REGION_TO_SEGMENTATION>",
        "<REFERRING_EXPRESSION_SEGMENTATION>",
    }
    assert all(find_task(task) for task in tasks)
    demo.write_picture(tmp_path / "labels", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size < 400_000
    demo.print_summary(samples, 1.0, write_report(tmp_path / "labels"))


def test_a_word_that_was_not_read_is_not_shown(demo: ModuleType) -> None:
    quad = ((0.0, 0.0), (9.0, 0.0), (9.0, 4.0), (0.0, 4.0))
    words = tuple(of.Region("quad", (quad,), "STOP", label_score=score) for score in (0.9, 0.1))
    answer = of.Annotation("<OCR_WITH_REGION>", regions=words)
    assert [region.label for region in demo.without_guesses(answer).regions] == ["STOP", "text"]
    assert demo.further_questions([answer]) == []
    assert demo.further_questions([of.Annotation("<OCR_WITH_REGION>")]) == ["<MORE_DETAILED_CAPTION>"]


def test_the_seeds_of_the_demo_are_its_own(demo: ModuleType) -> None:
    from open_florence.scenes import HELDOUT_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS

    assert all(demo.FIRST_SEED not in seeds for seeds in (TRAINING_SEEDS, VALIDATION_SEEDS, HELDOUT_SEEDS))
