"""Samples as FiftyOne's and back, with a stand-in for its classes: FiftyOne itself needs a database.

The stand-in holds what FiftyOne 1.22 does with these classes: any keyword becomes an attribute, tuples become lists,
fields are set and read by name, and an attribute that was never set is not there.
"""

import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from open_florence.data.fiftyone import from_fiftyone, to_fiftyone
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample


class Label:
    """A label with any attributes; those of `DEFAULTS` are there even when they were not given."""

    DEFAULTS: tuple[str, ...] = ()

    def __init__(self, **attributes: Any) -> None:
        for name in self.DEFAULTS:
            setattr(self, name, None)
        for name, value in attributes.items():
            kept = isinstance(value, Label) or (isinstance(value, list) and value and isinstance(value[0], Label))
            setattr(self, name, value if kept else json.loads(json.dumps(value)))


class ImageMetadata(Label):
    DEFAULTS = ("width", "height")


class Classification(Label):
    DEFAULTS = ("label", "confidence")


class Detection(Label):
    DEFAULTS = ("label", "bounding_box", "confidence")


class Detections(Label):
    DEFAULTS = ("detections",)


class Polyline(Label):
    DEFAULTS = ("label", "points", "confidence", "closed", "filled")


class Polylines(Label):
    DEFAULTS = ("polylines",)


class FiftyOneSample:
    """Fields by name."""

    def __init__(self, filepath: str, metadata: Any = None) -> None:
        self.filepath, self.metadata = filepath, metadata
        self._fields: dict[str, Any] = {"id": None, "filepath": filepath, "tags": [], "metadata": metadata}

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(self._fields)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __setitem__(self, name: str, value: Any) -> None:
        assert name.isidentifier()
        self._fields[name] = value


@pytest.fixture(autouse=True)
def fo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in under FiftyOne's name."""
    module = types.ModuleType("fiftyone")
    for made in (ImageMetadata, Classification, Detection, Detections, Polyline, Polylines):
        setattr(module, made.__name__, made)
    module.Sample = FiftyOneSample  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    return module


BOX = Region("box", (((10.0, 20.0), (30.0, 40.5)),), "cat", 0.5, 0.25, (0, 3))
QUAD = Region("quad", (((1.0, 1.0), (20.0, 2.0), (20.0, 9.0), (1.0, 8.0)),), "größe, 猫", 0.25)
MASK = Region("polygon", (((10.0, 20.0), (30.0, 20.0), (30.0, 40.5)), ((11.0, 21.0), (12.0, 22.0), (11.0, 22.0))))
EVERYTHING = (
    Annotation("<OD>", regions=(BOX,), source="human", round=2),
    Annotation("<OD>", source="tiny", score=0.5),
    Annotation("<CAPTION>", "a cat", source="tiny", score=0.75, complete=False, dropped=3),
    Annotation("<OCR_WITH_REGION>", regions=(QUAD,)),
    Annotation("<REGION_TO_SEGMENTATION>", regions=(MASK,), query=Region.box(0, 0, 5, 5)),
    Annotation("<CAPTION_TO_PHRASE_GROUNDING>", "cat sat", (BOX,), "cat sat", "human"),
    Annotation("What is it?", "a cat"),
)


def test_round_trip() -> None:
    samples = [Sample("id-1", "/photos/a.png", (640.0, 480.0), EVERYTHING), Sample("id-2", "/b.png", (7.0, 5.0))]
    assert list(from_fiftyone(to_fiftyone(samples))) == samples


def test_fields_are_called_after_tasks_and_hold_fractions() -> None:
    (sample,) = to_fiftyone([Sample("id", "/a.png", (40.0, 50.0), EVERYTHING)])
    names = [name for name in sample.field_names if name not in ("id", "filepath", "tags", "metadata", "sample_id")]
    assert names == [
        "od",
        "od_2",
        "caption_text",
        "ocr_with_region_shapes",
        "region_to_segmentation_shapes",
        "caption_to_phrase_grounding",
        "what_is_it_text",
    ]
    (detection,) = sample["od"].detections
    assert detection.bounding_box == [0.25, 0.4, 0.5, pytest.approx(0.41)]
    assert (detection.label, detection.confidence) == ("cat", 0.5)
    assert (sample["caption_text"].label, sample["caption_text"].confidence) == ("a cat", 0.75)
    (line,) = sample["ocr_with_region_shapes"].polylines
    assert line.points[0][1] == [0.5, 0.04]
    assert (sample.metadata.width, sample.metadata.height) == (40, 50)


def test_what_was_corrected_in_the_app_is_read() -> None:
    (sample,) = to_fiftyone([Sample("id", "/a.png", (40.0, 50.0), EVERYTHING)])
    sample["caption_text"].label = "a dog"
    sample["od"].detections[0].label = "dog"
    (back,) = from_fiftyone([sample])
    assert back.annotations[2] == replace(EVERYTHING[2], text="a dog")
    assert back.annotations[0].regions == (replace(BOX, label="dog"),)


def test_labels_of_other_people(tmp_path: Path, fo: Any) -> None:
    Image.new("RGB", (40, 50), "red").save(tmp_path / "a.png")
    first, second = fo.Sample(str(tmp_path / "a.png")), fo.Sample(str(tmp_path / "a.png"))
    box = fo.Detection(label="cat", bounding_box=[0.5, 0.5, 0.25, 0.75])
    first["ground_truth"] = fo.Detections(detections=[box])
    triangle = fo.Polyline(label="dog", points=[[[0, 0], [0.5, 0], [0.5, 0.5]]], closed=True, confidence=0.5)
    first["model"] = fo.Polylines(polylines=[triangle])
    first["place"] = fo.Classification(label="indoors", confidence=0.75)
    second["place"] = fo.Classification(label="garden")
    second["note"] = "passed over"
    problems: list[str] = []
    one, two = from_fiftyone([first, second], problems.append)
    assert problems == []
    assert (one.id, one.size) == (image_id(tmp_path / "a.png"), (40.0, 50.0))
    polygon = Region("polygon", (((0.0, 0.0), (20.0, 0.0), (20.0, 25.0)),), "dog", 0.5)
    query = "garden<and>indoors"
    assert one.annotations == (
        Annotation("<OD>", regions=(Region.box(20, 25, 30, 50, label="cat"),), source="human"),
        Annotation("<REGION_TO_SEGMENTATION>", "", (polygon,), Region.box(0, 0, 20, 25), "model"),
        Annotation("<CLASSIFICATION>", "indoors", (), query, "place", score=0.75),
    )
    assert two.annotations == (Annotation("<CLASSIFICATION>", "garden", (), query, "place"),)


def test_what_cannot_be_read_is_named(fo: Any) -> None:
    gone = fo.Sample("/nowhere/a.png")
    flat = fo.Sample("/nowhere/b.png", fo.ImageMetadata(width=40, height=50))
    flat["found"] = fo.Detections(detections=[fo.Detection(label="cat", bounding_box=[0.5, 0.5, 0, 0.5])])
    flat["lines"] = fo.Polylines(polylines=[fo.Polyline(label="road", points=[[[0, 0], [1, 1]]], closed=False)])
    problems: list[str] = []
    (sample,) = from_fiftyone([gone, flat], problems.append)
    assert sample.annotations == (Annotation("<OD>", source="found"),)
    assert len(problems) == 3
    assert problems[0].startswith("/nowhere/a.png is left out: it says no image size")
    assert problems[1].startswith("/nowhere/b.png, found, label 1, is left out: the box of its cat")
    assert problems[2] == "/nowhere/b.png, lines, label 1, is left out: it is a line, not an outline"


def test_without_fiftyone_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(OpenFlorenceError, match=r"pip install 'open-florence\[fiftyone\]'"):
        to_fiftyone([])


def test_a_series_is_no_image() -> None:
    with pytest.raises(OpenFlorenceError, match=r"a\.csv is no image"):
        to_fiftyone([Sample("id", "a.csv", (3.5,))])
