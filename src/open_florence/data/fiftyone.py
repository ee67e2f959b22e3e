"""Samples as FiftyOne's, to look through and filter in its app, and back.

Every annotation becomes a field of the sample: boxes as Detections, quads and polygons as Polylines, a text without
regions as a Classification. All that FiftyOne has no place for (task, source, query, ...) stands in attributes of the
label, so that what was written comes back the same. FiftyOne's places are fractions of the image's sides.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from open_florence.data.records import box_within, identify
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import clip, region_box
from open_florence.schema import Annotation, Kind, Region, Sample, Size

ATTRIBUTES = tuple(field.name for field in fields(Annotation) if field.name != "regions")
"""What is kept of an annotation beside its regions, each under its own name."""
REGION_ATTRIBUTES = ("label_score", "span")


def to_fiftyone(samples: Iterable[Sample]) -> list[Any]:
    """A fo.Sample for each sample, for `dataset.add_samples`.

    Fields are called after the task, "od", "ocr_with_region_shapes" for outlines, "caption_text" for texts, and from
    the second of a task on "od_2", ... Raises OpenFlorenceError without FiftyOne, or for a sample that is no image.
    """
    fo = _library()
    return [_to_sample(fo, sample) for sample in samples]


def from_fiftyone(dataset: Iterable[Any], on_error: Callable[[str], object] = warnings.warn) -> Iterator[Sample]:
    """The samples of a FiftyOne data set, or view, one after the other, whoever made it.

    Labels that are not ours: Detections are <OD>; each closed polyline is <REGION_TO_SEGMENTATION> of the box around
    it; Classifications are <CLASSIFICATION> among all labels of the field. Their source is the name of the field,
    "human" for ground_truth. Other fields are passed over. Places are cut at the image's edge; `on_error` is told of
    samples whose image is missing or cannot be read, and of labels without area.
    """
    fo = _library()
    classes: dict[str, str] = {}
    for found in dataset:
        path = Path(found.filepath)
        try:
            identity, size = _identity(found, path)
        except (OSError, ValueError) as error:
            on_error(f"{path} is left out: {error}")
            continue
        annotations: list[Annotation] = []
        for name in found.field_names:
            label = found[name]
            if isinstance(label, fo.Classification) and not hasattr(label, "task") and name not in classes:
                classes[name] = "<and>".join(_classes(dataset, name))
            for problem in _take(fo, annotations, name, label, size, classes.get(name)):
                on_error(f"{path}, {name}, {problem}")
        yield Sample(identity, str(path), size, tuple(annotations))


def _to_sample(fo: Any, sample: Sample) -> Any:
    if len(sample.size) != 2:
        raise OpenFlorenceError(f"{sample.path} is no image, so it is nothing for FiftyOne")
    width, height = (round(side) for side in sample.size)
    made = fo.Sample(filepath=sample.path, metadata=fo.ImageMetadata(width=width, height=height))
    made["sample_id"] = sample.id
    used: dict[str, int] = {}
    for annotation in sample.annotations:
        name = re.sub(r"\W+", "_", annotation.task).strip("_").lower() or "answer"
        kinds = {region.kind for region in annotation.regions}
        name += "_text" if annotation.text and not kinds else "_shapes" if kinds - {"box"} else ""
        used[name] = used.get(name, 0) + 1
        made[name if used[name] == 1 else f"{name}_{used[name]}"] = _to_label(fo, annotation, kinds, sample.size)
    return made


def _to_label(fo: Any, annotation: Annotation, kinds: set[Kind], size: Size) -> Any:
    told = replace(annotation, regions=()).to_json()
    if annotation.text and not kinds:
        beside = {name: value for name, value in told.items() if name not in ("text", "score")}
        return fo.Classification(label=annotation.text, confidence=annotation.score, **beside)
    if kinds <= {"box"}:
        return fo.Detections(detections=[_to_detection(fo, region, size) for region in annotation.regions], **told)
    return fo.Polylines(polylines=[_to_polyline(fo, region, size) for region in annotation.regions], **told)


def _to_detection(fo: Any, region: Region, size: Size) -> Any:
    (x1, y1), (x2, y2) = ((x / size[0], y / size[1]) for x, y in region.parts[0])
    box = [x1, y1, x2 - x1, y2 - y1]
    return fo.Detection(label=region.label, bounding_box=box, confidence=region.score, **_told(region))


def _to_polyline(fo: Any, region: Region, size: Size) -> Any:
    if region.kind == "box":
        x1, y1, x2, y2 = region_box(region.parts).tolist()
        region = replace(region, kind="quad", parts=(((x1, y1), (x2, y1), (x2, y2), (x1, y2)),))
    points = [[(x / size[0], y / size[1]) for x, y in part] for part in region.parts]
    return fo.Polyline(
        label=region.label,
        points=points,
        closed=True,
        filled=region.kind == "polygon",
        confidence=region.score,
        kind=region.kind,
        **_told(region),
    )


def _told(region: Region) -> dict[str, Any]:
    record = region.to_json()
    return {name: record[name] for name in REGION_ATTRIBUTES if name in record}


def _identity(found: Any, path: Path) -> tuple[str, Size]:
    """The id and size of a sample: as it says, or else of its image."""
    metadata = found.metadata
    width, height = getattr(metadata, "width", None), getattr(metadata, "height", None)
    said = (float(width), float(height)) if width and height else None
    if said and "sample_id" in found.field_names and found["sample_id"]:
        return str(found["sample_id"]), said
    return identify(path if path.is_file() else None, said, path.stem)


def _classes(dataset: Any, field: str) -> list[str]:
    if hasattr(dataset, "distinct"):
        return [str(label) for label in dataset.distinct(f"{field}.label")]
    labels = (sample[field] for sample in dataset if field in sample.field_names)
    return sorted({label.label for label in labels if label is not None})


def _take(
    fo: Any, annotations: list[Annotation], name: str, label: Any, size: Size, classes: str | None
) -> Iterator[str]:
    """Adds what a field says to `annotations`; yields what cannot be read of it."""
    if not isinstance(label, fo.Detections | fo.Polylines | fo.Classification):
        return
    told = {key: _plain(value) for key in ATTRIBUTES if (value := getattr(label, key, None)) is not None}
    ours = Annotation.from_json(told) if "task" in told else None
    source = "human" if name == "ground_truth" else name
    if isinstance(label, fo.Classification):
        said = ours or Annotation("<CLASSIFICATION>", query=classes, source=source)
        annotations.append(replace(said, text=label.label, score=label.confidence))
        return
    regions: list[Region] = []
    outlines = isinstance(label, fo.Polylines)
    for number, thing in enumerate(label.polylines if outlines else label.detections, start=1):
        try:
            regions.append(_outline(thing, size) if outlines else _box(thing, size))
        except ValueError as error:
            yield f"label {number}, is left out: {error}"
    if ours or not outlines:
        annotations.append(replace(ours or Annotation("<OD>", source=source), regions=tuple(regions)))
        return
    for region in regions:
        query = Region.box(*region_box(region.parts).tolist())
        annotations.append(Annotation("<REGION_TO_SEGMENTATION>", regions=(region,), query=query, source=source))


def _box(thing: Any, size: Size) -> Region:
    x, y, width, height = thing.bounding_box
    corners = (x * size[0], y * size[1], (x + width) * size[0], (y + height) * size[1])
    x1, y1, x2, y2 = (round(value, 6) for value in corners)
    region = box_within(size, (x1, y1, x2, y2), thing.label or "", f"the box of its {thing.label}")
    return _scored(region, thing)


def _outline(thing: Any, size: Size) -> Region:
    parts = [[(round(x * size[0], 6), round(y * size[1], 6)) for x, y in part] for part in thing.points]
    if not thing.closed or not all(len(part) >= 3 for part in parts) or not parts:
        raise ValueError("it is a line, not an outline")
    inside = tuple(tuple((x, y) for x, y in clip(part, size).tolist()) for part in parts)
    kind: Kind = "quad" if getattr(thing, "kind", None) == "quad" and len(inside[0]) == 4 else "polygon"
    return _scored(Region(kind, inside, thing.label or ""), thing)


def _scored(region: Region, thing: Any) -> Region:
    """A region with the scores and the span of a label."""
    span = getattr(thing, "span", None)
    return replace(
        region,
        score=thing.confidence,
        label_score=getattr(thing, "label_score", None),
        span=None if span is None else (int(span[0]), int(span[1])),
    )


def _plain(value: Any) -> Any:
    """A value as JSON has it, of the lists and dicts that FiftyOne watches for changes."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _library() -> Any:
    try:
        import fiftyone
    except ImportError as error:
        raise OpenFlorenceError("FiftyOne is not there: pip install 'open-florence[fiftyone]'") from error
    return fiftyone
