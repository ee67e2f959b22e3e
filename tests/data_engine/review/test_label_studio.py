"""The review in Label Studio: claims out with their reasons, and what a person made of them back as verdicts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.review.item import ReviewItem
from open_florence.data_engine.review.label_studio import read_label_studio_review, write_label_studio_review
from open_florence.data_engine.review.queue import review_queue
from open_florence.data_engine.review.verdicts import Verdict, human_annotations
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

CAT, DOG = Region.box(10, 10, 60, 60, label="cat", score=0.9), Region.box(100, 20, 150, 70, label="dog", score=0.4)
WORD = Region("quad", (((10.0, 80.0), (50.0, 80.0), (50.0, 95.0), (10.0, 95.0)),), "TOTAL", 0.6)
OBJECTS = Annotation("<OD>", regions=(CAT, DOG), source="a@1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    Image.new("RGB", (200, 100), (200, 90, 40)).save(path)
    return path


def queue_of(path: Path, *annotations: Annotation) -> list[ReviewItem]:
    rows = [Candidate(f"row{number}", annotation) for number, annotation in enumerate(annotations)]
    return review_queue([(Sample(image_id(path), str(path), (200.0, 100.0)), rows)], 99, random_share=0)


def exported(path: Path, edit: Any = lambda result: result) -> None:
    """What Label Studio exports when a person submits the first prediction after an edit of its results."""
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks):
        result = edit(task.pop("predictions")[0]["result"])
        task |= {"id": number, "annotations": [{"completed_by": {"email": "ada"}, "result": result}], "predictions": []}
    path.write_text(json.dumps(tasks))


def verdicts(file: Path, queue: list[ReviewItem]) -> list[Verdict]:
    problems: list[str] = []
    found = read_label_studio_review(file, queue, problems.append)
    assert problems == []
    return found


def test_claims_are_predictions_with_scores_and_reasons(tmp_path: Path, path: Path) -> None:
    words = Annotation("<OCR_WITH_REGION>", regions=(WORD,), source="b@1")
    caption = Annotation("<CAPTION>", "a cat and a dog", source="b@1", score=0.3)
    asked = Annotation("<VQA>", "two", query="How many?")
    queue = queue_of(path, OBJECTS, words, caption, asked)
    left_out = write_label_studio_review(tmp_path / "tasks.json", queue)
    assert [item.annotation.task for item in left_out] == ["<VQA>"]
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.3
    why = {item.label: item.why for item in queue}
    told = {result["value"]["rectanglelabels"][0]: result["meta"]["text"] for result in prediction["result"][:2]}
    assert told == {"cat": [why["cat"]], "dog": [why["dog"]]}
    (word,) = (result for result in prediction["result"] if result["type"] == "polygonlabels")
    assert word["meta"]["text"] == [why["TOTAL"]]
    assert why["a cat and a dog"] in task["data"]["review"]
    assert (tmp_path / "tasks.xml").is_file()


def test_what_was_submitted_unchanged_is_accepted(tmp_path: Path, path: Path) -> None:
    words = Annotation("<OCR_WITH_REGION>", regions=(WORD,), source="b@1")
    queue = queue_of(path, OBJECTS, words, Annotation("<CAPTION>", "a cat", source="b@1"))
    write_label_studio_review(tmp_path / "tasks.json", queue)
    exported(tmp_path / "tasks.json")
    found = verdicts(tmp_path / "tasks.json", queue)
    assert {verdict.item for verdict in found if verdict.verdict == "accept"} == {item.id for item in queue}
    assert {(verdict.verdict, verdict.task) for verdict in found if not verdict.item} == {
        ("complete", "<OD>"),
        ("complete", "<OCR_WITH_REGION>"),
    }


def test_what_a_person_changed_is_fixed_rejected_or_missing(tmp_path: Path, path: Path) -> None:
    third = Region.box(160, 10, 190, 40, label="hat", score=0.5)
    queue = queue_of(path, replace(OBJECTS, regions=(CAT, DOG, third)))
    write_label_studio_review(tmp_path / "tasks.json", queue)

    def edit(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        by_label = {item["value"]["rectanglelabels"][0]: item for item in result}
        by_label["cat"]["value"]["rectanglelabels"] = ["fox"]
        by_label["dog"]["value"]["x"] += 2
        new = json.loads(json.dumps(by_label["hat"]))
        new["id"], new["value"]["x"] = "new", 30
        return [by_label["cat"], by_label["dog"], new]

    exported(tmp_path / "tasks.json", edit)
    found = {(v.verdict, v.item): v for v in verdicts(tmp_path / "tasks.json", queue)}
    ids = {item.label: item.id for item in queue}
    assert found["fix", ids["cat"]] == Verdict("fix", ids["cat"], "fox")
    assert found["fix", ids["dog"]].label == ""
    assert found["fix", ids["dog"]].region == Region.box(104, 20, 154, 70, label="dog")
    assert ("reject", ids["hat"]) in found
    assert found["missing", ""].region == Region.box(60, 10, 90, 40, label="hat")
    made = human_annotations(queue, list(found.values()))[queue[0].image]
    assert [(d.status, [r.label for r in d.annotation.regions], d.annotation.complete) for d in made] == [
        ("kept", ["fox", "dog", "hat"], True) if queue[0].label != "dog" else ("kept", ["dog", "fox", "hat"], True),
        ("dropped", ["hat"], True),
    ]


def test_texts_are_accepted_rewritten_or_rejected(tmp_path: Path, path: Path) -> None:
    captions = [Annotation("<CAPTION>", text, source="b@1") for text in ("a cat", "a dog", "a hat")]
    queue = queue_of(path, OBJECTS, *captions)
    write_label_studio_review(tmp_path / "tasks.json", queue)

    def edit(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (texts,) = (item["value"]["text"] for item in result if item["type"] == "textarea")
        texts[:] = ["a cat", "a red hat"]
        return result

    exported(tmp_path / "tasks.json", edit)
    found = [v for v in verdicts(tmp_path / "tasks.json", queue) if v.item.startswith("row") and "#" not in v.item]
    assert sorted((v.verdict, v.label) for v in found) == [("accept", ""), ("fix", "a red hat"), ("reject", "")]


def test_labels_outside_the_queue_are_not_missing_objects(tmp_path: Path, path: Path) -> None:
    sample = Sample(image_id(path), str(path), (200.0, 100.0))
    (item,) = review_queue([(sample, [Candidate("row0", OBJECTS)])], 1, random_share=0)
    write_label_studio_review(tmp_path / "tasks.json", [item])

    def edit(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        other = json.loads(json.dumps(result[0]))
        other["id"] = "other"
        other["value"] |= {"x": 5, "y": 10, "width": 25, "height": 50, "rectanglelabels": ["cat"]}
        return [*result, other]

    exported(tmp_path / "tasks.json", edit)
    found = verdicts(tmp_path / "tasks.json", [item])
    assert item.label == "dog"
    assert [v.verdict for v in found] == ["accept", "complete"]
    (kept,) = human_annotations([item], found)[item.image]
    assert not kept.annotation.complete


def test_that_nothing_is_here_is_accepted_or_contradicted(tmp_path: Path, path: Path) -> None:
    empty = queue_of(path, replace(OBJECTS, regions=()))
    second = path.with_name("two.png")
    Image.new("RGB", (200, 100)).save(second)
    queue = empty + [replace(item, id="other#" + item.id) for item in queue_of(second, OBJECTS)]
    write_label_studio_review(tmp_path / "tasks.json", queue)
    exported(tmp_path / "tasks.json")
    found = verdicts(tmp_path / "tasks.json", queue)
    assert found[0] == Verdict("accept", "row0")


def test_what_nobody_submitted_has_no_verdict_and_strangers_are_reported(tmp_path: Path, path: Path) -> None:
    queue = queue_of(path, OBJECTS)
    write_label_studio_review(tmp_path / "tasks.json", queue)
    assert verdicts(tmp_path / "tasks.json", queue) == []
    stranger = [replace(item, image="another", path="another.png") for item in queue]
    problems: list[str] = []
    assert read_label_studio_review(tmp_path / "tasks.json", stranger, problems.append) == []
    assert len(problems) == 1
    assert "is left out: it is not in this review queue" in problems[0]
