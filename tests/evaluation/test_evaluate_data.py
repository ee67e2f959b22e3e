"""Evaluation on data from disk and from memory, real blood cells among them."""

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from open_florence.data import read, write
from open_florence.errors import OpenFlorenceError
from open_florence.evaluation import METRICS, Answers, cider, evaluate
from open_florence.evaluation.metrics import exact
from open_florence.generation import GenerationConfig
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
    assert report.metrics["caption"] == 1.0
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


def test_words_may_have_several_true_answers(folder, oracle):
    def second(annotation):
        return replace(annotation, text="One more cat.") if annotation.task == "<CAPTION>" else annotation

    report = evaluate(oracle(folder, second), folder, progress=False, tasks=["caption"])
    assert report.metrics["caption"] == 1.0
    assert report.rows[0].note.startswith("2.0 references")
    assert report.rows[0].count == 4


def captioned(folder, texts):
    """Samples with the same image and five captions each, as COCO has them."""
    image = str(folder / "0.png")
    return [
        Sample(str(i), image, (50.0, 40.0), tuple(Annotation("<CAPTION>", text) for text in own))
        for i, own in enumerate(texts)
    ]


def test_captions_are_judged_by_cider_against_all_references(folder):
    texts = [["a red star", "the star is red"], ["two dogs run", "dogs on grass"], ["a bowl of fruit", "some fruit"]]
    said = iter(["the star is red", "dogs", "a bowl"])

    class Saying:
        def predict_each(self, requests, *, generation=None):
            return [[Annotation("<CAPTION>", next(said)) for _ in asked] for _, asked in requests]

    report = evaluate(Saying(), captioned(folder, texts), progress=False)
    assert report.metrics["caption_cider"] == cider(texts, ["the star is red", "dogs", "a bowl"]).value
    assert report.metrics["caption"] == pytest.approx(1 / 3)
    assert report.rows[0].interval is not None


def test_ten_people_answer_a_question(folder):
    people = ["grey"] * 2 + ["gray"] * 8
    sample = Sample(
        "0", str(folder / "0.png"), (50.0, 40.0), tuple(Annotation("<VQA>", p, query="Why?") for p in people)
    )

    class Grey:
        def predict_each(self, requests, *, generation=None):
            assert [asked for _, asked in requests] == [[("<VQA>", "Why?")]]  # asked once
            return [[Annotation("<VQA>", "Grey.")]]

    assert evaluate(Grey(), [sample], progress=False).metrics["vqa"] == pytest.approx(0.6)


def test_classes_are_ranked_where_there_are_many(folder):
    labels = "<and>".join("abcdefg")
    few = "<and>".join("abc")
    image = str(folder / "0.png")
    samples = [
        Sample(str(i), image, (50.0, 40.0), (Annotation("<CLASSIFICATION>", truth, query=query),))
        for i, (truth, query) in enumerate([("b", labels), ("g", labels), ("a", few), ("b", few)])
    ]

    class Alphabetical:
        source = "alphabet"

        def predict_each(self, requests, *, generation=None):
            assert all(query == few for _, asked in requests for _, query in asked)
            return [[Annotation("<CLASSIFICATION>", "a") for _ in asked] for _, asked in requests]

        def classify(self, image, labels):
            return {label: 1 / (place + 1) for place, label in enumerate(labels.split("<and>"))}

    report = evaluate(Alphabetical(), samples, progress=False)
    assert report.metrics == {"classification": 0.25, "classification_top5": 0.5}
    assert {row.key: row.count for row in report.rows} == {"classification": 4, "classification_top5": 2}
    assert report.model == "alphabet"


def test_a_referring_expression_is_answered_by_its_best_box(folder):
    words = "the cat on the left"
    target = Region.box(5, 5, 20, 20, label=words)
    sample = Sample(
        "0",
        str(folder / "0.png"),
        (50.0, 40.0),
        (Annotation("<CAPTION_TO_PHRASE_GROUNDING>", words, (replace(target, span=(0, len(words))),), query=words),),
    )

    class Pointing:
        """Finds the place, and calls it by some of the words."""

        def predict_each(self, requests, *, generation=None):
            found = replace(target, label="the cat", span=(0, 7))
            return [[Annotation("<CAPTION_TO_PHRASE_GROUNDING>", words, (found,), query=words)] for _ in requests]

    metrics = evaluate(Pointing(), [sample], progress=False).metrics
    assert metrics == {"grounding": 1.0, "grounding_r1": 1.0}


def test_what_cannot_be_asked_is_left_out_and_named(folder, oracle):
    samples = list(read(folder, on_error=lambda problem: None))
    (folder / "1.png").write_bytes(b"not an image")
    gone = replace(samples[2], path=str(folder / "gone.png"))
    data = [samples[0], samples[1], gone, samples[3]]
    report = evaluate(oracle(data), data, progress=False, batch_size=4, tasks=["od"])
    assert report.images == 2
    assert report.metrics["od_ap50"] == 1.0
    assert [Path(problem.split(" is left out: ")[0]).name for problem in report.problems] == ["1.png", "gone.png"]
    assert "is not an image" in report.problems[0]
    with pytest.raises(OpenFlorenceError, match=r"1 record was left out, the first because: .*gone\.png"):
        evaluate(oracle([gone]), [gone], progress=False)


def test_places_that_are_ignored_are_not_judged(folder, oracle):
    crowd = Region.box(25, 5, 45, 35, label="cat")
    samples = [
        replace(sample, annotations=(*sample.annotations[:1], Annotation("<IGNORED>", regions=(crowd,), query="<OD>")))
        for sample in list(read(folder, on_error=lambda problem: None))[::2]  # those with a cat alone
    ]

    def invent(annotation):
        return replace(annotation, regions=(Region.box(26, 6, 40, 30, label="cat", score=1.0), *annotation.regions))

    report = evaluate(oracle(samples, invent), samples, progress=False)
    assert report.metrics["od_ap50"] == 1.0
    assert set(report.metrics) == {key for key in report.metrics if key.startswith("od_")}


def test_data_are_read_while_they_are_asked_about(folder, oracle, monkeypatch):
    """A long file is never held as a whole: when the first batch is asked no more than that has been read."""
    opened = []
    samples = list(read(folder, on_error=lambda problem: None))

    def slowly(path, on_error):
        for sample in samples:
            opened.append(sample)
            yield sample

    monkeypatch.setattr(sys.modules["open_florence.evaluation.evaluate"], "read", slowly)
    seen = []

    class Watching:
        def predict_each(self, requests, *, generation=None):
            seen.append(len(opened))
            return [[Annotation(task) for task, _ in asked] for _, asked in requests]

    evaluate(Watching(), folder, progress=False, batch_size=1)
    assert seen == [1, 2, 3, 4]


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
