"""`open-florence data`: any format to any other, with counts, and every problem told."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from open_florence.cli import run
from open_florence.data import HELD_TASKS, WRITERS, read, write
from open_florence.schema import Annotation, Region, Sample

BOXES = (Region.box(1, 2, 20, 30, label="cat"), Region.box(5, 5, 40, 30, label="dog"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Our own format, with boxes, a mask, a caption and a question; its third image is not there."""
    mask = Region("polygon", (((1.0, 2.0), (20.0, 2.0), (20.0, 30.0)),), "cat")
    annotations = (
        Annotation("<OD>", regions=BOXES, source="human"),
        Annotation("<REGION_TO_SEGMENTATION>", regions=(mask,), query=Region.box(1, 2, 20, 30), source="human"),
        Annotation("<CAPTION>", "two pets", source="human"),
        Annotation("<VQA>", "two", query="how many pets?", source="human"),
    )
    folder = tmp_path / "pets"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30), "red").save(folder / f"{name}.png")
    samples = [Sample(name, f"{name}.png", (40.0, 30.0), annotations) for name in "abc"]
    write(folder / "annotations.jsonl", samples)
    return folder


@pytest.mark.parametrize("to", ["jsonl", "voc", "coco", "yolo"])
def test_any_format_to_any_other(
    source: Path, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["data", "pets", "out", "--to", to]) == 0
    printed = capsys.readouterr()
    out = "out/annotations.jsonl" if to == "jsonl" else "out"
    assert printed.out.startswith(f"{out} holds what {to} can of 3 images: 3 <OD>")
    missing = "c.png is not there: only its labels are written\n"
    assert printed.err == (missing if to == "yolo" else "")
    assert ("1 problem was reported" in printed.out) == (to == "yolo")
    assert ("coco has no place for: 3 <VQA>" in printed.out) == (to == "coco")
    problems: list[str] = []
    again = list(read("out", on_error=problems.append))
    assert len(problems) == (to == "yolo")  # the labels of the image that is not there
    assert len(again) == (2 if to == "yolo" else 3)
    for sample in again:
        found = sample.annotations[0]
        assert [region.label for region in found.regions] == ["cat", "dog"]
        assert {annotation.task for annotation in sample.annotations} <= HELD_TASKS.get(to, {"<VQA>", "<CAPTION>"}) | {
            "<OD>",
            "<REGION_TO_SEGMENTATION>",
        }


def test_through_every_detection_format_and_back(source: Path, tmp_path: Path) -> None:
    (source / "annotations.jsonl").write_text("".join((source / "annotations.jsonl").read_text().splitlines(True)[:2]))
    for before, after in (("pets", "1"), ("1", "2"), ("2", "3"), ("3", "4")):
        to = {"1": "coco", "2": "yolo", "3": "coco", "4": "voc"}[after]
        assert run(["data", str(tmp_path / before), str(tmp_path / after), "--to", to]) == 0
    for sample in read(tmp_path / "4"):
        boxes = sample.annotations[0].regions
        assert [region.label for region in boxes] == ["cat", "dog"]
        for box, wanted in zip(boxes, BOXES, strict=True):
            assert [v for point in box.parts[0] for v in point] == pytest.approx(
                [v for point in wanted.parts[0] for v in point], abs=1e-3
            )


def test_problems_are_lines_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
    records = [{"id": k, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4][:k]} for k in (2, 3, 4)]
    document = {"images": [image], "annotations": records, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert run(["data", str(tmp_path / "a.json"), str(tmp_path / "out.jsonl"), "--from", "coco", "--to", "jsonl"]) == 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 2
    assert "a.json, annotation 2, is left out: its bbox is [1, 2]" in printed.err
    assert printed.out.splitlines()[-1] == "2 problems were reported"


def test_mistakes_are_one_sentence(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for arguments, said in [
        ([str(source), "out", "--to", "klingon"], f"there are {', '.join(WRITERS)}"),
        ([str(source), str(source), "--to", "coco"], "exists and is not an empty folder"),
        ([str(source), str(empty), "--to", "coco"], "exists and is not an empty folder"),
        ([str(tmp_path / "nowhere"), str(tmp_path / "x"), "--to", "coco"], "there is no file or folder"),
        ([str(empty), str(tmp_path / "x"), "--to", "coco"], "nothing in"),
        ([str(source), str(tmp_path / "x")], "--to"),
    ]:
        assert run(["data", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["empty.jsonl", "pets"]


def test_what_a_format_holds_is_said_of_formats_that_are_written() -> None:
    assert HELD_TASKS.keys() <= WRITERS.keys()
