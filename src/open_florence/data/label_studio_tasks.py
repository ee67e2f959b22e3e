"""Samples as Label Studio's tasks: what people said as annotations, what models said as predictions to correct.

The inverse of `label_studio`, and the labelling configuration that a project needs for these tasks. Controls are called
after their task.
"""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from open_florence.data.icdar import TASK as OCR_TASK
from open_florence.data.icdar import reading_text
from open_florence.data.ignored import ignored_regions
from open_florence.data.jsonl import write_whole
from open_florence.data.label_studio import TEXT_TASKS
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_to_polygon, clip, region_box
from open_florence.schema import Annotation, Region, Sample, Size

TEXT, ILLEGIBLE = "text", "illegible"
"""The labels of places with text, so that they have a colour."""


def write_label_studio(path: Path, samples: Iterable[Sample]) -> None:
    """Writes a .json file of tasks to import, and beside it, as .xml, the labelling configuration of the project.

    Written are <OD>, <REGION_TO_SEGMENTATION> of labelled polygons, <OCR_WITH_REGION> with its `IGNORED`, <OCR>,
    captions and <CLASSIFICATION>; answers to other tasks are not. What a "human..." said becomes an annotation, without
    a name, for Label Studio refuses those it does not know; anything else a prediction whose model version is the
    source and whose score is the mean of the answers' scores. Images on this machine are /data/local-files/ below the
    folder of `path`, or below the root where they are elsewhere: Label Studio's LOCAL_FILES_DOCUMENT_ROOT has to be
    that. Raises OpenFlorenceError for a region without a label, or of a kind its task does not have.
    """
    controls = _Controls()
    write_whole(path, _lines(samples, path.parent, controls))
    write_whole(path.with_suffix(".xml"), [controls.xml().encode(), b"\n"])


def label_config(samples: Iterable[Sample]) -> str:
    """The labelling configuration (XML) of a project for these samples: their labels, texts and choices."""
    controls = _Controls()
    for sample in samples:
        _task(sample, Path("."), controls)
    return controls.xml()


class _Controls:
    """The labels and choices that tasks make use of, in the order they come."""

    def __init__(self) -> None:
        self.labels: dict[str, dict[str, None]] = {}

    def use(self, control: str, *labels: str) -> str:
        """Notes a control and its labels; returns the control."""
        self.labels.setdefault(control, {}).update(dict.fromkeys(labels))
        return control

    def xml(self) -> str:
        """The configuration of all that was noted."""
        view = ET.Element("View")
        ET.SubElement(view, "Image", name="image", value="$image")
        for control, labels in self.labels.items():
            tag, part = _TAGS.get(control, ("TextArea", ""))
            element = ET.SubElement(view, tag, name=control, toName="image")
            for label in labels:
                ET.SubElement(element, part, value=label)
            if tag == "TextArea":
                element.attrib |= {"editable": "true", "rows": "3"}
            if control == "transcription":
                element.attrib |= {"perRegion": "true", "displayMode": "region-list"}
        ET.indent(view)
        return ET.tostring(view, encoding="unicode")


_TAGS = {
    "od": ("RectangleLabels", "Label"),
    "region_to_segmentation": ("PolygonLabels", "Label"),
    "ocr_with_region": ("PolygonLabels", "Label"),
    "classification": ("Choices", "Choice"),
}
"""Control -> its tag, and the tag of what can be chosen in it; any other is a text."""


def _lines(samples: Iterable[Sample], folder: Path, controls: _Controls) -> Iterator[bytes]:
    before = b"[\n"
    for sample in samples:
        yield before + json.dumps(_task(sample, folder, controls), ensure_ascii=False).encode()
        before = b",\n"
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _task(sample: Sample, folder: Path, controls: _Controls) -> dict[str, Any]:
    task: dict[str, Any] = {"data": {"image": _reference(sample.path, folder), "sample_id": sample.id}}
    numbers = count(1)
    for source in dict.fromkeys(annotation.source for annotation in sample.annotations):
        said = [annotation for annotation in sample.annotations if annotation.source == source]
        result = _Result(sample.size, controls, numbers)
        try:
            result.take(said)
        except ValueError as error:
            raise OpenFlorenceError(f"{sample.path} cannot be written for Label Studio: {error}") from None
        if source.startswith("human"):
            task.setdefault("annotations", []).append({"result": result.items})
            continue
        scores = [annotation.score for annotation in said if annotation.score is not None]
        score = {"score": sum(scores) / len(scores)} if scores else {}
        prediction = {"model_version": source or "model", **score, "result": result.items}
        task.setdefault("predictions", []).append(prediction)
    return task


class _Result:
    """What one source said about an image, item by item."""

    def __init__(self, size: Size, controls: _Controls, numbers: Iterator[int]) -> None:
        self.items: list[dict[str, Any]] = []
        self._size = size
        self._controls = controls
        self._numbers = numbers

    def take(self, said: list[Annotation]) -> None:
        """Adds all that Label Studio can hold. Raises ValueError for a region that its task cannot have."""
        boxes: dict[Any, str] = {}  # place of a box -> id of its item
        texts: dict[str, list[str]] = {}
        for annotation in said:
            if annotation.task == "<OD>":
                self._controls.use("od")
                boxes |= {region.parts: self._box(region) for region in annotation.regions}
            elif annotation.task == OCR_TASK:
                self._read(annotation.regions)
            elif annotation.task in TEXT_TASKS:
                texts.setdefault(annotation.task, []).append(annotation.text)
        for annotation in said:
            if annotation.task == "<REGION_TO_SEGMENTATION>" and isinstance(annotation.query, Region):
                self._masks(annotation.regions, boxes.get(annotation.query.parts))
        for region in ignored_regions(said, OCR_TASK):
            self._outline("ocr_with_region", region, ILLEGIBLE)
        seen = [reading_text(annotation.regions) for annotation in said if annotation.task == OCR_TASK]
        for task, written in texts.items():
            if task != "<OCR>" or written != seen:  # the text of the regions in their order goes without saying
                self._add(self._controls.use(task.strip("<>").lower()), "textarea", {"text": written})
        for annotation in said:
            if annotation.task == "<CLASSIFICATION>" and isinstance(annotation.query, str):
                control = self._controls.use("classification", *annotation.query.split("<and>"), annotation.text)
                self._add(control, "choices", {"choices": [annotation.text]})

    def _box(self, region: Region) -> str:
        if region.kind != "box":
            raise ValueError(f"its <OD> has a {region.kind}")
        label = _label(region)
        (x1, y1), (x2, y2) = self._percent(region.parts[0])
        place = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}
        control = self._controls.use("od", label)
        return self._add(control, "rectanglelabels", {**place, "rectanglelabels": [label]}, region.score)

    def _read(self, regions: tuple[Region, ...]) -> None:
        for region in regions:
            number, points = self._outline("ocr_with_region", region, TEXT)
            value = {"points": points, "text": [_label(region)]}
            self._add(self._controls.use("transcription"), "textarea", value, id=number)

    def _masks(self, regions: tuple[Region, ...], box: str | None) -> None:
        for region in regions:
            if len(region.parts) > 1 and box is None:
                raise ValueError("a mask in several parts has no box in <OD> that holds them together")
            for part in region.parts:
                self._outline("region_to_segmentation", replace(region, parts=(part,)), _label(region), box)

    def _outline(
        self, control: str, region: Region, label: str, parent: str | None = None
    ) -> tuple[str, list[list[float]]]:
        """Adds a polygon; returns its id and its points in percent."""
        corners = box_to_polygon(region_box(region.parts)).tolist() if region.kind == "box" else region.parts[0]
        points = self._percent(corners)
        value = {"points": points, "closed": True, "polygonlabels": [label]}
        within = {"parentID": parent} if parent else {}
        return self._add(self._controls.use(control, label), "polygonlabels", value, region.score, **within), points

    def _percent(self, points: Sequence[Sequence[float]]) -> list[list[float]]:
        """Points in the image as percentages of its sides."""
        return [[min(v / s * 100, 100.0) for v, s in zip(p, self._size, strict=True)] for p in clip(points, self._size)]

    def _add(self, control: str, kind: str, value: dict[str, Any], score: float | None = None, **more: str) -> str:
        number = more.pop("id", "") or f"r{next(self._numbers)}"
        self.items.append(
            {
                "id": number,
                "from_name": control,
                "to_name": "image",
                "type": kind,
                "original_width": round(self._size[0]),
                "original_height": round(self._size[1]),
                "image_rotation": 0,
                "value": value,
                **more,
                **({} if score is None else {"score": score}),
            }
        )
        return number


def _label(region: Region) -> str:
    if not region.label.strip():
        raise ValueError(f"it has a {region.kind} without a label")
    return region.label.strip()


def _reference(path: str, folder: Path) -> str:
    """What Label Studio calls an image: addresses stay, files become local files."""
    if "://" in path or path.startswith("/data/"):
        return path
    absolute, root = os.path.abspath(path), os.path.abspath(folder)
    if os.path.isabs(path) or os.path.isfile(path):
        path = os.path.relpath(absolute, root) if absolute.startswith(root + os.sep) else absolute
    return "/data/local-files/?d=" + quote(path)
