"""YOLO: a text file an image, a line an object, in the layouts of ultralytics (docs.ultralytics.com/datasets).

    0 0.5 0.4 0.2 0.1                     class, centre and size of a box, as shares of the image
    0 0.41 0.35 0.6 0.35 0.5 0.45         class, then the points of a polygon: three or more
    0 0.5 0.4 0.2 0.1 0.87                either with a last column more: a prediction and its score

What the classes are called stands in data.yaml (which also says where the images of train, val and test are), or a line
each in classes.txt or obj.names. An image's labels are where ultralytics looks for them: in the folder that has
"labels" for the last "images" of its path, or else in labels/ beside the image, or beside it. An image without such a
file shows nothing, as ultralytics has it. Of pose data (`kpt_shape` in data.yaml) the boxes are read.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from open_florence.data.instances import Parts, detection_annotation, mask_annotation
from open_florence.data.records import box_within, identify
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import clip, polygon_to_box
from open_florence.images import list_images
from open_florence.schema import Annotation, Region, Sample, Size

CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names", "predefined_classes.txt")
"""Where the names of the classes are looked for in a folder without data.yaml."""
PARTS = ("train", "val", "test")
SLACK = 0.01
"""How far outside the image a point may be, as a share of it, before its line is held to be no YOLO."""


def read_yolo(path: Path, on_error: Callable[[str], object], part: str = "") -> Iterator[Sample]:
    """One sample per image of a data.yaml, or of the folder of one or of a classes.txt: one <OD> by "human".

    A polygon is a box and the <REGION_TO_SEGMENTATION> of that box. Points are in pixels, cut at the image's edge.
    `part` is "train", "val" or "test"; all of them if not given, an image in two of them once. `on_error` is told of
    lines, files of labels and images left out. Raises OpenFlorenceError when the names of the classes cannot be read.
    """
    layout = _layout(path)
    seen: set[str] = set()
    labelled: dict[Path, set[str]] = defaultdict(set)  # folder of labels -> names of the files that an image has
    for image in _images(layout, part, on_error):
        if (name := os.path.realpath(image)) in seen:
            continue
        seen.add(name)
        labels = _labels_of(image)
        if labels is not None:
            labelled[labels.parent].add(labels.name)
        try:
            yield _sample(image, labels, layout, on_error)
        except (OSError, ValueError) as error:
            on_error(f"{image} is left out: {error}")
    if seen and not labelled:
        on_error(f"none of the {len(seen)} images of {path} has a file of labels")
    for folder, names in labelled.items() if not part else ():
        if "labels" in folder.parts:
            for name in sorted({file.name for file in folder.glob("*.txt")} - names - set(CLASS_FILES)):
                on_error(f"{folder / name} is left out: there is no image for it")


def looks_like_yolo(path: Path) -> bool:
    """Whether a path is a .yaml file with names, or a folder that holds one or a list of classes."""
    return _class_file(path) is not None


@dataclass(frozen=True)
class _Layout:
    """What is said about a data set as a whole."""

    folder: Path
    names: dict[int, str]
    parts: dict[str, list[str]]
    """Part -> the folders of its images, or lists of them, as data.yaml has them."""
    keypoints: bool = False


def _class_file(path: Path) -> Path | None:
    """The file that names the classes of a data set: a data.yaml before any other."""
    for file in [path] if path.is_file() else sorted(path.glob("*.y*ml"), key=lambda file: file.name != "data.yaml"):
        if file.suffix in (".yaml", ".yml") and _has_names(file):
            return file
    return next((path / name for name in CLASS_FILES if (path / name).is_file()), None)


def _has_names(file: Path) -> bool:
    try:
        with file.open("rb") as head:
            return re.search(rb"^names\s*:", head.read(1 << 20), re.MULTILINE) is not None
    except OSError:
        return False


def _layout(path: Path) -> _Layout:
    file = _class_file(path)
    if file is None:
        looked = ", ".join(("data.yaml", *CLASS_FILES))
        raise OpenFlorenceError(f"{path} does not say what its classes are called: there is none of {looked}")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix not in (".yaml", ".yml"):
            names = {number: name.strip() for number, name in enumerate(text.splitlines()) if name.strip()}
            return _Layout(path, names, {})
        document = yaml.safe_load(text)
        return _of_yaml(file, document)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OpenFlorenceError(f"{file} cannot be read as YOLO's: {' '.join(str(error).split())}") from error


def _of_yaml(file: Path, document: Any) -> _Layout:
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise ValueError("its names are neither a list nor a table")
    root = file.parent / str(document.get("path") or ".")
    parts = {}
    for part in PARTS:
        given = document.get(part)
        if given:
            parts[part] = [str(source) for source in (given if isinstance(given, list) else [given])]
    folder = root if root.is_dir() else file.parent  # `path` is often that of another computer
    return _Layout(folder, {int(k): str(name).strip() for k, name in names.items()}, parts, "kpt_shape" in document)


def _images(layout: _Layout, part: str, on_error: Callable[[str], object]) -> Iterator[Path]:
    if part and part not in layout.parts:
        raise OpenFlorenceError(f"{layout.folder} has no part {part!r}; it has {', '.join(layout.parts) or 'none'}")
    if not layout.parts:
        folder = layout.folder / "images"
        yield from list_images(folder if folder.is_dir() else layout.folder)
    for name in [part] if part else layout.parts:
        for given in layout.parts[name]:
            # Roboflow writes ../train/images for what is in train/images.
            places = [layout.folder / given, layout.folder / given.removeprefix("../")]
            source = next((place for place in places if place.exists()), None)
            try:
                if source is None:
                    on_error(f"{layout.folder} lacks {given}, the images of {name}")
                elif source.is_dir():
                    yield from list_images(source)
                else:
                    yield from _listed(source)
            except (OSError, ValueError) as error:
                on_error(f"{source}, the images of {name}, is left out: {error}")


def _listed(file: Path) -> Iterator[Path]:
    """The images of a list, a path a line, those that are relative from the folder of the list."""
    with file.open(encoding="utf-8-sig") as lines:
        for line in lines:
            if line.strip():
                yield Path(os.path.normpath(file.parent / line.strip()))


def _labels_of(image: Path) -> Path | None:
    """The file of an image's labels; None where there is none."""
    folders = [image.parent, image.parent / "labels"]
    parts = image.parts
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        folders.insert(0, Path(*parts[:last], "labels", *parts[last + 1 : -1]))
    files = (folder / f"{image.stem}.txt" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _sample(image: Path, labels: Path | None, layout: _Layout, on_error: Callable[[str], object]) -> Sample:
    identity, size = identify(image, None, image.stem)
    boxes: list[Region] = []
    masks: list[Annotation] = []
    for number, line in enumerate(_lines(labels, on_error), start=1):
        if not line.strip():
            continue
        try:
            box, parts = _object(line, layout, size)
        except ValueError as error:
            on_error(f"{labels}, line {number}, is left out: {error}")
            continue
        boxes.append(box)
        if parts:
            masks.append(mask_annotation(box, parts))
    return Sample(identity, str(image), size, (detection_annotation(boxes), *masks))


def _lines(labels: Path | None, on_error: Callable[[str], object]) -> list[str]:
    """The lines of a file of labels. Raises ValueError, so that the image is left out, where it is no text."""
    if labels is None:
        return []
    try:
        return labels.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise ValueError(f"its labels, {labels}, cannot be read: {error}") from error


def _object(line: str, layout: _Layout, size: Size) -> tuple[Region, Parts]:
    """The box of a line and its polygon, if it is one. Raises ValueError saying what is wrong with the line."""
    number, values, score = _numbers(line, layout.keypoints)
    label = layout.names.get(number, "")
    if not label:
        raise ValueError(f"there is no class {number}; the classes go from 0 to {max(layout.names)}")
    if len(values) == 4:
        x, y, width, height = (value * size[i % 2] for i, value in enumerate(values))
        box = box_within(size, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), label, "its box")
        parts: Parts = ()
    else:
        points = clip(np.reshape(values, (-1, 2)) * size, size)  # (P, 2)
        x1, y1, x2, y2 = polygon_to_box(points).tolist()
        box = box_within(size, (x1, y1, x2, y2), label, "the box of its polygon")
        parts = (tuple(map(tuple, points.tolist())),)
    return Region(box.kind, box.parts, label, score), parts


def _numbers(line: str, keypoints: bool) -> tuple[int, list[float], float | None]:
    """The class of a line; the four numbers of a box, or six and more of a polygon; and the score, if there is one."""
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise ValueError(f"it is not numbers alone: {line.strip()[:80]!r}") from None
    if not all(map(math.isfinite, (number, *values))) or number != int(number) or number < 0:
        raise ValueError(f"its numbers are not a class and places: {line.strip()[:80]!r}")
    if keypoints and len(values) > 5:
        values = values[:4]
    score = values.pop() if len(values) % 2 else None
    if len(values) < 4:
        raise ValueError(f"it has {len(values)} numbers after its class, not 4 of a box or 6 and more of a polygon")
    outside = next((value for value in values if not -SLACK <= value <= 1 + SLACK), None)
    if outside is not None:
        raise ValueError(f"{outside:g} is not a share of the image, 0 to 1")
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"its score is {score:g}, not 0 to 1")
    return int(number), values, score
