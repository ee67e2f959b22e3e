"""Evaluation on data from disk and from memory, real blood cells among them."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from open_florence.data import read, write
from open_florence.errors import OpenFlorenceError
from open_florence.evaluation import METRICS, Answers, evaluate
from open_florence.evaluation.metrics import exact
from open_florence.inference.request import GenerationConfig
from open_florence.schema import Annotation, Region, Sample
from open_florence.tasks import TASKS, Task, TextGrammar


@pytest.fixture
def folder(tmp_path):
    """Four small images with boxes, a caption twice, a question and a broken record."""
    samples = []
    for index in range(4):
        path = tmp_path / f"{index}.png"
        Image.fromarray(np.full((40, 50, 3), 40 * index, np.uint8)).save(path)
        boxes = [Region.box(5, 5, 20, 20, label="cat"), Region.box(25, 5, 45, 30, label="dog")][: 1 + index % 2]
        annotations = (
            Annotation("<OD>", regions=tuple(boxes), source="human"),
            Annotation("<CAPTION>", "a cat", source="human"),
            Annotation("<CAPTION>", "one more cat", source="human"),
            Annotation("<VQA>", "grey", query="What colour is it?", source="human"),
            Annotation("<MY_TASK>", "something"),
        )
        samples.append(Sample(str(index), path.name, (50.0, 40.0), annotations))
    write(tmp_path / "annotations.jsonl", samples)
    with (tmp_path / "annotations.jsonl").open("a") as file:
        file.write('{"id": 3}\n')
    return tmp_path


def test_a_folder_of_our_own(folder, oracle):
    report = evaluate(oracle(folder), folder, progress=False)
    assert report.images == 4
    assert len(report.problems) == 1
    assert report.metrics["od_ap50"] == report.metrics["od_ap50/cat"] == report.metrics["od_ap75/dog"] == 1.0
    assert report.metrics["caption"] == 1.0  # the first of several captions is the truth
    assert report.metrics["vqa"] == 1.0
    assert [(row.label, row.count) for row in report.classes] == [("all", 6), ("cat", 4), ("dog", 2)]
    screen = io.StringIO()
    Console(file=screen, width=200).print(report)
    assert "Detection per class" in screen.getvalue()
    assert "1 records left out" in screen.getvalue()


def test_samples_in_memory_and_a_choice_of_tasks(folder, oracle):
    samples = list(read(folder, on_error=lambda problem: None))
    report = evaluate(oracle(samples), samples, limit=2, progress=False, tasks=["vqa"])
    assert set(report.metrics) == {"vqa"}
    assert report.images == 2
    assert report.data == "samples"


def test_labels_of_no_class_are_reported(folder, oracle):
    def rename(annotation):
        regions = tuple(replace(r, label="cow" if r.label == "dog" else r.label) for r in annotation.regions)
        return replace(annotation, regions=regions)

    report = evaluate(oracle(folder, rename), folder, progress=False, tasks=["od"])
    assert report.metrics["od_foreign_labels"] == pytest.approx(2 / 6)
    assert report.metrics["od_ap50/dog"] == 0.0
    assert report.metrics["od_ap50"] == 0.5


def test_a_task_of_ones_own_is_a_row(folder, oracle, monkeypatch):
    monkeypatch.setitem(TASKS, "<MY_TASK>", Task("<MY_TASK>", "What?", TextGrammar("<MY_TASK>")))
    monkeypatch.setitem(METRICS, "<MY_TASK>", exact("mine", "my own task"))
    assert evaluate(oracle(folder), folder, progress=False).metrics["mine"] == 1.0


def test_nothing_to_ask_is_said(folder, oracle):
    with pytest.raises(OpenFlorenceError, match="there is nothing to evaluate"):
        evaluate(oracle(folder), folder, progress=False, tasks=["ocr"])
    with pytest.raises(OpenFlorenceError, match="did you mean <OD>"):
        evaluate(oracle(folder), folder, progress=False, tasks=["odd"])
    with pytest.raises(OpenFlorenceError, match="no file or folder"):
        evaluate(oracle([]), folder / "nowhere", progress=False)


def test_generation_settings_reach_the_predictor(folder):
    seen = []

    class Listening:
        def predict_each(self, requests, *, generation=None):
            seen.append(generation)
            return [[Annotation(task) for task, _ in asked] for _, asked in requests]

    beams = GenerationConfig(num_beams=3)
    evaluate(Listening(), folder, progress=False, generation=beams)
    assert set(seen) == {beams}


def test_a_value_that_does_not_exist_is_no_metric_and_no_nan_in_json(folder, oracle):
    samples = [
        replace(sample, annotations=(Annotation("<OD>"),)) for sample in read(folder, on_error=lambda problem: None)
    ]
    report = evaluate(oracle(samples), samples, progress=False)
    assert report.metrics == {}
    assert "NaN" not in json.dumps(report.to_json())
    assert all(math.isnan(row.value) for row in report.rows)
    assert "| - |" in report.markdown()


def test_an_interval_is_over_images_not_answers():
    answers = Answers()
    for index in range(12):
        for question in ("a", "b", "c"):
            truth = Annotation("<VQA>", "yes", query=question)
            answers.add(truth, replace(truth, text="yes" if index % 2 else "no"), index, (10.0, 10.0))
    (row,) = METRICS["<VQA>"](answers)
    assert row.value == 0.5
    assert row.count == 36
    low, high = row.interval
    assert high - low > 0.35  # twelve coins, not thirty-six


def test_blood_cells(data_folder, oracle):
    data = data_folder / "bccd"
    perfect = evaluate(oracle(data, limit=40), data, limit=40, progress=False)
    assert {row.label for row in perfect.classes} == {"all", "RBC", "WBC", "Platelets"}
    assert perfect.classes[1].label == "RBC"  # the most frequent first
    assert perfect.metrics["od_ap"] == 1.0

    def noisy(annotation):
        """Every third box gone, the others moved 4 pixels; scores that know nothing."""
        regions = tuple(
            replace(region, parts=(tuple((x + 4, y) for x, y in region.parts[0]),), score=(index * 7 % 5 + 1) / 6)
            for index, region in enumerate(annotation.regions)
            if index % 3
        )
        return replace(annotation, regions=regions)

    report = evaluate(oracle(data, noisy, limit=40), data, limit=40, progress=False)
    assert 0.4 < report.metrics["od_ap50"] < 0.75
    low, high = report.rows[0].interval
    assert low < report.metrics["od_ap50"] < high
    assert report.metrics["od_ap90"] < report.metrics["od_ap75"] <= report.metrics["od_ap50"]
