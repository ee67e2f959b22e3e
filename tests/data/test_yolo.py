"""YOLO: every layout people have, lines of every kind, and data sets that ultralytics can train on."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from open_florence.data import read, write
from open_florence.data.yolo import looks_like_yolo
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import rasterize
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

DATA_YAML = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"]}
LINE = "1 0.5 0.5 0.5 0.2"
DOG = Region.box(10, 12, 30, 18, label="dog")


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (40, 30)) -> Path:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def text(path: Path, content: str | dict[str, Any]) -> Path:
    """A text file, or a YAML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def labelled(folder: Path, lines: str, **more: Any) -> Path:
    """A data set of one image."""
    picture(folder / "images" / "train" / "a.png")
    text(folder / "labels" / "train" / "a.txt", lines)
    text(folder / "data.yaml", {"train": "images/train", "names": ["cat", "dog"], **more})
    return folder


@pytest.mark.parametrize(
    ("image_at", "labels_at", "files", "given"),
    [
        ("images/train/a.png", "labels/train/a.txt", {"data.yaml": DATA_YAML}, "."),
        ("images/train/a.png", "labels/train/a.txt", {"data.yaml": DATA_YAML}, "data.yaml"),
        ("images/train/a.png", "labels/train/a.txt", {"coco8.yaml": {**DATA_YAML, "path": "coco8"}}, "."),
        ("d/images/train/a.png", "d/labels/train/a.txt", {"data.yaml": {**DATA_YAML, "path": "d"}}, "."),
        ("train/images/a.png", "train/labels/a.txt", {"data.yaml": {**DATA_YAML, "train": "../train/images"}}, "."),
        ("images/a.png", "labels/a.txt", {"data.yaml": {"train": ["images"], "names": {0: "cat", "1": "dog"}}}, "."),
        ("images/a.png", "labels/a.txt", {"data.yaml": {"names": ["cat", "dog"]}}, "."),
        ("images/a.png", "labels/a.txt", {"data.yaml": {**DATA_YAML, "train": "l.txt"}, "l.txt": "images/a.png"}, "."),
        ("images/deep/images/a.png", "images/deep/labels/a.txt", {"data.yaml": {**DATA_YAML, "train": "images"}}, "."),
        ("images/a.png", "labels/a.txt", {"classes.txt": "cat\ndog\n"}, "."),
        ("images/a.png", "labels/a.txt", {"labels/classes.txt": "cat\r\ndog"}, "."),
        ("a.png", "a.txt", {"classes.txt": "cat\ndog"}, "."),
        ("a.png", "labels/a.txt", {"obj.names": "cat\ndog"}, "."),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, image_at: str, labels_at: str, files: dict[str, Any], given: str) -> None:
    image = picture(tmp_path / image_at)
    text(tmp_path / labels_at, f"{LINE}\n\n")
    for name, content in files.items():
        text(tmp_path / name, content)
    problems: list[str] = []
    (sample,) = read(tmp_path / given, on_error=problems.append)
    assert (Path(sample.path).resolve(), sample.id, sample.size) == (image.resolve(), image_id(image), (40.0, 30.0))
    assert sample.annotations == (Annotation("<OD>", regions=(DOG,), source="human"),)
    assert all("images/val" in problem for problem in problems)


def test_parts(tmp_path: Path) -> None:
    for part, colour in (("train", "red"), ("val", "blue")):
        picture(tmp_path / "images" / part / "a.png", colour)
    text(tmp_path / "labels" / "val" / "a.txt", LINE)
    text(tmp_path / "data.yaml", {**DATA_YAML, "test": "images/val"})
    assert [Path(sample.path).parent.name for sample in read(tmp_path)] == ["train", "val"]  # val's are test's too
    (sample,) = read(f"{tmp_path}#val")
    assert sample.annotations[0].regions == (DOG,)
    with pytest.raises(OpenFlorenceError, match="has no part 'valid'; it has train, val, test"):
        list(read(f"{tmp_path}#valid"))


def test_a_polygon_is_a_box_and_its_mask(tmp_path: Path) -> None:
    (sample,) = read(labelled(tmp_path, "0 0.25 0.5 0.75 0.5 0.5 1.004"))
    box = Region.box(10, 15, 30, 30, label="cat")
    mask = Region("polygon", (((10.0, 15.0), (30.0, 15.0), (20.0, 30.0)),), "cat")  # cut at the edge
    assert sample.annotations == (
        Annotation("<OD>", regions=(box,), source="human"),
        Annotation("<REGION_TO_SEGMENTATION>", regions=(mask,), query=Region.box(10, 15, 30, 30), source="human"),
    )


def test_predictions_have_scores(tmp_path: Path) -> None:
    (sample,) = read(labelled(tmp_path, f"{LINE} 0.25\n0 0.25 0.5 0.75 0.5 0.5 1 0.5\n"))
    found = sample.annotations[0]
    assert [region.score for region in found.regions] == [0.25, 0.5]
    assert found.source == ""
    assert len(sample.annotations[1].regions[0].parts[0]) == 3


def test_of_poses_the_boxes_are_read(tmp_path: Path) -> None:
    (sample,) = read(labelled(tmp_path, f"{LINE} 0.5 0.5 2 0.4 0.4 1", kpt_shape=[2, 3]))
    assert sample.annotations == (Annotation("<OD>", regions=(DOG,), source="human"),)


BAD_LINES = [
    ("1 0.5 0.5 0.5", "it has 2 numbers after its class"),  # a place, and what may be a score
    ("1", "it has 0 numbers after its class"),
    ("cat 0.5 0.5 0.5 0.2", "it is not numbers alone: 'cat 0.5 0.5 0.5 0.2'"),
    ("1,0.5,0.5,0.5,0.2", "it is not numbers alone"),
    ("2 0.5 0.5 0.5 0.2", "there is no class 2; the classes go from 0 to 1"),
    ("-1 0.5 0.5 0.5 0.2", "not a class and places"),
    ("0.5 0.5 0.5 0.5 0.2", "not a class and places"),
    ("1 nan 0.5 0.5 0.2", "not a class and places"),
    ("1 20 15 20 6", "20 is not a share of the image"),
    ("1 0.5 -0.2 0.5 0.2", "-0.2 is not a share of the image"),
    ("1 0.5 0.5 0 0.2", "its box, (20, 12, 20, 18), has no area in the image"),
    ("1 0.5 0.5 0.5 0.5 0.5 0.5", "the box of its polygon, (20, 15, 20, 15), has no area in the image"),
    ("1 0.5 0.5 0.5 0.2 87", "its score is 87"),
    ("nan nan", "not a class and places"),
    ("1e999 0.5 0.5 0.5 0.2", "not a class and places"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_LINES)
def test_bad_lines_are_named_and_left_out(tmp_path: Path, bad: str, said: str) -> None:
    folder = labelled(tmp_path, f"{LINE}\n{bad}\n{LINE}\n")
    problems: list[str] = []
    (sample,) = read(folder, on_error=problems.append)
    assert sample.annotations[0].regions == (DOG, DOG)
    assert len(problems) == 1
    assert problems[0].startswith(f"{folder / 'labels' / 'train' / 'a.txt'}, line 2, is left out: ")
    assert said in problems[0]


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    folder = labelled(tmp_path, LINE, test="images/test")
    (folder / "images" / "train" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    picture(folder / "images" / "train" / "binary.png")
    (folder / "labels" / "train" / "binary.txt").write_bytes(b"\xff\xfe\x00")
    text(folder / "labels" / "train" / "lonely.txt", LINE)
    text(folder / "labels" / "train" / "classes.txt", "cat\ndog")
    problems: list[str] = []
    (sample,) = read(folder, on_error=problems.append)
    assert sample.annotations[0].regions == (DOG,)
    assert len(problems) == 4
    binary, broken, missing, lonely = problems
    assert binary.startswith(f"{folder / 'images' / 'train' / 'binary.png'} is left out: its labels, ")
    assert broken.startswith(f"{folder / 'images' / 'train' / 'broken.png'} is left out: ")
    assert missing == f"{folder} lacks images/test, the images of test"
    assert lonely == f"{folder / 'labels' / 'train' / 'lonely.txt'} is left out: there is no image for it"


def test_images_without_labels_show_nothing_but_not_all_of_them(tmp_path: Path) -> None:
    folder = labelled(tmp_path, LINE)
    picture(folder / "images" / "train" / "b.png", "blue")
    samples = list(read(folder))  # a warning would be an error here
    assert [len(sample.annotations[0].regions) for sample in samples] == [1, 0]
    (folder / "labels").rename(folder / "lables")
    problems: list[str] = []
    assert len(list(read(folder, on_error=problems.append))) == 2
    assert problems == [f"none of the 2 images of {folder} has a file of labels"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("names: [cat", "cannot be read as YOLO's: "),
        ("names: 3", "its names are neither a list nor a table"),
        ("names: {a: cat}", "cannot be read as YOLO's: "),
        ("names: !!python/object/apply:os.system ['false']", "could not determine a constructor"),  # never run
    ],
)
def test_a_broken_data_yaml_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    text(tmp_path / "data.yaml", content)
    with pytest.raises(OpenFlorenceError, match=said):
        list(read(tmp_path))


def test_names_are_needed(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    assert not looks_like_yolo(tmp_path)
    with pytest.raises(OpenFlorenceError, match="does not say what its classes are called"):
        list(read(tmp_path, "yolo"))


def square(x: float, y: float, side: float) -> tuple[tuple[float, float], ...]:
    """The corners of a square."""
    return ((x, y), (x + side, y), (x + side, y + side), (x, y + side))


def a_sample(path: Path, *things: tuple[Region, Any]) -> Sample:
    """A sample of objects, each a box and the parts of its mask."""
    masks = [
        Annotation("<REGION_TO_SEGMENTATION>", regions=(Region("polygon", parts),), query=Region("box", box.parts))
        for box, parts in things
        if parts
    ]
    return Sample("x", str(path), (40.0, 30.0), (Annotation("<OD>", regions=tuple(b for b, _ in things)), *masks))


def test_round_trip(tmp_path: Path) -> None:
    cat, dog = Region.box(1.5, 2.25, 11, 12, label="cat"), Region.box(3, 4, 40, 30, label="a dog 猫")
    little = Region.box(5, 5, 9, 9, label="cat")
    samples = [
        a_sample(picture(tmp_path / "one" / "a.png"), (dog, ()), (cat, ())),
        a_sample(picture(tmp_path / "two" / "a.png", "blue"), (little, (square(5, 5, 4),))),
        a_sample(picture(tmp_path / "two" / "b.png", "green")),
    ]
    out = tmp_path / "out"
    write(out, samples, "yolo")
    assert sorted(os.listdir(out / "images")) == ["a.png", "a_2.png", "b.png"]
    assert (out / "images" / "a_2.png").samefile(tmp_path / "two" / "a.png")  # linked
    assert (out / "labels" / "b.txt").read_text() == ""
    document = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert document == {"train": "images", "val": "images", "names": {0: "a dog 猫", 1: "cat"}}
    again = list(read(out, on_error=pytest.fail))
    assert [Path(sample.path).name for sample in again] == ["a.png", "a_2.png", "b.png"]
    for one, other in zip(samples, again, strict=True):
        assert other.id == image_id(one.path)
        assert len(one.annotations) == len(other.annotations)
        for mine, yours in zip(one.annotations, other.annotations, strict=True):
            for region, found in zip(mine.regions, yours.regions, strict=True):
                assert region.label in ("", found.label)
                np.testing.assert_allclose(np.array(region.parts), np.array(found.parts), atol=1e-5)
    write(out, again, "yolo")  # onto itself
    assert [Path(sample.path).name for sample in read(out)] == ["a.png", "a_2.png", "b.png"]


def test_an_image_with_masks_has_polygons_only(tmp_path: Path) -> None:
    pieces = (square(1, 1, 5), square(20, 10, 8))
    sample = a_sample(
        picture(tmp_path / "a.png"),
        (Region.box(1, 1, 28, 18, label="cat"), pieces),
        (Region.box(2, 3, 12, 13, label="cat"), ()),
    )
    write(tmp_path / "out", [sample], "yolo")
    lines = (tmp_path / "out" / "labels" / "a.txt").read_text().splitlines()
    assert lines[1] == "0 0.05 0.1 0.3 0.1 0.3 0.43333333 0.05 0.43333333"
    (again,) = read(tmp_path / "out")
    assert [region.parts for region in again.annotations[0].regions] == [
        pytest.approx(np.array(region.parts), abs=1e-5) for region in sample.annotations[0].regions
    ]
    (whole,) = again.annotations[1].regions[0].parts  # one polygon of the two pieces
    np.testing.assert_array_equal(rasterize([whole], (40, 30)), rasterize(pieces, (40, 30)))


def test_what_is_written_is_found_by_the_rule_of_ultralytics_and_by_supervision(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    boxes = [Region.box(1.5, 2.25, 11, 12, label="cat"), Region.box(3, 4, 40, 30, label="dog")]
    out = tmp_path / "images" / "out"  # an "images" above must not mislead
    write(out, [a_sample(picture(tmp_path / "a.png"), (boxes[0], ()), (boxes[1], ()))], "yolo")
    image = str(out / "images" / "a.png")
    labels = f"{os.sep}labels{os.sep}".join(image.rsplit(f"{os.sep}images{os.sep}", 1)).rsplit(".", 1)[0] + ".txt"
    rows = [line.split() for line in Path(labels).read_text().splitlines()]
    assert all(len(row) == 5 and all(0 <= float(value) <= 1 for value in row[1:]) for row in rows)
    theirs = supervision.DetectionDataset.from_yolo(str(out / "images"), str(out / "labels"), str(out / "data.yaml"))
    ((_, _, found),) = list(theirs)
    np.testing.assert_allclose(found.xyxy, [np.ravel(box.parts) for box in boxes], atol=1e-3)
    assert [theirs.classes[k] for k in found.class_id] == ["cat", "dog"]


def test_missing_images_and_samples_without_boxes_are_warnings(tmp_path: Path) -> None:
    missing = a_sample(tmp_path / "gone.png", (DOG, ()))
    captioned = Sample("y", "y.png", (40.0, 30.0), (Annotation("<CAPTION>", "a cat"),))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        write(tmp_path / "out", [missing, captioned], "yolo")
    assert [str(warning.message) for warning in said] == [
        f"{tmp_path / 'gone.png'} is not there: only its labels are written",
        "y.png is not written: it has no <OD> annotation",
    ]
    assert os.listdir(tmp_path / "out" / "labels") == ["gone.txt"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="has an object without a label"):
        write(tmp_path / "out", [a_sample(picture(tmp_path / "a.png"), (Region.box(0, 0, 1, 1), ()))], "yolo")
    assert not (tmp_path / "out" / "data.yaml").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OpenFlorenceError, match="cannot be written"):
        write(tmp_path / "file" / "out", [], "yolo")
