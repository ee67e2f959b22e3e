"""MMOCR's JSON: with transcripts, for detection alone, and the records that are left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from open_florence.data import read
from open_florence.data.ignored import IGNORED
from open_florence.schema import Annotation, Region

SQUARE = [10, 10, 30, 10, 30, 20, 10, 20]


def document(folder: Path, *instances: Any, name: str = "textdet.json", **record: Any) -> Path:
    """A file of one image, which is there under another folder than the file says."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / "images" / "a.png")
    told = {"img_path": "imgs/test/a.png", "width": 40, "height": 30, "instances": list(instances)} | record
    path = folder / name
    path.write_text(json.dumps({"metainfo": {"dataset_type": "TextDetDataset"}, "data_list": [told]}))
    return path


def corners(kind: Any = "quad", label: str = "", flat: list[int] = SQUARE) -> Region:
    """The region of a flat list of numbers."""
    return Region(kind, (tuple((float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True)),), label)


def test_transcripts_are_quads_with_text(tmp_path: Path) -> None:
    lower = [10, 22, 30, 22, 30, 28, 10, 28]
    path = document(
        tmp_path,
        {"polygon": lower, "text": "below", "ignore": False},
        {"polygon": SQUARE, "text": "above", "ignore": False},
        {"polygon": SQUARE, "text": "###", "ignore": True},
        name="mine.json",
    )
    (sample,) = read(path)
    assert sample.path == str(tmp_path / "images" / "a.png")
    assert sample.annotations == (
        Annotation("<OCR_WITH_REGION>", "", (corners("quad", "above"), corners("quad", "below", lower)), None, "human"),
        Annotation("<OCR>", "above\nbelow", source="human"),
        Annotation(IGNORED, "", (corners(),), "<OCR_WITH_REGION>", "human"),
    )


def test_without_transcripts_text_is_a_thing_to_find(tmp_path: Path) -> None:
    triangle = [0, 0, 9, 0, 9, 9]
    document(tmp_path, {"polygon": triangle, "ignore": False}, {"polygon": SQUARE, "ignore": True})
    (sample,) = read(tmp_path)
    task = "<OPEN_VOCABULARY_DETECTION>"
    assert sample.annotations == (
        Annotation(task, "", (corners("polygon", "text", triangle),), "text", "human"),
        Annotation(IGNORED, "", (corners("polygon"),), task, "human"),
    )


BAD_INSTANCES = [
    ({"text": "a"}, "three points or more"),
    ({"polygon": [1, 2, 3, 4, 5, "6"], "text": "a"}, "three points or more"),
    ({"polygon": [1, 2, 3, 4, 5, 10**400], "text": "a"}, "three points or more"),
    ({"polygon": SQUARE, "text": ""}, "it has no text"),
    ({"polygon": SQUARE[:6], "text": "a"}, "3 points, not the four"),
    ({"polygon": [1, 1, 2, 2, 3, 3, 4, 4], "text": "a"}, "no area in the image"),
    ("nonsense", "three points or more"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_INSTANCES)
def test_bad_instances_are_named(tmp_path: Path, bad: Any, said: str) -> None:
    path = document(tmp_path, {"polygon": SQUARE, "text": "a"}, bad)
    problems: list[str] = []
    (sample,) = read(path, on_error=problems.append)
    assert len(sample.annotations[0].regions) == 1
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, record 1, instance 2, is left out: ")
    assert said in problems[0]


@pytest.mark.parametrize(
    ("record", "said"),
    [({"instances": None}, "'instances'"), ({"width": 41}, "41 x 30 pixels"), ({"img_path": 5}, "'img_path'")],
)
def test_bad_records_are_named(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    path = document(tmp_path, **record)
    problems: list[str] = []
    assert list(read(path, on_error=problems.append)) == []
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, record 1, is left out: ")
    assert said in problems[0]


def test_scene_text(data_folder: Path) -> None:
    """6 real photographs with 47 texts, most of them marked as illegible."""
    problems: list[str] = []
    samples = list(read(data_folder / "icdar2015_toy", on_error=problems.append))
    assert problems == []
    found = [r for s in samples for a in s.annotations if a.task != IGNORED for r in a.regions]
    ignored = [r for s in samples for a in s.annotations if a.task == IGNORED for r in a.regions]
    assert (len(samples), len(found), len(ignored)) == (6, 10, 37)
    assert {sample.size for sample in samples} == {(1280.0, 720.0)}
