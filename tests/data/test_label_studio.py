"""Label Studio: its export in all the forms people have, and tasks that it imports and gives back the same."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from open_florence.data import read, write
from open_florence.data.ignored import IGNORED
from open_florence.data.label_studio_tasks import label_config
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

FRAME = {"to_name": "image", "original_width": 200, "original_height": 100, "image_rotation": 0}
RECTANGLE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
TRIANGLE = [[10, 20], [40, 20], [40, 60]]


def item(kind: str, value: Any, id: str = "a", name: str = "label", **more: Any) -> dict[str, Any]:
    """One result."""
    return {"id": id, "type": kind, "from_name": name, "value": value, **FRAME, **more}


def labelled(label: str = "cat", id: str = "a", **more: Any) -> dict[str, Any]:
    """A rectangle with a label."""
    return item("rectanglelabels", {**RECTANGLE, "rectanglelabels": [label]}, id, **more)


def export(path: Path, *results: list[Any], image: str = "s3://bucket/a.jpg", **task: Any) -> Path:
    """An export of one task, with an annotation for each result."""
    annotations = [{"id": n, "completed_by": 7, "was_cancelled": False, "result": r} for n, r in enumerate(results)]
    record = {"id": 17, "annotations": annotations, "predictions": [], "data": {"image": image}} | task
    path.write_text(json.dumps([record]), encoding="utf-8")
    return path


def only(path: Path) -> tuple[Annotation, ...]:
    """The annotations of a file of one task without a problem."""
    problems: list[str] = []
    (sample,) = read(path, on_error=problems.append)
    assert problems == []
    assert (sample.id, sample.path, sample.size) == ("s3://bucket/a.jpg", "s3://bucket/a.jpg", (200.0, 100.0))
    return sample.annotations


def test_rectangles_are_boxes_in_pixels(tmp_path: Path) -> None:
    path = export(tmp_path / "a.json", [labelled(), labelled("dog", "b", score=0.25)])
    box = Region.box(20, 20, 80, 60, label="cat")
    expected = Annotation("<OD>", regions=(box, replace(box, label="dog", score=0.25)), source="human:7")
    assert only(path) == (expected,)


def test_a_turned_rectangle_is_the_box_around_it(tmp_path: Path) -> None:
    turned = {**RECTANGLE, "rotation": 90, "rectanglelabels": ["cat"]}  # (20, 20), 60 wide and 40 high, hangs downward
    (found,) = only(export(tmp_path / "a.json", [item("rectanglelabels", turned)]))
    assert found.regions == (Region.box(0, 20, 20, 80, label="cat"),)  # its left half is cut at the edge


def test_polygons_are_masks_of_the_boxes_around_them(tmp_path: Path) -> None:
    path = export(tmp_path / "a.json", [item("polygonlabels", {"points": TRIANGLE, "polygonlabels": ["cat"]})])
    boxes, masks = only(path)
    polygon = Region("polygon", (((20.0, 20.0), (80.0, 20.0), (80.0, 60.0)),), "cat")
    assert boxes == Annotation("<OD>", regions=(Region.box(20, 20, 80, 60, label="cat"),), source="human:7")
    query = Region.box(20, 20, 80, 60)
    assert masks == Annotation("<REGION_TO_SEGMENTATION>", regions=(polygon,), query=query, source="human:7")


def test_polygons_within_a_rectangle_are_its_mask(tmp_path: Path) -> None:
    value = {"points": TRIANGLE, "polygonlabels": ["cat"]}
    parts = [item("polygonlabels", value, id, parentID="a") for id in "bc"]
    boxes, masks = only(export(tmp_path / "a.json", [*parts, labelled()]))
    assert len(boxes.regions) == 1
    assert len(masks.regions[0].parts) == 2
    assert masks.query == Region("box", boxes.regions[0].parts)


TRANSCRIBED = [
    [item("rectangle", RECTANGLE, name="bbox"), item("labels", {**RECTANGLE, "labels": ["Text"]})],  # the OCR template
    [item("rectanglelabels", {**RECTANGLE, "rectanglelabels": ["Text"]})],
    [item("polygon", {"points": [[10, 20], [40, 20], [40, 60], [10, 60]]}, name="poly")],
    [item("polygonlabels", {"points": [*TRIANGLE, [10, 60], [10, 40]], "polygonlabels": ["Text"]})],  # five corners
]


@pytest.mark.parametrize("drawn", TRANSCRIBED)
def test_transcribed_regions_are_quads_of_text(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    text = item("textarea", {**RECTANGLE, "text": ["Total", "9.00"]}, name="transcription")
    below = [
        {**one, "id": "b", "value": {**RECTANGLE, "y": 70, "height": 10, "labels": ["Text"]}} for one in drawn[-1:]
    ]
    places, words, nobody = only(export(tmp_path / "a.json", [*drawn, text, *below]))
    quad = Region("quad", (((20.0, 20.0), (80.0, 20.0), (80.0, 60.0), (20.0, 60.0)),), "Total 9.00")
    assert places == Annotation("<OCR_WITH_REGION>", regions=(quad,), source="human:7")
    assert words == Annotation("<OCR>", "Total 9.00", source="human:7")
    assert (nobody.task, nobody.query, len(nobody.regions)) == (IGNORED, "<OCR_WITH_REGION>", 1)


def test_texts_and_choices_about_the_whole_image(tmp_path: Path) -> None:
    path = export(
        tmp_path / "a.json",
        [
            item("textarea", {"text": ["a cat", "it sleeps"]}, "t", "anything"),
            item("textarea", {"text": ["more"]}, "u", "more_detailed_caption"),
            item("choices", {"choices": ["indoors"]}, "c", "where"),
        ],
        [item("choices", {"choices": ["outdoors"]}, "c", "where")],
    )
    query = "indoors<and>outdoors"
    assert only(path) == (
        Annotation("<CAPTION>", "a cat", source="human:7"),
        Annotation("<CAPTION>", "it sleeps", source="human:7"),
        Annotation("<MORE_DETAILED_CAPTION>", "more", source="human:7"),
        Annotation("<CLASSIFICATION>", "indoors", query=query, source="human:7"),
        Annotation("<CLASSIFICATION>", "outdoors", query=query, source="human:7"),
    )


def test_who_said_it(tmp_path: Path) -> None:
    people: list[Any] = [7, {"id": 8, "email": "anna@example.com"}, {"id": 9}, None]
    annotations = [{"completed_by": who, "result": [labelled()]} for who in people]
    annotations.append({"completed_by": 10, "was_cancelled": True, "result": [labelled()]})
    predictions = [
        {"model_version": "tiny@2", "score": 0.5, "result": [labelled(score=0.25)]},
        {"score": 7, "result": [labelled(score="high")]},
    ]
    found = only(export(tmp_path / "a.json", annotations=annotations, predictions=predictions))
    sources = ["human:7", "human:anna@example.com", "human:9", "human", "tiny@2", "model"]
    assert [(a.source, a.score, a.regions[0].score) for a in found] == [
        *((source, None, None) for source in sources[:4]),
        ("tiny@2", 0.5, 0.25),
        ("model", None, None),
    ]


def test_an_image_without_boxes_in_a_file_of_boxes_holds_nothing(tmp_path: Path) -> None:
    nothing, something = only(export(tmp_path / "a.json", [], [labelled()]))
    assert nothing == Annotation("<OD>", source="human:7")
    assert len(something.regions) == 1
    with pytest.warns(UserWarning, match="no image size"):
        assert list(read(export(tmp_path / "b.json", []))) == []


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("/data/upload/3/0123abcd-a%20b.png", "images/0123abcd-a%20b.png"),
        ("/data/upload/3/0123abcd-a.png", "a.png"),
        ("/data/upload/3/0123abcd-a.png", "upload/3/0123abcd-a.png"),
        ("/data/local-files/?d=deep/a%20b.png", "deep/a b.png"),
        ("deep/a.png", "deep/a.png"),
    ],
)
def test_images_beside_the_file(tmp_path: Path, reference: str, file: str) -> None:
    picture = tmp_path / file
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 100), "red").save(picture)
    (sample,) = read(export(tmp_path / "a.json", [labelled()], image=reference))
    assert (sample.path, sample.id) == (str(picture), image_id(picture))


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("https://example.com/a.jpg?x=1", "https://example.com/a.jpg?x=1"),
        ("gs://bucket/a.jpg", "gs://bucket/a.jpg"),
        ("/data/upload/3/0123abcd-a.png", "/data/upload/3/0123abcd-a.png"),
        ("/data/local-files/?d=deep/a%20b.png", "deep/a b.png"),
        ("C:/photos/a.png", "C:/photos/a.png"),
    ],
)
def test_images_elsewhere(tmp_path: Path, reference: str, path: str) -> None:
    (sample,) = read(export(tmp_path / "a.json", [labelled()], image=reference))
    assert (sample.path, sample.id, sample.size) == (path, path, (200.0, 100.0))


def test_the_image_may_have_another_name_in_the_data(tmp_path: Path) -> None:
    (sample,) = read(export(tmp_path / "a.json", [labelled()], data={"page": 3, "photo": "https://x.org/a.JPG?s=1"}))
    assert sample.path == "https://x.org/a.JPG?s=1"


BAD_ITEMS = [
    (item("brushlabels", {"format": "rle", "rle": [1, 2], "brushlabels": ["cat"]}), "a brushlabels is not read"),
    (item("ellipselabels", {"x": 1, "y": 1, "radiusX": 2, "ellipselabels": ["cat"]}), "a ellipselabels is not read"),
    (item("choices", {"choices": ["a", "b"]}), "it is 2 at once"),
    (item("rectanglelabels", {"x": 1, "y": "2", "rectanglelabels": ["cat"]}), "not four numbers"),
    (item("rectanglelabels", {**RECTANGLE, "width": 0, "rectanglelabels": ["cat"]}), "no area in the image"),
    (item("rectanglelabels", {**RECTANGLE, "rectanglelabels": "cat"}), "its labels are 'cat'"),
    (item("rectanglelabels", {**RECTANGLE, "rectanglelabels": [" "]}), "neither a label nor a text"),
    (item("polygonlabels", {"points": [[1, 2], [3, 4]], "polygonlabels": ["cat"]}), "three or more pairs"),
    (item("polygonlabels", {"points": [[1, 1], [3, 3], [4, 4]], "polygonlabels": ["cat"]}), "no area in the image"),
    (item("polygonlabels", {"points": 5, "polygonlabels": ["cat"]}), "three or more pairs"),
    (item("rectanglelabels", None), "it has no value"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_ITEMS)
def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path, bad: dict[str, Any], said: str) -> None:
    path = export(tmp_path / "a.json", [labelled(id="good"), bad])
    problems: list[str] = []
    (sample,) = read(path, on_error=problems.append)
    assert [len(a.regions) for a in sample.annotations] == [1]
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, task 17, ")
    assert said in problems[0]


BAD_TASKS = [
    (5, "not a task"),
    ({"annotations": []}, "it has no 'data'"),
    ({"image": "a.jpg", "label": [], "annotator": 1, "annotation_id": 2}, "export as JSON, not JSON-MIN"),
    ({"data": {"text": "no picture"}, "annotations": []}, "its data name no image"),
    ({"data": {"image": "a.jpg"}, "annotations": {}, "predictions": 7}, "its predictions are 7"),
    ({"data": {"image": "a.jpg"}, "annotations": [{"result": ["x"]}]}, "'result' in its annotations"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_TASKS)
def test_bad_tasks_are_left_out_and_named(tmp_path: Path, bad: Any, said: str) -> None:
    path = export(tmp_path / "a.json", [labelled()])
    path.write_text(json.dumps([bad, *json.loads(path.read_text())]))
    problems: list[str] = []
    assert len(list(read(path, "label_studio", on_error=problems.append))) == 1
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, record 1, is left out: ")
    assert said in problems[0]


def everything(source: str, score: float | None = None) -> tuple[Annotation, ...]:
    """Every answer that Label Studio can hold, as they are read back."""
    cat, dog = Region.box(10, 20.5, 30, 40, label="cat", score=0.5), Region.box(0, 0, 200, 100, label='"dog" & <x>')
    mask = Region("polygon", (((10.0, 20.5), (30.0, 21.0), (30.0, 40.0)), ((12.0, 33.0), (19.0, 33.0), (15.0, 35.0))))
    quad = Region("quad", (((1.0, 1.0), (20.0, 2.0), (20.0, 9.0), (1.0, 8.0)),))
    said = (
        Annotation("<OD>", regions=(cat, dog)),
        Annotation("<REGION_TO_SEGMENTATION>", regions=(replace(mask, label="cat"),), query=Region("box", cat.parts)),
        Annotation("<OCR_WITH_REGION>", regions=(replace(quad, label="é, 猫"),)),
        Annotation("<OCR>", "é, 猫"),
        Annotation(IGNORED, regions=(quad,), query="<OCR_WITH_REGION>"),
        Annotation("<CAPTION>", "a cat"),
        Annotation("<CAPTION>", "a dog"),
        Annotation("<DETAILED_CAPTION>", "a cat\non a dog"),
        Annotation("<CLASSIFICATION>", "cat", query="cat<and>dog"),
    )
    return tuple(replace(annotation, source=source, score=score) for annotation in said)


def test_round_trip(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100), "red").save(tmp_path / "a b%.png")
    picture = str(tmp_path / "a b%.png")
    nothing = tuple(Annotation(task, source="human") for task in ("<OD>", "<OCR_WITH_REGION>", "<OCR>"))
    dog = Annotation("<CLASSIFICATION>", "dog", query="cat<and>dog", source="human")
    samples = [
        Sample(image_id(picture), picture, (200.0, 100.0), (*everything("human"), *everything("tiny@1", 0.75))),
        Sample("id-2", "https://example.com/b.png", (200.0, 100.0), (*nothing, dog)),
    ]
    write(tmp_path / "tasks.json", samples, "label_studio")
    problems: list[str] = []
    assert list(read(tmp_path / "tasks.json", on_error=problems.append)) == samples
    assert problems == []


def test_the_tasks_are_what_label_studio_imports(tmp_path: Path) -> None:
    sample = Sample("id", str(tmp_path / "a.png"), (200.0, 100.0), (*everything("human:7"), *everything("tiny", 0.5)))
    write(tmp_path / "tasks.json", [sample], "label_studio")
    (task,) = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert task["data"] == {"image": "/data/local-files/?d=a.png", "sample_id": "id"}
    assert [set(answer) for answer in task["annotations"]] == [{"result"}]
    assert [(p["model_version"], p["score"]) for p in task["predictions"]] == [("tiny", 0.5)]
    view = ET.parse(tmp_path / "tasks.xml").getroot()
    assert label_config([sample]) == (tmp_path / "tasks.xml").read_text().strip()
    (image,) = view.findall("Image")
    assert (image.get("name"), image.get("value")) == ("image", "$image")
    controls = {tag.get("name"): tag for tag in view if tag is not image}
    items = [one for answer in (*task["annotations"], *task["predictions"]) for one in answer["result"]]
    assert {one["from_name"] for one in items} == controls.keys()
    for one in items:
        control, value = controls[one["from_name"]], one["value"]
        assert (control.tag.lower(), control.get("toName")) == (one["type"], one["to_name"])
        assert set(value.get(one["type"], [])) <= {child.get("value") for child in control}
        numbers = [value[name] for name in ("x", "y", "width", "height") if name in value]
        numbers += [number for point in value.get("points", []) for number in point]
        assert all(0 <= number <= 100 for number in numbers)
    places = [one["id"] for one in items if one["type"] in ("rectanglelabels", "polygonlabels")]
    assert len(set(places)) == len(places)
    assert {one.get("parentID") for one in items} - {None} <= set(places)


def test_what_label_studio_cannot_hold(tmp_path: Path) -> None:
    quad = Region("quad", (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),), "a")
    for regions, said in (((quad,), "its <OD> has a quad"), ((Region.box(0, 0, 1, 1),), "a box without a label")):
        with pytest.raises(OpenFlorenceError, match=rf"a\.png cannot be written for Label Studio: .*{said}"):
            write(
                tmp_path / "a.json",
                [Sample("", "a.png", (4.0, 4.0), (Annotation("<OD>", "", regions),))],
                "label_studio",
            )
    assert list(tmp_path.iterdir()) == []


def test_no_samples_are_an_empty_list(tmp_path: Path) -> None:
    write(tmp_path / "a.json", [], "label_studio")
    assert json.loads((tmp_path / "a.json").read_text()) == []
