"""COCO: what pycocotools reads is read, what is written pycocotools reads, and dirt is reported and left out."""

import json
import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from open_florence.data import read, write
from open_florence.data.coco import looks_like_coco
from open_florence.data.ignored import ignored_annotation, ignored_regions
from open_florence.data.instances import instances
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import mask_iou, rasterize
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own

IMAGE = {"id": 7, "file_name": "a.png", "width": 40, "height": 30}
CAT = {"id": 3, "name": "cat"}
BOX = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2.5, 29, 17.5]}
TRIANGLE = [2, 3, 20, 3, 2, 18]
CAT_BOX = Region.box(1, 2.5, 30, 20, label="cat")


def coco(path: Path, *annotations: Any, images: Any = (IMAGE,), categories: Any = (CAT,), **rest: Any) -> Path:
    """A COCO file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"images": list(images), "annotations": list(annotations), "categories": list(categories), **rest}
    path.write_text(json.dumps(document))
    return path


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def of_task(sample: Sample, task: str) -> list[Annotation]:
    """The sample's annotations of one task."""
    return [annotation for annotation in sample.annotations if annotation.task == task]


def quiet(load: Callable[..., Any], *arguments: Any) -> Any:
    """What pycocotools returns, without what it prints."""
    with open(os.devnull, "w") as nowhere, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", nowhere)
        return load(*arguments)


@pytest.mark.parametrize(
    ("json_at", "image_at", "name", "given"),
    [
        ("a.json", "a.png", "a.png", "a.json"),
        ("a.json", "images/a.png", "a.png", "."),
        ("annotations/a.json", "images/a.png", "a.png", "annotations/a.json"),
        ("annotations/instances_val2017.json", "val2017/a.png", "a.png", "."),
        ("annotations/instances_val2017.json", "images/val2017/a.png", "a.png", "annotations"),
        ("train/_annotations.coco.json", "train/a.png", "a.png", "."),
        ("a.json", "val/deep/a.png", "val/deep/a.png", "a.json"),
        ("a.json", "images/a.png", "C:\\data\\a.png", "a.json"),
        ("a.json", "images/a.png", "/home/someone/a.png", "a.json"),
    ],
)
def test_layouts(tmp_path: Path, json_at: str, image_at: str, name: str, given: str) -> None:
    image = picture(tmp_path / image_at)
    coco(tmp_path / json_at, BOX, images=[{**IMAGE, "file_name": name}])
    (sample,) = read(tmp_path / given)
    assert Path(sample.path).samefile(image)
    assert (sample.id, sample.size) == (image_id(image), (40.0, 30.0))
    assert sample.annotations == (Annotation("<OD>", regions=(CAT_BOX,), source="human"),)


def test_names_of_lvis_and_sizes_left_out(tmp_path: Path) -> None:
    image = picture(tmp_path / "train2017" / "12.png")
    coco(tmp_path / "lvis_v1_train.json", BOX, images=[{"id": 7, "coco_url": "http://images.example/train2017/12.png"}])
    (sample,) = read(tmp_path / "lvis_v1_train.json")
    assert (Path(sample.path), sample.size) == (image, (40.0, 30.0))


def test_without_its_image_a_record_still_has_its_boxes(tmp_path: Path) -> None:
    coco(tmp_path / "a.json", BOX)
    (sample,) = read(tmp_path / "a.json")
    assert (sample.id, sample.path, sample.size) == ("a", str(tmp_path / "a.png"), (40.0, 30.0))
    assert sample.annotations[0].regions == (CAT_BOX,)


def test_an_image_without_annotations_has_none_of_the_categories(tmp_path: Path) -> None:
    (sample,) = read(coco(tmp_path / "a.json"))
    assert sample.annotations == (Annotation("<OD>", source="human"),)


def test_polygons_answer_about_their_box(tmp_path: Path) -> None:
    parts = [TRIANGLE, [25, 10, 29, 10, 29, 19, 25, 99]]  # the last point is below the image
    (sample,) = read(coco(tmp_path / "a.json", {**BOX, "segmentation": parts}))
    (mask,) = of_task(sample, "<REGION_TO_SEGMENTATION>")
    assert mask.query == Region.box(1, 2.5, 30, 20)
    (region,) = mask.regions
    assert (region.kind, region.label) == ("polygon", "cat")
    assert region.parts == (
        ((2.0, 3.0), (20.0, 3.0), (2.0, 18.0)),
        ((25.0, 10.0), (29.0, 10.0), (29.0, 19.0), (25.0, 30.0)),
    )


@pytest.mark.parametrize("compressed", [True, False])
def test_runs_become_polygons(tmp_path: Path, compressed: bool) -> None:
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[5:20, 3:25], mask[8:14, 8:16] = 1, 0  # a hole
    rle = coco_mask.encode(np.asfortranarray(mask))
    counts: Any = rle["counts"].decode()
    if not compressed:
        flat = mask.T.ravel()
        edges = [0, *np.flatnonzero(np.diff(flat)) + 1, len(flat)]
        counts = np.diff(edges).tolist()
    record = {**BOX, "segmentation": {"size": [30, 40], "counts": counts}}
    (sample,) = read(coco(tmp_path / "a.json", record))
    (answer,) = of_task(sample, "<REGION_TO_SEGMENTATION>")
    np.testing.assert_array_equal(rasterize(answer.regions[0].parts, (40, 30)), mask)


def test_crowds_are_not_learnt_from(tmp_path: Path) -> None:
    crowd = {**BOX, "id": 2, "iscrowd": 1, "bbox": [0, 0, 40, 10], "segmentation": {"size": [30, 40], "counts": [1200]}}
    (sample,) = read(coco(tmp_path / "a.json", BOX, crowd))
    assert of_task(sample, "<OD>")[0].regions == (CAT_BOX,)
    assert ignored_regions(sample.annotations, "<OD>") == (Region.box(0, 0, 40, 10, label="cat"),)
    assert of_task(sample, "<REGION_TO_SEGMENTATION>") == []


def test_results_keep_their_scores(tmp_path: Path) -> None:
    (sample,) = read(coco(tmp_path / "a.json", {**BOX, "score": 0.25}))
    assert sample.annotations == (Annotation("<OD>", regions=(Region.box(1, 2.5, 30, 20, label="cat", score=0.25),)),)


def test_files_about_the_same_images_are_merged(tmp_path: Path) -> None:
    person = {"id": 1, "name": "person"}
    lady = {**BOX, "id": 5, "category_id": 1, "bbox": [5, 5, 10, 10]}
    lines = [{"id": k, "image_id": "x", "caption": text} for k, text in enumerate(["a cat ", "a cat on a mat"])]
    coco(tmp_path / "captions.json", *lines, images=[{**IMAGE, "id": "x"}], categories=[])
    coco(tmp_path / "instances.json", BOX, BOX, lady, categories=[CAT, person])
    keypoints = {"keypoints": [1, 2, 2] * 17, "num_keypoints": 17}
    other = {**lady, "id": 6, "bbox": [20, 5, 10, 10], **keypoints}
    coco(tmp_path / "person_keypoints.json", {**lady, **keypoints}, other, categories=[])
    (tmp_path / "notes.json").write_text('{"a": 1}')
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    assert [annotation.text for annotation in of_task(sample, "<CAPTION>")] == ["a cat", "a cat on a mat"]
    (found,) = of_task(sample, "<OD>")
    assert [region.label for region in found.regions] == ["cat", "cat", "person", "person"]  # one file may repeat
    assert found.regions[3].parts[0][0] == (20.0, 5.0)
    assert problems == [f"{tmp_path / 'notes.json'} is left out: it does not begin as COCO files do"]


def test_same_ids_and_names_in_two_folders_are_two_images(tmp_path: Path) -> None:
    for part, box in (("train", [0, 0, 5, 5]), ("valid", [1, 1, 5, 5])):
        coco(tmp_path / part / "_annotations.coco.json", {**BOX, "bbox": box})
    first, second = read(tmp_path)
    assert (first.path, second.path) == (str(tmp_path / "train" / "a.png"), str(tmp_path / "valid" / "a.png"))
    assert second.annotations[0].regions[0].parts[0][0] == (1.0, 1.0)


BAD_ANNOTATIONS = [
    ({**BOX, "id": 9, "image_id": 8}, "annotation 9, is left out: there is no image 8"),
    ({**BOX, "id": 9, "image_id": [8]}, "annotation 9, is left out: the id of its image"),
    ({"id": 9, "bbox": [1, 1, 1, 1]}, "annotation 9, is left out: it has no image_id"),
    ([], "annotation number 2, is left out: it has no image_id"),
    (5, "annotation number 2, is left out: it has no image_id"),
    ({**BOX, "id": 9, "bbox": [1, 2, 3]}, "annotation 9, is left out: its bbox is [1, 2, 3], not four numbers"),
    ({**BOX, "id": 9, "bbox": [1, 2, 3, "4"]}, "not four numbers"),
    ({**BOX, "id": 9, "bbox": [1, 2, 3, float("nan")]}, "not four numbers"),
    ({**BOX, "id": 9, "bbox": [1, 2, 3, float("inf")]}, "not four numbers"),
    ({**BOX, "id": 9, "bbox": [1, 2, 3, True]}, "not four numbers"),
    ({**BOX, "id": 9, "bbox": [9, 2, -3, 4]}, "its bbox has a negative size, -3 x 4"),
    ({**BOX, "id": 9, "bbox": [50, 2, 3, 4]}, "its bbox, (50, 2, 53, 6), has no area in the image"),
    ({**BOX, "id": 9, "category_id": 4}, "annotation 9, is left out: there is no category 4"),
    ({**BOX, "id": 9, "category_id": {}}, "there is no category {}"),
    ({**BOX, "id": 9, "score": 1.5}, "its score is 1.5"),
    ({"id": 9, "image_id": 7, "caption": " "}, "its caption is ' '"),
    ({"id": 9, "image_id": 7, "caption": 4}, "its caption is 4"),
    ({"id": 9, "image_id": 7}, "it has neither a bbox nor a caption"),
    ({"image_id": 7, "bbox": [1]}, "an annotation without id, is left out"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "said"), BAD_ANNOTATIONS)
def test_bad_annotations_are_named_and_left_out(tmp_path: Path, bad: Any, said: str) -> None:
    path = coco(tmp_path / "a.json", BOX, bad)
    problems: list[str] = []
    (sample,) = read(path, on_error=problems.append)
    assert sample.annotations == (Annotation("<OD>", regions=(CAT_BOX,), source="human"),)
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, ")
    assert said in problems[0]


BAD_MASKS: list[tuple[Any, str]] = [
    ("mask.png", "it is 'mask.png'"),
    ([[1, 2, 3]], "not pairs of numbers"),
    ([[1, 2, 3, None, 5, 6]], "not pairs of numbers"),
    ([1, 2, 3, 4, 5, 6], "not pairs of numbers"),
    ([[1, 2, 3, 4]], "it has no area in the image"),
    ([[50, 2, 60, 2, 60, 9]], "it has no area in the image"),
    ({"size": [30, 40], "counts": [1]}, "hold 1 pixels"),
    ({"size": [40, 30], "counts": [1200]}, "it has 30 x 40 pixels, its image 40 x 30"),
    ({"counts": "abc"}, "size of its mask"),
]


@pytest.mark.parametrize(("mask", "said"), BAD_MASKS)
def test_a_broken_mask_leaves_the_box(tmp_path: Path, mask: Any, said: str) -> None:
    path = coco(tmp_path / "a.json", {**BOX, "segmentation": mask})
    problems: list[str] = []
    (sample,) = read(path, on_error=problems.append)
    assert sample.annotations == (Annotation("<OD>", regions=(CAT_BOX,), source="human"),)
    assert problems[0].startswith(f"{path}, the mask of annotation 1, is left out: ")
    assert said in problems[0]


BAD_IMAGES = [
    ({"id": 8, "width": 40, "height": 30}, "image 8, is left out: it has no file_name"),
    ({"id": 8, "file_name": 4}, "image 8, is left out: it has no file_name"),
    ({"file_name": "b.png"}, "image number 2, is left out: it has no id"),
    ("b.png", "image number 2, is left out: it has no id"),
    ({"id": 7, "file_name": "b.png"}, "image 7, is left out: a.png has the same id"),
    ({"id": 8, "file_name": "b.png"}, "image 8, is left out: it says no image size, and its image is not there"),
    ({"id": 8, "file_name": "b.png", "width": -4, "height": 3}, "it says no image size"),
    ({"id": 8, "file_name": "real.png", "width": 41, "height": 30}, "41 x 30 pixels, but"),
    ({"id": 8, "file_name": "broken.png", "width": 40, "height": 30}, "broken.png"),
    ({"id": 8, "file_name": "\ud800.png", "width": 40, "height": 30}, "surrogates not allowed"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_IMAGES)
def test_bad_images_are_named_and_left_out(tmp_path: Path, bad: Any, said: str) -> None:
    picture(tmp_path / "real.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    path = coco(tmp_path / "a.json", BOX, images=[IMAGE, bad])
    problems: list[str] = []
    (sample,) = read(path, on_error=problems.append)
    assert sample.path == str(tmp_path / "a.png")
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, ")
    assert said in problems[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [', "Expecting value at character 12"),
        ('{"annotations": [{"id": 1, "image_id": 7, "bbox": [1, 2, 3, 4]}', "the end of the file"),
        ("[]", "'[' at character 0"),
        ("{}", "neither images nor annotations"),
        ("\x00", "character 0"),
    ],
)
def test_a_damaged_file_is_left_out_whole(tmp_path: Path, text: str, said: str) -> None:
    bad = tmp_path / "a.json"
    bad.write_text(text)
    problems: list[str] = []
    assert list(read(bad, "coco", problems.append)) == []
    assert len(problems) == 1
    assert problems[0].startswith(f"{bad} is left out: ")
    assert said in problems[0]


def test_what_is_and_is_not_coco(tmp_path: Path) -> None:
    assert looks_like_coco(coco(tmp_path / "a" / "a.json", BOX))
    assert looks_like_coco(tmp_path / "a")
    assert looks_like_coco(tmp_path)
    for number, document in enumerate(
        [
            {"info": {}, "annotations": [{"image_id": 1, "question_id": 2, "answers": []}]},  # VQA
            {"info": {}, "questions": [{"image_id": 1, "question": ""}]},
            {"images": []},
            {"metainfo": {}, "data_list": []},
            [{"image_id": 1, "regions": []}],
        ]
    ):
        path = tmp_path / "b" / f"{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))
        assert not looks_like_coco(path), document
    assert not looks_like_coco(tmp_path / "b")


def test_coco_itself(data_folder: Path) -> None:
    folder = data_folder / "coco_subset"
    samples = list(read(folder / "instances.json", on_error=pytest.fail))
    reference = quiet(COCO, str(folder / "instances.json"))
    by_name = {image["file_name"]: image["id"] for image in reference.dataset["images"]}
    assert {Path(sample.path).name for sample in samples} == by_name.keys()
    overlaps = []
    for sample in samples:
        image = by_name[Path(sample.path).name]
        records = reference.loadAnns(reference.getAnnIds([image], iscrowd=False))
        (found,) = of_task(sample, "<OD>")
        assert [region.label for region in found.regions] == [
            reference.cats[record["category_id"]]["name"] for record in records
        ]
        boxes = np.array([np.ravel(region.parts) for region in found.regions]).reshape(-1, 4)
        theirs = np.array([record["bbox"] for record in records]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, np.hstack([theirs[:, :2], theirs[:, :2] + theirs[:, 2:]]), atol=0.02)
        masks = of_task(sample, "<REGION_TO_SEGMENTATION>")
        for mask, record in zip(masks[:3], records[:3], strict=True):
            size = (int(sample.size[0]), int(sample.size[1]))
            overlaps.append(mask_iou(rasterize(mask.regions[0].parts, size), reference.annToMask(record).astype(bool)))
    assert np.mean(overlaps) > 0.95
    assert sum(len(ignored_regions(sample.annotations, "<OD>")) for sample in samples) == 6


def test_all_files_of_a_folder_of_coco(data_folder: Path) -> None:
    samples = list(read(data_folder / "coco_subset", on_error=pytest.fail))
    counts = Counter(annotation.task for sample in samples for annotation in sample.annotations)
    assert counts["<CAPTION>"] == 255 + 580
    assert (
        sum(len(of_task(sample, "<OD>")[0].regions) for sample in samples) == 639 - 6 + 1316 - 10
    )  # and no person twice
    assert counts["<REGION_TO_SEGMENTATION>"] == 639 - 6 + 1316 - 10


PLACES = st.floats(0, 99, width=32)
SHARES = st.floats(1 / 64, 1, width=32)
BOXES = st.tuples(PLACES, PLACES, SHARES, SHARES, st.sampled_from(["cat", "猫", "a dog"])).map(
    lambda drawn: (
        drawn[0],
        drawn[1],
        drawn[0] + drawn[2] * (100 - drawn[0]),  # some share of what is left to the right, and below
        drawn[1] + drawn[3] * (100 - drawn[1]),
        drawn[4],
    )
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(BOXES, st.none() | st.floats(0, 1), st.booleans()), min_size=1, max_size=5))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, things: list[Any]) -> None:
    boxes, masks = [], []
    for (x1, y1, x2, y2, label), score, masked in things:
        boxes.append(Region.box(x1, y1, x2, y2, label=label, score=score))
        if masked:
            triangle = ((x1, y1), (x2, y1), (x2, y2))
            region = Region("polygon", (triangle,), label)
            query = Region.box(x1, y1, x2, y2)
            masks.append(Annotation("<REGION_TO_SEGMENTATION>", regions=(region,), query=query))
    crowd = ignored_annotation("<OD>", [Region.box(3, 4, 50, 60, label="cat")])
    captions = (Annotation("<CAPTION>", "one"), Annotation("<CAPTION>", "two"))
    found = Annotation("<OD>", regions=tuple(boxes))
    sample = Sample("x", "photos/x.jpg", (100.0, 100.0), (found, *masks, *crowd, *captions))
    folder = tmp_path_factory.mktemp("coco")
    write(folder, [sample], "coco")
    (again,) = read(folder, on_error=pytest.fail)
    assert (again.id, again.path, again.size) == ("x", str(folder / "photos/x.jpg"), (100.0, 100.0))
    assert [a.text for a in of_task(again, "<CAPTION>")] == ["one", "two"]
    wanted, got = instances(sample), instances(again)
    assert wanted is not None
    assert got is not None
    assert len(got) == len(wanted)
    for one, other in zip(wanted, got, strict=True):
        assert (one.box.label, one.score, one.crowd) == (other.box.label, other.score, other.crowd)
        np.testing.assert_allclose(np.ravel(one.box.parts), np.ravel(other.box.parts), atol=1e-9)
        assert len(one.parts) == len(other.parts)
        if one.parts:
            np.testing.assert_allclose(np.ravel(one.parts), np.ravel(other.parts), atol=1e-9)


def test_pycocotools_reads_what_is_written(data_folder: Path, tmp_path: Path) -> None:
    source = data_folder / "coco_subset" / "instances.json"
    write(tmp_path / "a.json", read(source))
    ours, theirs = quiet(COCO, str(tmp_path / "a.json")), quiet(COCO, str(source))
    assert len(ours.imgs) == len(theirs.imgs)
    names = {image["file_name"]: image["id"] for image in theirs.dataset["images"]}
    checked = 0
    for image in ours.dataset["images"]:
        assert (tmp_path / image["file_name"]).is_file()
        wanted = theirs.loadAnns(theirs.getAnnIds([names[Path(image["file_name"]).name]], iscrowd=False))
        got = ours.loadAnns(ours.getAnnIds([image["id"]], iscrowd=False))
        for one, other in zip(got, wanted, strict=True):
            assert ours.cats[one["category_id"]]["name"] == theirs.cats[other["category_id"]]["name"]
            np.testing.assert_allclose(one["bbox"], other["bbox"], atol=0.02)
            np.testing.assert_allclose(one["area"], other["area"], rtol=0.1, atol=30)
        for one, other in zip(got[:2], wanted[:2], strict=True):
            assert mask_iou(ours.annToMask(one), theirs.annToMask(other)) > 0.95
            checked += 1
    assert checked > 50


def test_results_of_a_model_are_evaluated_by_pycocotools(tmp_path: Path) -> None:
    found = [Region.box(1, 2, 30, 20, label=label, score=0.5) for label in ("cat", "dog")]
    truth = Sample("x", "x.jpg", (40.0, 30.0), (Annotation("<OD>", regions=(found[1], found[0])),))
    write(tmp_path / "truth.json", [truth])
    sure = Region("box", found[0].parts, "cat", score=0.5, label_score=0.5)
    write(
        tmp_path / "found.json", [Sample("x", "x.jpg", (40.0, 30.0), (Annotation("<OD>", regions=(sure, found[1])),))]
    )
    records = json.loads((tmp_path / "found.json").read_text())["annotations"]
    results = quiet(quiet(COCO, str(tmp_path / "truth.json")).loadRes, records)
    assert [record["score"] for record in results.dataset["annotations"]] == [0.25, 0.5]
    categories = {category["id"]: category["name"] for category in results.dataset["categories"]}
    assert [categories[record["category_id"]] for record in records] == ["cat", "dog"]  # whichever comes first


def test_captions_alone_are_one_file(tmp_path: Path) -> None:
    sample = Sample("x", "x.jpg", (40.0, 30.0), (Annotation("<CAPTION>", "a cat", source="human"),))
    write(tmp_path / "a.json", [sample])
    assert os.listdir(tmp_path) == ["a.json"]
    (again,) = read(tmp_path / "a.json")
    assert again.annotations == sample.annotations


def test_what_cannot_be_written(tmp_path: Path) -> None:
    nameless = Sample("x", "x.jpg", (40.0, 30.0), (Annotation("<OD>", regions=(Region.box(0, 0, 1, 1),)),))
    with pytest.raises(OpenFlorenceError, match=r"x\.jpg has an object without a label"):
        write(tmp_path / "a.json", [nameless])
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OpenFlorenceError, match="cannot be written"):
        write(tmp_path / "file" / "a.json", [])


COUNT = """
import resource, sys
from pathlib import Path
from open_florence.data.coco import read_coco
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(sample.annotations[0].regions) for sample in read_coco(Path(sys.argv[1]), print))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    count, images = 200_000, 2_000
    path = tmp_path / "large.json"
    with path.open("w") as file:  # the images last, the annotations of an image far apart
        line = '{"id": %d, "image_id": %d, "category_id": 3, "bbox": [1.25, 2.5, 10, 10], "area": 100, "iscrowd": 0},\n'
        file.write('{"annotations": [\n')
        file.writelines(line % (number, number % images) for number in range(count))
        file.write('{"image_id": 0, "category_id": 3, "bbox": [1.25, 2.5, 10, 10]}],\n"images": [\n')
        file.write(",\n".join(json.dumps({**IMAGE, "id": k, "file_name": f"{k}.jpg"}) for k in range(images)))
        file.write('],\n"categories": [{"id": 3, "name": "cat"}]}')
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", COUNT, str(path)], capture_output=True, text=True, check=True)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - started
    read_count, kilobytes = map(int, done.stdout.split())
    assert read_count == count + 1
    assert kilobytes < 40_000  # the file has 21 MB, and as objects of Python 200 MB
    assert seconds < 60
