"""COCO: boxes, masks and captions in one JSON file, or in several about the same images (Lin et al., ECCV 2014).

| in the file | becomes |
|---|---|
| `bbox` and `category_id` | a box of the image's one <OD> annotation |
| `segmentation`: polygons, or runs (RLE) of either form | <REGION_TO_SEGMENTATION>: the box is asked, polygons answer |
| `iscrowd`: 1 | a box of an `IGNORED` annotation: not learnt from, and not judged |
| `caption` | <CAPTION>, an annotation each |
| `score`, as in results | the score of the box |
| `keypoints` | nothing: Florence-2 has no words for them; the boxes of their people are read |

An image that a file with categories lists without an annotation holds none of the categories: its <OD> is empty.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from open_florence.data.coco_spool import ImageRecord, Record, Spool
from open_florence.data.ignored import ignored_annotation
from open_florence.data.instances import Parts, detection_annotation, mask_annotation
from open_florence.data.json_stream import stream
from open_florence.data.records import box_within, find_image, identify
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, clip
from open_florence.masks import decode_rle, polygons
from open_florence.schema import Annotation, Region, Sample, Size

HEAD = 1 << 16
"""Characters of a file that are looked at to tell whether it is COCO."""
MOST_LOOKED_AT = 50
"""JSON files of a folder that are looked at to tell whether it is COCO."""
PERSON = {1: "person"}
"""The one category of COCO's own person_keypoints files, for those cut out of them without it."""


def read_coco(path: Path, on_error: Callable[[str], object]) -> Iterator[Sample]:
    """One sample per image of a file, or of all COCO files in a folder and the folders in it, in the order listed.

    Files in one folder that name the same image speak of one sample; what two of them say alike (a person in instances
    and in person_keypoints) is taken once. Boxes and polygons are in pixels, cut at the image's edge. `Sample.id` is
    the hash of the image, or the name of its file where that is missing. The annotations are sorted by image on the
    disk first, so memory does not grow with them. `on_error` is told of files, images and annotations left out.
    """
    files = [path] if path.is_file() else _files_in(path, on_error)
    spool = Spool()
    try:
        categories = [_load(spool, number, file, on_error) for number, file in enumerate(files)]
        reader = _Reader(spool, files, categories, on_error)
        for number, missing, record in spool.strays():
            reader.report(number, record, f"there is no image {missing}")
        for image in spool.images():
            if sample := reader.sample(image):
                yield sample
    except sqlite3.Error as error:
        raise OpenFlorenceError(f"{path} cannot be sorted by image on the disk: {error}") from error
    finally:
        spool.close()


def looks_like_coco(path: Path) -> bool:
    """Whether a .json file, or one of the first in a folder and the folders in it, begins as COCO files do."""
    if path.is_dir():
        return any(looks_like_coco(file) for file in islice(_json_files(path), MOST_LOOKED_AT))
    if path.suffix.lower() != ".json":
        return False
    try:
        return any(_is_telling(key, value) for key, value in stream(path, HEAD))
    except (OSError, ValueError):
        return False


def _is_telling(key: str, value: Any) -> bool:
    """Whether COCO alone has such an element: VQA has image_ids too, and others have lists of images."""
    if not isinstance(value, dict):
        return False
    if key == "images":
        return "id" in value and ("file_name" in value or "coco_url" in value)
    if key == "annotations":
        return "image_id" in value and not value.keys().isdisjoint(("bbox", "segmentation", "caption"))
    return key == "categories" and {"id", "name"} <= value.keys()


def _json_files(folder: Path) -> Iterator[Path]:
    return chain(sorted(folder.glob("*.json")), sorted(folder.glob("*/*.json")))


def _files_in(folder: Path, on_error: Callable[[str], object]) -> list[Path]:
    files = []
    for file in _json_files(folder):
        if looks_like_coco(file):
            files.append(file)
        else:
            on_error(f"{file} is left out: it does not begin as COCO files do")
    return files


def _load(spool: Spool, number: int, file: Path, on_error: Callable[[str], object]) -> dict[Any, str]:
    """Puts a file into the spool and returns its categories, id to name; nothing of a file that is damaged."""
    categories: dict[Any, str] = {}
    counts = dict.fromkeys(("images", "annotations", "categories"), 0)
    try:
        with spool.transaction():
            for key, record in stream(file):
                if key not in counts:
                    continue
                counts[key] += 1
                try:
                    if key == "images":
                        spool.add_image(str(file.parent), number, record)
                    elif key == "annotations":
                        spool.add_record(number, record)
                    else:
                        categories.update([_category(record)])
                except ValueError as error:
                    on_error(f"{file}, {_called(key, record, counts[key])}, is left out: {error}")
            if not counts["images"] and not counts["annotations"]:
                raise ValueError("it lists neither images nor annotations")
    except OSError as error:
        on_error(f"{file} is left out: {error.strerror or error}")
    except ValueError as error:
        on_error(f"{file} is left out: {error}")
        return {}
    return categories or (dict(PERSON) if file.stem.startswith("person_keypoints") else {})


def _called(key: str, record: Any, position: int) -> str:
    """What an error calls an element of a file: by its id, or else by its place in its list, from 1."""
    name = {"images": "image", "annotations": "annotation", "categories": "category"}[key]
    given = record.get("id") if isinstance(record, dict) else None
    return f"{name} {given!s:.80}" if given is not None else f"{name} number {position}"


def _category(record: Any) -> tuple[Any, str]:
    if not isinstance(record, dict) or type(record.get("id")) not in (int, str):
        raise ValueError("it has no id")
    name = record.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("it has no name")
    return record["id"], name.strip()


class _Reader:
    """Puts together what the files say of one image."""

    def __init__(
        self, spool: Spool, files: list[Path], categories: list[dict[Any, str]], on_error: Callable[[str], object]
    ) -> None:
        self._spool = spool
        self._files = files
        self._categories = categories
        self._on_error = on_error
        self._folders = [_image_folders(file) for file in files]

    def report(self, file: int, record: Record, reason: object) -> None:
        """Says that an annotation is left out."""
        called = "an annotation without id" if record.id is None else f"annotation {record.id!s:.80}"
        self._on_error(f"{self._files[file]}, {called}, is left out: {reason}")

    def sample(self, image: ImageRecord) -> Sample | None:
        """The sample of an image; None, reported, where its size cannot be known or its file cannot be read."""
        file = self._files[image.file]
        path = find_image(self._folders[image.file], *_names(image.name))
        try:
            identity, size = identify(path, image.size, Path(image.name).stem)
        except (OSError, ValueError) as error:
            self._on_error(f"{file}, image {image.id}, is left out: {error}")
            return None
        path = path or Path(os.path.normpath(file.parent / image.name))
        return Sample(identity, str(path), size, self._annotations(image, size))

    def _annotations(self, image: ImageRecord, size: Size) -> tuple[Annotation, ...]:
        boxes: list[Region] = []
        crowds: list[Region] = []
        masks: list[Annotation] = []
        captions: list[Annotation] = []
        told: dict[Any, int] = {}  # what was said -> the file that said it first
        for file, record in self._spool.records(image):
            try:
                if record.caption is not None:
                    if told.setdefault(text := _caption(record), file) == file:
                        captions.append(Annotation("<CAPTION>", text, source="human"))
                    continue
                region = _box(record, self._categories[file], size)
                if told.setdefault((region, record.iscrowd == 1), file) != file:
                    continue
                (crowds if record.iscrowd == 1 else boxes).append(region)
                if record.iscrowd != 1 and (mask := self._mask(file, record, region, size)):
                    masks.append(mask)
            except ValueError as error:
                self.report(file, record, error)
        if not boxes and not any(self._categories[file] for file in self._spool.files(image)):
            return tuple(captions)
        return (detection_annotation(boxes), *ignored_annotation("<OD>", crowds), *masks, *captions)

    def _mask(self, file: int, record: Record, box: Region, size: Size) -> Annotation | None:
        """The polygons of an object as the answer about its box; None where it has none, or, reported, broken ones."""
        if not record.segmentation:
            return None
        try:
            return mask_annotation(box, _parts(record.segmentation, size))
        except ValueError as error:
            self._on_error(f"{self._files[file]}, the mask of annotation {record.id}, is left out: {error}")
            return None


def _image_folders(file: Path) -> list[Path]:
    """Where the images of a file are looked for: beside it, or where COCO's own archives put those of its split."""
    split = file.stem.rpartition("_")[2]  # of instances_val2017
    folders = (".", "images", "..", "../images", split, f"../{split}", f"../images/{split}")
    return [file.parent / folder for folder in folders]


def _names(name: str) -> tuple[str, ...]:
    """The names an image is looked for by: without its folders only when those are of another computer."""
    absolute = name.startswith("/") or ":" in name.split("/")[0] or len(name.split("/")) == 2
    return (name, name.rpartition("/")[2]) if absolute else (name,)


def _caption(record: Record) -> str:
    if not isinstance(record.caption, str) or not record.caption.strip():
        raise ValueError(f"its caption is {record.caption!r:.80}")
    return record.caption.strip()


def _box(record: Record, categories: dict[Any, str], size: Size) -> Region:
    numbers = record.bbox
    if numbers is None:
        raise ValueError("it has neither a bbox nor a caption")
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(map(_is_number, numbers)):
        raise ValueError(f"its bbox is {numbers!r:.80}, not four numbers")
    try:
        label = categories[record.category_id]
    except (KeyError, TypeError):
        raise ValueError(f"there is no category {record.category_id!r:.80}") from None
    x, y, width, height = map(float, numbers)
    if width < 0 or height < 0:
        raise ValueError(f"its bbox has a negative size, {width:g} x {height:g}")
    region = box_within(size, (x, y, x + width, y + height), label, "its bbox")
    if record.score is None:
        return region
    if not _is_number(record.score) or not 0 <= record.score <= 1:
        raise ValueError(f"its score is {record.score!r:.80}, not a number from 0 to 1")
    return Region(region.kind, region.parts, label, float(record.score))


def _parts(segmentation: Any, size: Size) -> Parts:
    """The polygons of a segmentation, inside the image, those without area left out."""
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation)  # (H, W)
        if mask.shape != (size[1], size[0]):
            raise ValueError(f"it has {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[0]:g} x {size[1]:g}")
        found = polygons(mask)
    else:
        found = tuple(clip(_points(part), size) for part in _list(segmentation))
    parts = tuple(
        tuple(map(tuple, polygon.tolist())) for polygon in found if len(polygon) >= 3 and np.ptp(polygon, axis=0).all()
    )
    if not parts:
        raise ValueError("it has no area in the image")
    return parts


def _list(segmentation: Any) -> list[Any]:
    if not isinstance(segmentation, list):
        raise ValueError(f"it is {segmentation!r:.80}")
    return segmentation


def _points(numbers: Any) -> Array:
    """A polygon (P, 2) of the flat list x1, y1, x2, y2, ..."""
    try:
        points = np.array(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.full(1, np.nan)
    if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
        raise ValueError(f"its polygon is {numbers!r:.80}, not pairs of numbers")
    return points.reshape(-1, 2)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
