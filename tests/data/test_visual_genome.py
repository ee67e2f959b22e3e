"""Visual Genome: files read side by side, one sample an image, on made-up records and on real ones."""

import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from open_florence.data import read
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region

HOST = "https://cs.stanford.edu/people/rak248"


def image(number: int, folder: str = "VG_100K") -> dict[str, Any]:
    """A record of image_data.json."""
    return {
        "width": 80, "url": f"{HOST}/{folder}/{number}.jpg", "height": 60, "image_id": number, "coco_id": None,
        "flickr_id": None,
    }  # fmt: skip


def region(phrase: Any = "a clock ", x: Any = 4, width: int = 20, **changes: Any) -> dict[str, Any]:
    """A region of region_descriptions.json."""
    return {"region_id": 5, "width": width, "height": 10, "image_id": 1, "phrase": phrase, "y": 5, "x": x} | changes


def thing(*names: str, x: int = 4) -> dict[str, Any]:
    """An object of objects.json."""
    return {
        "synsets": [], "h": 10, "object_id": 7, "merged_object_ids": [], "names": list(names), "w": 20, "y": 5, "x": x,
    }  # fmt: skip


def question(words: str = "What color?", answer: str = "Green.") -> dict[str, Any]:
    """A question of question_answers.json."""
    return {"a_objects": [], "question": words, "image_id": 1, "qa_id": 9, "answer": answer, "q_objects": []}


def folder(path: Path, images: list[Any], **files: list[Any]) -> Path:
    """A folder of files."""
    for name, records in {"image_data": images, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(records))
    return path


def test_one_sample_of_all_files(tmp_path: Path, check_targets: Callable[..., None]) -> None:
    folder(
        tmp_path,
        [image(1, "VG_100K_2")],
        region_descriptions=[{"id": 1, "regions": [region(), region("a tall  clock", x=-3)]}],
        objects=[{"image_id": 1, "objects": [thing("clock", "watch")], "image_url": ""}],
        question_answers=[{"id": 1, "qas": [question()]}],
    )
    (sample,) = read(tmp_path)
    assert (sample.id, sample.path, sample.size) == ("1", str(tmp_path / "VG_100K_2" / "1.jpg"), (80.0, 60.0))
    first, second = Region.box(4, 5, 24, 15), Region.box(0, 5, 17, 15)
    dense = (Region.box(4, 5, 24, 15, label="a clock"), Region.box(0, 5, 17, 15, label="a tall clock"))
    assert sample.annotations == (
        Annotation("<DENSE_REGION_CAPTION>", "", dense, source="human"),
        Annotation("<REGION_TO_DESCRIPTION>", "a clock", query=first, source="human"),
        Annotation("<REGION_TO_DESCRIPTION>", "a tall clock", query=second, source="human"),
        Annotation("<OD>", "", (Region.box(4, 5, 24, 15, label="clock"),), source="human"),
        Annotation("<VQA>", "Green.", query="What color?", source="human"),
    )
    check_targets(sample)


def test_images_are_joined_in_the_order_of_image_data_whatever_is_absent(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        [image(7), image(2), image(5), image(3)],
        region_descriptions=[{"id": n, "regions": [region(f"r{n}")]} for n in (7, 5, 3)],
        objects=[{"image_id": n, "objects": [thing(f"o{n}")]} for n in (7, 2, 3)],
    )
    found = [[r.label for a in sample.annotations for r in a.regions] for sample in read(path)]
    assert found == [["r7", "o7"], ["o2"], ["r5"], ["r3", "o3"]]


def test_files_in_different_orders_lose_nothing(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        [image(n) for n in range(6)],
        region_descriptions=[{"id": n, "regions": [region(f"r{n}")]} for n in (0, 1, 2, 3, 4, 5)],
        objects=[{"image_id": n, "objects": [thing(f"o{n}")]} for n in (5, 4, 3, 2, 1, 0)],
    )
    labels = [(s.id, r.label) for s in read(path) for a in s.annotations for r in a.regions]
    assert sorted(labels) == sorted((str(n), f"{kind}{n}") for n in range(6) for kind in "ro")


def test_one_file_alone(tmp_path: Path) -> None:
    path = folder(
        tmp_path, [image(1)], region_descriptions=[{"id": 1, "regions": [region()]}], objects=[{"image_id": 1}]
    )
    (sample,) = read(path / "region_descriptions.json")
    assert [a.task for a in sample.annotations] == ["<DENSE_REGION_CAPTION>", "<REGION_TO_DESCRIPTION>"]


@pytest.mark.parametrize("at", ["VG_100K_2/1.jpg", "images/1.jpg", "images/VG_100K/1.jpg", "1.jpg"])
def test_the_image_is_found(tmp_path: Path, at: str) -> None:
    picture = tmp_path / at
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60), "red").save(picture)
    (sample,) = read(folder(tmp_path, [image(1)], objects=[{"image_id": 1, "objects": [thing("a")]}]))
    assert Path(sample.path).samefile(picture)
    assert sample.id == image_id(picture)
    Image.new("RGB", (60, 80)).save(picture)
    problems: list[str] = []
    assert list(read(tmp_path, on_error=problems.append)) == []
    assert "image_data.json, image 1, is left out: it says the image has 80 x 60 pixels" in problems[0]


LEFT_OUT: list[tuple[str, Any, str]] = [
    ("region_descriptions", {"id": 1, "regions": [region(x=90)]}, "regions 1, is left out: the box of 'a clock', (90,"),
    ("region_descriptions", {"id": 1, "regions": [region(width=0)]}, "has no area in the image"),
    ("region_descriptions", {"id": 1, "regions": [region(x=float("nan"))]}, "has no area in the image"),
    ("region_descriptions", {"id": 1, "regions": [region("  ")]}, "regions 1, is left out: it has no words"),
    ("region_descriptions", {"id": 1, "regions": [region(None)]}, "it has no words"),
    ("region_descriptions", {"id": 1, "regions": [region(x="left")]}, "could not convert"),
    ("region_descriptions", {"id": 1, "regions": [region(x=None)]}, "it is no object with the fields"),
    ("region_descriptions", {"id": 1, "regions": [5]}, "it is no object with the fields"),
    ("region_descriptions", {"id": 1, "regions": {}}, "record 1, is left out: its regions are no list"),
    ("region_descriptions", {"id": 1}, "record 1, is left out: it lacks 'regions'"),
    ("region_descriptions", {"id": 8, "regions": []}, "image_data.json has no image 8"),
    ("region_descriptions", {"id": "1", "regions": []}, "its image_id is '1', not a number"),
    ("region_descriptions", {"regions": []}, "it lacks 'id'"),
    ("region_descriptions", [], "it is no object with the fields"),
    ("objects", {"image_id": 1, "objects": [thing()]}, "objects 1, is left out: it has no words"),
    ("objects", {"image_id": 1, "objects": [{"names": ["a"], "x": 1, "y": 1, "w": 1}]}, "it lacks 'h'"),
    ("question_answers", {"id": 1, "qas": [question(answer="")]}, "qas 1, is left out: it has no words"),
    ("question_answers", {"id": 1, "qas": [{"question": "Why?"}]}, "qas 1, is left out: it lacks 'answer'"),
    ("image_data", {"image_id": 4, "width": 0, "height": 5, "url": ""}, "record 1, is left out: its size is"),
    ("image_data", {"image_id": 4, "width": 5, "height": 5}, "record 1, is left out: it lacks 'url'"),
]


@pytest.mark.parametrize(("name", "bad", "said"), LEFT_OUT)
def test_records_that_are_wrong_are_named(tmp_path: Path, name: str, bad: Any, said: str) -> None:
    files: dict[str, list[Any]] = {
        "image_data": [image(1), image(2)],
        "objects": [{"image_id": 2, "objects": [thing("good")]}],
    }
    files[name] = [bad, *files.get(name, [])]
    images = files.pop("image_data")
    problems: list[str] = []
    samples = list(read(folder(tmp_path, images, **files), on_error=problems.append))
    assert [r.label for s in samples for a in s.annotations for r in a.regions] == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith(str(tmp_path / f"{name}.json"))
    assert said in problems[0]


def test_a_file_cut_off_in_the_middle(tmp_path: Path) -> None:
    path = folder(
        tmp_path, [image(n) for n in (1, 2)], objects=[{"image_id": n, "objects": [thing("a")]} for n in (1, 2)]
    )
    text = (path / "objects.json").read_text()
    (path / "objects.json").write_text(text[:-20])
    problems: list[str] = []
    assert [sample.id for sample in read(path, on_error=problems.append)] == ["1"]
    assert "objects.json is left out after record 1: " in problems[0]


def test_missing_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match=r"is none of Visual Genome's region_descriptions\.json, "):
        list(read(tmp_path, "visual_genome"))
    folder(tmp_path, [], objects=[])
    with pytest.raises(OpenFlorenceError, match=r"image_data\.json says of no image how large it is"):
        list(read(tmp_path, on_error=lambda problem: None))
    (tmp_path / "image_data.json").unlink()
    with pytest.raises(OpenFlorenceError, match=r"image_data\.json cannot be read: No such file"):
        list(read(tmp_path, "visual_genome"))
    folder(tmp_path, [image(1)], objects=[{"image_id": 1, "objects": []}])
    with pytest.raises(OpenFlorenceError, match="visual_genome has no parts, so #val cannot be read"):
        read(f"{tmp_path}#val")


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    records = [{"id": n, "regions": [region("x" * 120_000)]} for n in range(100)]
    folder(tmp_path, [image(n) for n in range(100)], region_descriptions=records)
    assert (tmp_path / "region_descriptions.json").stat().st_size > 12_000_000
    del records
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(tmp_path)) == 100
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_real_records(data_folder: Path, check_targets: Callable[..., None]) -> None:
    problems: list[str] = []
    samples = list(read(data_folder / "visual_genome_sample", on_error=problems.append))
    assert problems == []
    assert len(samples) == 75
    tasks = Counter(annotation.task for sample in samples for annotation in sample.annotations)
    assert tasks == {"<DENSE_REGION_CAPTION>": 75, "<REGION_TO_DESCRIPTION>": 5530, "<OD>": 65}
    first = samples[0].annotations[0].regions[0]
    assert (first.label, first.parts) == ("the clock is green in colour", (((421.0, 57.0), (503.0, 196.0)),))
    for sample in samples[::4]:
        check_targets(sample)
