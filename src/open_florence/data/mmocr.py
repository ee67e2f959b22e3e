"""Text in MMOCR's JSON: {"metainfo": ..., "data_list": [{"img_path", "width", "height", "instances": [...]}]}.

An instance has a `polygon` [x1, y1, x2, y2, ...] in pixels, `ignore` for text nobody can read, and `text` unless the
file is for detection alone (MMOCR 1.x, its user guide on data sets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from open_florence.data.icdar import TASK, quad_region, text_annotations
from open_florence.data.ignored import ignored_annotation
from open_florence.data.json_items import json_items
from open_florence.data.json_stream import stream
from open_florence.data.records import find_image, identify
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import clip, polygon_area
from open_florence.schema import Annotation, Region, Sample, Size

NAMES = ("textdet.json", "textspotting.json")
"""What the file is called when a folder is given."""
DETECTION = "<OPEN_VOCABULARY_DETECTION>"
IMAGE_FOLDERS = (".", "images", "img", "imgs")
"""Where images are looked for, from the file's folder, as `img_path` has them and then by name alone."""


def read_mmocr(path: Path, on_error: Callable[[str], object]) -> Iterator[Sample]:
    """One sample per image of a .json file, or of a folder that holds one of `NAMES`; annotations are by "human".

    With transcripts: <OCR_WITH_REGION> and <OCR>, as `read_icdar` gives them. Without: <OPEN_VOCABULARY_DETECTION> of
    "text", polygons. Ignored instances are `IGNORED` for that task. `on_error` is told of records and instances that
    are left out, by number.
    """
    file = path if path.is_file() else _file_in(path)
    if file is None:
        raise OpenFlorenceError(f"{path} holds none of {', '.join(NAMES)}")
    for number, record in json_items(file, "data_list", on_error):
        try:
            yield _sample(record, file.parent, f"{file}, record {number}", on_error)
        except (OSError, ValueError) as error:
            on_error(f"{file}, record {number}, is left out: {error}")


def looks_like_mmocr(path: Path) -> bool:
    """Whether a folder holds one of `NAMES`, or a .json file begins with a key of this format."""
    if path.is_dir():
        return _file_in(path) is not None
    if path.suffix != ".json":
        return False
    try:
        return next(stream(path, 4096), ("", None))[0] in ("metainfo", "data_list")
    except (OSError, ValueError):
        return False


def _file_in(folder: Path) -> Path | None:
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def _sample(record: Any, folder: Path, place: str, on_error: Callable[[str], object]) -> Sample:
    instances = record.get("instances") if isinstance(record, dict) else None
    if not isinstance(instances, list) or not isinstance(record.get("img_path"), str):
        raise ValueError("it has no 'img_path' with a list of 'instances'")
    name = record["img_path"]
    sides = [record.get("width"), record.get("height")]
    said = (float(sides[0]), float(sides[1])) if all(_is_number(side) and side > 0 for side in sides) else None
    image = find_image([folder / inner for inner in IMAGE_FOLDERS], name, name.rpartition("/")[2])
    identity, size = identify(image, said, name)
    read = any(isinstance(instance, dict) and "text" in instance for instance in instances)
    seen: list[Region] = []
    ignored: list[Region] = []
    for number, instance in enumerate(instances, start=1):
        try:
            region = _region(instance, size, read)
        except ValueError as error:
            on_error(f"{place}, instance {number}, is left out: {error}")
            continue
        (seen if region.label else ignored).append(region)
    task = TASK if read else DETECTION
    found = text_annotations(seen) if read else (Annotation(task, regions=tuple(seen), query="text", source="human"),)
    return Sample(identity, str(image or folder / name), size, (*found, *ignored_annotation(task, ignored)))


def _region(instance: Any, size: Size, read: bool) -> Region:
    """A quad with its text, or a polygon labelled "text"; no label where the instance is ignored."""
    flat = instance.get("polygon") if isinstance(instance, dict) else None
    if not isinstance(flat, list) or len(flat) < 6 or len(flat) % 2 or not all(map(_is_number, flat)):
        raise ValueError(f"its polygon is not x and y of three points or more: {flat!r:.80}")
    points = list(zip(flat[::2], flat[1::2], strict=True))
    text = str(instance.get("text", "")).strip() if read else "text"
    label = "" if instance.get("ignore") else text
    if not instance.get("ignore") and not text:
        raise ValueError("it has no text, and is not to be ignored")
    if len(points) == 4 and read:
        return quad_region(points, label, size)
    if read and label:
        raise ValueError(f"the outline of {text!r} has {len(points)} points, not the four of a quad")
    corners = clip(points, size)  # (P, 2)
    if polygon_area(corners) <= 0:
        raise ValueError("its polygon has no area in the image")
    return Region("polygon", (tuple((x, y) for x, y in corners.tolist()),), label)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
