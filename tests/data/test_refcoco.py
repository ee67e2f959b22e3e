"""RefCOCO in both published layouts: the refer API's pickles, and Google's release, beside COCO's objects."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from open_florence.data import read
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import mask_iou, rasterize
from open_florence.images import image_id
from open_florence.schema import Annotation, Region

NAME = "COCO_train2014_000000000009.jpg"
SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 25.5, 10.0, 25.5]


def reference(number: int, split: str, *sentences: str, image: int = 9, thing: int = 0) -> dict[str, Any]:
    """A record of refs(...).p, with every field that the published ones have."""
    return {
        "sent_ids": list(range(len(sentences))), "file_name": f"{NAME[:-4]}_{number}.jpg", "ann_id": thing or number,
        "ref_id": number, "image_id": image, "split": split, "category_id": 1,
        "sentences": [
            {"tokens": words.split(), "raw": words.upper(), "sent_id": i, "sent": words}
            for i, words in enumerate(sentences)
        ],
    }  # fmt: skip


def thing(number: int, outline: Any = None, box: list[float] | None = None, image: int = 9) -> dict[str, Any]:
    """An object of instances.json."""
    return {
        "segmentation": [SQUARE] if outline is None else outline, "area": 310.0, "iscrowd": 0, "image_id": image,
        "bbox": [10.0, 10.0, 20.0, 15.5] if box is None else box, "category_id": 1, "id": number,
    }  # fmt: skip


IMAGE = {
    "license": 1, "file_name": NAME, "coco_url": f"http://x/{NAME}", "height": 48, "width": 64,
    "date_captured": "2013-11-14 00:00:00", "flickr_url": "", "id": 9,
}  # fmt: skip


def folder(path: Path, references: list[Any], things: list[Any], images: list[Any] | None = None) -> Path:
    """refs(unc).p as Python 2 wrote it (protocol 2), and instances.json."""
    path.mkdir(exist_ok=True)
    (path / "refs(unc).p").write_bytes(pickle.dumps(references, 2))
    instances = {
        "info": {}, "images": [IMAGE] if images is None else images, "licenses": [], "annotations": things,
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
    }  # fmt: skip
    (path / "instances.json").write_text(json.dumps(instances))
    return path


def test_each_expression_is_grounded_and_outlined(tmp_path: Path, check_targets: Callable[..., None]) -> None:
    path = folder(tmp_path, [reference(1, "train", "the lady", " left  one ")], [thing(1), thing(2)])
    (sample,) = read(path)
    assert (sample.id, sample.path, sample.size) == (NAME[:-4], str(tmp_path / NAME), (64.0, 48.0))
    outline = Region("polygon", (((10.0, 10.0), (30.0, 10.0), (30.0, 25.5), (10.0, 25.5)),))
    expected = []
    for words in ("the lady", "left one"):
        box = Region("box", (((10.0, 10.0), (30.0, 25.5)),), words, span=(0, len(words)))
        expected += [
            Annotation("<CAPTION_TO_PHRASE_GROUNDING>", words, (box,), words, "human"),
            Annotation("<REFERRING_EXPRESSION_SEGMENTATION>", "", (outline,), words, "human"),
        ]
    assert sample.annotations == tuple(expected)
    check_targets(sample)


def test_references_to_one_image_are_one_sample_in_the_order_of_the_file(tmp_path: Path) -> None:
    second = {**IMAGE, "id": 7, "file_name": "COCO_train2014_000000000007.jpg"}
    references = [
        reference(1, "train", "a"), reference(2, "train", "b", image=7), reference(3, "train", "c", thing=1)
    ]  # fmt: skip
    samples = list(read(folder(tmp_path, references, [thing(1), thing(2, image=7)], [second, IMAGE])))
    assert [[a.query for a in sample.annotations[::2]] for sample in samples] == [["a", "c"], ["b"]]


def test_parts(tmp_path: Path) -> None:
    splits = ["train", "val", "testA", "testB", "train"]
    references = [reference(n, split, f"the {n}", thing=1) for n, split in enumerate(splits)]
    path = folder(tmp_path / "refcoco#odd", references, [thing(1)])

    def queries(source: str) -> list[str]:
        return [str(a.query) for s in read(source) for a in s.annotations[::2]]

    assert queries(f"{path}") == ["the 0", "the 1", "the 2", "the 3", "the 4"]
    assert queries(f"{path}#train") == ["the 0", "the 4"]
    assert queries(f"{path}#testB") == ["the 3"]
    assert queries(f"{path}#test") == ["the 2", "the 3"]
    assert queries(f"{path / 'refs(unc).p'}#val") == ["the 1"]
    with pytest.raises(OpenFlorenceError, match="has no part 'valid'; it has train, val, testA, testB"):
        queries(f"{path}#valid")


def test_of_several_splits_the_usual_one_is_read_or_the_one_that_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, [reference(1, "train", "umd")], [thing(1)])
    (path / "refs(unc).p").rename(path / "refs(umd).p")
    (path / "refs(google).p").write_bytes(pickle.dumps([reference(1, "train", "google")], 2))
    assert [sample.annotations[0].query for sample in read(path)] == ["umd"]
    assert [sample.annotations[0].query for sample in read(path / "refs(google).p")] == ["google"]


@pytest.mark.parametrize(
    "at", [NAME, f"train2014/{NAME}", f"images/{NAME}", f"images/mscoco/images/train2014/{NAME}", "000000000009.jpg"]
)
def test_the_image_is_found(tmp_path: Path, at: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    picture = root / at
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "blue").save(picture)
    (sample,) = read(folder(root / "refcoco" if "mscoco" in at else root, [reference(1, "val", "it")], [thing(1)]))
    assert Path(sample.path).samefile(picture)
    assert sample.id == image_id(picture)


def test_an_image_of_another_size_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (64, 49)).save(tmp_path / NAME)
    problems: list[str] = []
    assert list(read(folder(tmp_path, [reference(1, "val", "it")], [thing(1)]), on_error=problems.append)) == []
    assert "image 9, is left out: it says the image has 64 x 48 pixels" in problems[0]


def test_a_polygon_of_parts_and_one_at_the_edge(tmp_path: Path, check_targets: Callable[..., None]) -> None:
    parts = [[-5, 0, 20, 0, 20, 20], [50, 30, 90, 30, 90, 90, 50, 90], [1, 1, 2, 2, 3, 3]]  # the last has no area
    (sample,) = read(folder(tmp_path, [reference(1, "val", "it")], [thing(1, parts, [-5, 0, 95, 90])]))
    grounded, outlined = sample.annotations
    assert grounded.regions[0].parts == (((0.0, 0.0), (64.0, 48.0)),)
    assert outlined.regions[0].parts == (
        ((0.0, 0.0), (20.0, 0.0), (20.0, 20.0)),
        ((50.0, 30.0), (64.0, 30.0), (64.0, 48.0), (50.0, 48.0)),
    )
    check_targets(sample)


@pytest.mark.parametrize("compressed", [False, True])
def test_masks_of_runs_become_polygons(tmp_path: Path, check_targets: Callable[..., None], compressed: bool) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 5:25] = mask[35:45, 40:60] = 1
    if compressed:
        coder = pytest.importorskip("pycocotools.mask")
        rle = coder.encode(np.asfortranarray(mask))
        runs = rle["counts"].decode()
    else:
        flat = mask.T.ravel()
        edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
        runs = np.diff(edges).tolist()
    (sample,) = read(folder(tmp_path, [reference(1, "val", "it")], [thing(1, {"size": [48, 64], "counts": runs})]))
    found = sample.annotations[1].regions[0]
    assert len(found.parts) == 2
    assert mask_iou(rasterize(found.parts, (64, 48)), mask.astype(bool)) == 1.0
    check_targets(sample)


LEFT_OUT = [
    (None, thing(1), "reference 1, is left out: it is no reference"),
    ({}, thing(1), "reference 1, is left out: it lacks 'split'"),
    ({**reference(1, "val", "it"), "sentences": [{"raw": "it"}]}, thing(1), "it lacks 'sent'"),
    ({**reference(1, "val", "it"), "image_id": "9"}, thing(1), "its numbers are '9' and 1"),
    (reference(1, "val", " "), thing(1), "an expression of it has no words"),
    (reference(1, "val"), thing(1), "an expression of it has no words"),
    ({**reference(1, "val"), "sentences": [{"sent": 5}]}, thing(1), "it is no reference"),
    (reference(1, "val", "it", image=8), thing(1), "instances.json has no image 8"),
    (reference(1, "val", "it", thing=5), thing(1), "its object 5 is not there"),
    (reference(1, "val", "it"), thing(1, box=[70, 10, 5, 5]), "its box, (70, 10, 75, 15), has no area in the image"),
    (reference(1, "val", "it"), thing(1, box=[1, 2, 3]), "one of its annotations, 1 is left out"),
    (reference(1, "val", "it"), thing(1, outline=[["x"]]), "one of its annotations, 1 is left out"),
    (reference(1, "val", "it"), thing(1, outline=[]), "SEGMENTATION>: its outline has no area"),
    (reference(1, "val", "it"), thing(1, outline=[[90, 90, 99, 90, 99, 99]]), "SEGMENTATION>: its outline has no area"),
    (reference(1, "val", "it"), thing(1, outline=[[1, 2, 3, 4, 5]]), "SEGMENTATION>: a polygon of it has 5 numbers"),
    (reference(1, "val", "it"), thing(1, outline={"size": [4, 4], "counts": [16]}), "its mask has 4 x 4 pixels"),
    (reference(1, "val", "it"), thing(1, outline={"size": [48, 64], "counts": [5]}), "SEGMENTATION>: the runs of"),
    (reference(1, "val", "it"), 7, "one of its annotations, is left out"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "its_thing", "said"), LEFT_OUT)
def test_records_that_are_wrong_are_named(tmp_path: Path, bad: Any, its_thing: Any, said: str) -> None:
    good = reference(2, "val", "the good one")
    problems: list[str] = []
    samples = list(read(folder(tmp_path, [bad, good], [its_thing, thing(2)]), on_error=problems.append))
    assert "the good one" in [a.query for s in samples for a in s.annotations]
    assert said in problems[0]
    assert str(tmp_path) in problems[0]
    kept = [a.task for s in samples for a in s.annotations if a.query == "it"]
    assert kept == (["<CAPTION_TO_PHRASE_GROUNDING>"] if "SEGMENTATION" in problems[0] else [])


def test_instances_cut_off_in_the_middle(tmp_path: Path) -> None:
    path = folder(tmp_path, [reference(1, "val", "one"), reference(2, "val", "two")], [thing(1), thing(2)])
    text = (path / "instances.json").read_text()
    (path / "instances.json").write_text(text[: text.rindex('"segmentation"')])
    problems: list[str] = []
    (sample,) = read(path, on_error=problems.append)
    assert [annotation.query for annotation in sample.annotations] == ["one", "one"]
    assert "instances.json is left out from where it is no JSON" in problems[0]
    assert "its object 2 is not there" in problems[1]


def test_missing_and_malicious_files(tmp_path: Path) -> None:
    path = folder(tmp_path / "refcoco", [reference(1, "val", "it")], [thing(1)])
    ran = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(ran), "w")

    (path / "refs(unc).p").write_bytes(pickle.dumps([reference(1, "val", "it"), Runs()], 2))
    with pytest.raises(OpenFlorenceError, match=r"refs\(unc\)\.p is refused: it asks for "):
        list(read(path))
    assert not ran.exists()
    (path / "refs(unc).p").write_bytes(pickle.dumps({}, 2))
    with pytest.raises(OpenFlorenceError, match="holds no list of references"):
        list(read(path))
    (path / "refs(unc).p").write_bytes(pickle.dumps([reference(1, "val", "it")], 2))
    (path / "instances.json").unlink()
    with pytest.raises(OpenFlorenceError, match=r"there is no instances\.json beside it"):
        list(read(path))
    with pytest.raises(OpenFlorenceError, match=r"there is no refs\(unc\)\.p"):
        list(read(tmp_path, "refcoco"))


def google(path: Path, expressions: list[tuple[int, int, str]], name: str = "val") -> None:
    """Google's release: annotations that name their expressions by number."""
    annotations = [
        {
            "annotation_id": found, "image_id": image, "category_id": 1, "refexp_ids": [number],
            "region_candidates": [{"bounding_box": [0, 0, 5, 5], "predicted_object_name": "person"}],
        }
        for number, (image, found, _) in enumerate(expressions)
    ]  # fmt: skip
    refexps = [
        {"refexp_id": number, "raw": words, "tokens": words.split(), "parse": {"referent": {"word": "it"}}}
        for number, (_, _, words) in enumerate(expressions)
    ]
    text = json.dumps({"annotations": annotations, "refexps": refexps})
    (path / f"google_refexp_{name}_201511.json").write_text(text)


def test_googles_release(tmp_path: Path, check_targets: Callable[..., None]) -> None:
    folder(tmp_path, [], [thing(1), thing(2)])
    (tmp_path / "refs(unc).p").unlink()
    (tmp_path / "instances.json").rename(tmp_path / "instances_train2014.json")
    google(tmp_path, [(9, 1, "the first"), (9, 3, "nobody"), (9, 2, "the second")])
    google(tmp_path, [(9, 1, "another")], "train")
    problems: list[str] = []
    (sample,) = read(f"{tmp_path}#val", on_error=problems.append)
    assert [annotation.query for annotation in sample.annotations[::2]] == ["the first", "the second"]
    assert len(problems) == 1
    assert "google_refexp_val_201511.json, annotations 2, is left out: its object 3 is not there" in problems[0]
    check_targets(sample)
    assert len(list(read(tmp_path, on_error=problems.append))) == 2
    with pytest.raises(OpenFlorenceError, match=r"there is no google_refexp_test_201511\.json"):
        list(read(f"{tmp_path}#test"))


def test_real_expressions_of_real_objects(
    tmp_path: Path, data_folder: Path, check_targets: Callable[..., None]
) -> None:
    instances = data_folder / "coco_subset" / "annotations_only_instances.json"
    if not instances.is_file():
        pytest.skip("no COCO annotations")
    known = {found["id"] for found in json.loads(instances.read_text())["annotations"]}
    lines = (data_folder / "google_refexp" / "expressions.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["annotation_id"] in known]
    google(tmp_path, [(r["image_id"], r["annotation_id"], r["expression"]) for r in records])
    (tmp_path / "instances.json").symlink_to(instances)
    problems: list[str] = []
    samples = list(read(tmp_path, on_error=problems.append))
    assert problems == []
    assert sum(len(sample.annotations) for sample in samples) == 2 * len(records) > 0
    for sample in samples:
        check_targets(sample)
        for grounded, outlined in zip(sample.annotations[::2], sample.annotations[1::2], strict=True):
            (low, high), *_ = grounded.regions[0].parts
            points = [point for part in outlined.regions[0].parts for point in part]
            assert np.min(points, axis=0) == pytest.approx(low, abs=1.5)  # COCO's box is that of its outline
            assert np.max(points, axis=0) == pytest.approx(high, abs=1.5)
