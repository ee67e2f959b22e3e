"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that point at one object of a COCO image, and the object.

Two layouts of the same thing, an expression and the number of the object it means, beside COCO's objects:

    refcoco/refs(unc).p          the pickle of the refer API (Yu et al., ECCV 2016), or refs(google).p, refs(umd).p
    refcoco/instances.json       its objects, in COCO's form

    google_refexp_val_201511.json    Google's own release of RefCOCOg (Mao et al., CVPR 2016)
    instances_train2014.json         COCO's objects, beside it or in ../annotations
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from open_florence.data.json_items import json_items
from open_florence.data.json_stream import stream
from open_florence.data.plain_pickle import load_plain_pickle
from open_florence.data.records import box_within, find_image, identify
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import clip, polygon_area
from open_florence.masks import decode_rle, polygons
from open_florence.schema import Annotation, Region, Sample, Size

SPLITTERS = ("unc", "umd", "google")
"""Who split a data set into parts: of several refs(...).p in a folder the first of these is read."""

IMAGE_FOLDERS = tuple(
    f"{above}{folder}"
    for above in ("", "../", "../coco/")
    for folder in ("train2014", "train2017", "images", "images/train2014", "images/mscoco/images/train2014", ".")
)
"""Where images are looked for, from the folder of the references."""

INSTANCES = ("instances.json", "instances_train2014.json", "../annotations/instances_train2014.json")
"""Where the objects are looked for, from the folder of the references."""

OnError = Callable[[str], object]


class Reference(NamedTuple):
    """One object that was pointed at, and what was said to do so."""

    image_id: int
    object_id: int
    expressions: tuple[str, ...]
    where: str
    """File and number, for messages."""


@dataclass(frozen=True, slots=True)
class _Object:
    box: tuple[float, float, float, float]
    """x, y, width, height in pixels."""
    outline: dict[str, Any] | tuple[array[float], ...]
    """Run-length encoding, or polygons x1, y1, x2, y2, ... in pixels."""


class _Image(NamedTuple):
    name: str
    size: Size


def read_refcoco(path: Path, on_error: OnError, part: str = "") -> Iterator[Sample]:
    """One sample per image of a refs(...).p, or of the first of `SPLITTERS` in a folder, in the order of the file.

    Each expression becomes a <CAPTION_TO_PHRASE_GROUNDING>, the whole of it grounded in the object's box, and a
    <REFERRING_EXPRESSION_SEGMENTATION> with the object's outline. `part` is train, val, testA, testB or test, which is
    also testA and testB together; empty for all. The pickle is read as plain data, so nothing in it can run.

    The expressions and the objects they mean are held in memory, some hundred megabytes for the largest set; all other
    objects are passed over. `on_error` is told of references and objects that are wrong. Raises OpenFlorenceError when
    a file is missing or refused, or has no such part.
    """
    file = _references_file(path)
    yield from _samples(file, list(_of_pickle(file, part, on_error)), on_error)


def read_google_refexp(path: Path, on_error: OnError, part: str = "") -> Iterator[Sample]:
    """The same of Google's release: of one of its files, or of those in a folder, of a `part` (train, val) that one."""
    name = f"google_refexp_{part or '*'}_[0-9]*[0-9].json"
    files = [path] if path.is_file() else sorted(path.glob(name))
    if not files:
        raise OpenFlorenceError(f"there is no google_refexp_{part or 'train'}_201511.json in {path}")
    for file in files:
        yield from _samples(file, list(_of_google(file, on_error)), on_error)


def looks_like_refcoco(path: Path) -> bool:
    """Whether it is a refs(...).p or a folder that holds one."""
    return any(file.match("refs(*).p") for file in ([path] if path.is_file() else path.glob("*.p")))


def looks_like_google_refexp(path: Path) -> bool:
    """Whether it is a file of Google's release or a folder that holds one."""
    return any(file.match("google_refexp_*.json") for file in ([path] if path.is_file() else path.glob("*.json")))


def _references_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = {file.name: file for file in path.glob("refs(*).p")}
    preferred = [found[f"refs({who}).p"] for who in SPLITTERS if f"refs({who}).p" in found]
    if not found:
        raise OpenFlorenceError(f"there is no refs(unc).p, refs(umd).p or refs(google).p in {path}")
    return [*preferred, *found.values()][0]


def _of_pickle(file: Path, part: str, on_error: OnError) -> Iterator[Reference]:
    records = load_plain_pickle(file)
    if not isinstance(records, list):
        raise OpenFlorenceError(f"{file} holds no list of references")
    parts: dict[str, None] = {}
    for number, record in enumerate(records, start=1):
        where = f"{file}, reference {number}"
        try:
            own = str(record["split"])
            parts[own] = None
            if part and own != part and not (part == "test" and own.startswith("test")):
                continue
            yield _reference(
                record["image_id"], record["ann_id"], (sentence["sent"] for sentence in record["sentences"]), where
            )
        except KeyError as error:
            on_error(f"{where}, is left out: it lacks {error}")
        except (AttributeError, TypeError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else "it is no reference of the refer API"
            on_error(f"{where}, is left out: {reason}")
    if part and part not in parts and not (part == "test" and any(own.startswith("test") for own in parts)):
        raise OpenFlorenceError(f"{file} has no part {part!r}; it has {', '.join(parts) or 'none'}")


def _of_google(file: Path, on_error: OnError) -> Iterator[Reference]:
    texts = {}
    for number, record in json_items(file, "refexps", on_error):
        try:
            texts[record["refexp_id"]] = record["raw"]
        except (KeyError, TypeError):
            on_error(f"{file}, refexps {number}, is left out: it lacks a refexp_id or raw")
    for number, record in json_items(file, "annotations", on_error):
        where = f"{file}, annotations {number}"
        try:
            expressions = [texts[key] for key in record["refexp_ids"] if key in texts]
            yield _reference(record["image_id"], record["annotation_id"], expressions, where)
        except KeyError as error:
            on_error(f"{where}, is left out: it lacks {error}")
        except (AttributeError, TypeError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else "it is no annotation of Google's release"
            on_error(f"{where}, is left out: {reason}")


def _reference(image_id: Any, object_id: Any, sentences: Iterable[str], where: str) -> Reference:
    if type(image_id) is not int or type(object_id) is not int:
        raise ValueError(f"its numbers are {image_id!r:.40} and {object_id!r:.40}")
    expressions = tuple(" ".join(sentence.split()) for sentence in sentences)
    if not all(expressions) or not expressions:
        raise ValueError("an expression of it has no words")
    return Reference(image_id, object_id, expressions, where)


def _samples(file: Path, references: list[Reference], on_error: OnError) -> Iterator[Sample]:
    """The references of a file, image by image, joined with what the instances say of image and object."""
    by_image: dict[int, list[Reference]] = {}
    for reference in references:
        by_image.setdefault(reference.image_id, []).append(reference)
    instances = next((file.parent / name for name in INSTANCES if (file.parent / name).is_file()), None)
    if instances is None:
        raise OpenFlorenceError(f"the objects of {file} are missing: there is no {INSTANCES[0]} beside it")
    images, objects = _instances(instances, by_image.keys(), {found.object_id for found in references}, on_error)
    folders = [folder for folder in (file.parent / name for name in IMAGE_FOLDERS) if folder.is_dir()]
    for image_id, group in by_image.items():
        image = images.get(image_id)
        if image is None:
            on_error(f"{group[0].where}, is left out: {instances} has no image {image_id}")
            continue
        image_path = find_image(folders, image.name, f"{image_id:012}.jpg")
        try:
            identity, size = identify(image_path, image.size, Path(image.name).stem)
        except ValueError as error:
            on_error(f"{instances}, image {image_id}, is left out: {error}")
            continue
        annotations: list[Annotation] = []
        for reference in group:
            annotations += _annotations(reference, objects.get(reference.object_id), size, on_error)
        yield Sample(identity, str(image_path or file.parent / image.name), size, tuple(annotations))


def _instances(
    file: Path, image_ids: Collection[int], object_ids: Collection[int], on_error: OnError
) -> tuple[dict[int, _Image], dict[int, _Object]]:
    """Those images and objects of a COCO file that are asked for, in one pass over it."""
    images: dict[int, _Image] = {}
    objects: dict[int, _Object] = {}
    try:
        for key, record in stream(file):
            try:
                if key == "images" and record["id"] in image_ids:
                    size = (float(record["width"]), float(record["height"]))
                    images[record["id"]] = _Image(Path(record["file_name"]).name, size)
                elif key == "annotations" and record["id"] in object_ids:
                    objects[record["id"]] = _object(record)
            except (KeyError, TypeError, ValueError) as error:
                named = f" {record['id']}" if isinstance(record, dict) and "id" in record else ""
                reason = f"it lacks {error}" if isinstance(error, KeyError) else error
                on_error(f"{file}, one of its {key},{named} is left out: {reason}")
    except OSError as error:
        raise OpenFlorenceError(f"{file} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        on_error(f"{file} is left out from where it is no JSON: {error!s:.300}")
    return images, objects


def _object(record: dict[str, Any]) -> _Object:
    x, y, width, height = (float(value) for value in record["bbox"])
    outline = record["segmentation"]
    if isinstance(outline, dict):
        return _Object((x, y, width, height), outline)
    return _Object((x, y, width, height), tuple(array("d", part) for part in outline))


def _annotations(reference: Reference, found: _Object | None, size: Size, on_error: OnError) -> Iterator[Annotation]:
    if found is None:
        on_error(f"{reference.where}, is left out: its object {reference.object_id} is not there")
        return
    x, y, width, height = found.box
    try:
        box = box_within(size, (x, y, x + width, y + height), name="its box")
    except ValueError as error:
        on_error(f"{reference.where}, is left out: {error}")
        return
    try:
        outline = _polygon(found.outline, size)
    except ValueError as error:
        on_error(f"{reference.where}, is left out of <REFERRING_EXPRESSION_SEGMENTATION>: {error}")
        outline = None
    for words in reference.expressions:
        whole = replace(box, label=words, span=(0, len(words)))
        yield Annotation("<CAPTION_TO_PHRASE_GROUNDING>", words, (whole,), query=words, source="human")
        if outline is not None:
            yield Annotation("<REFERRING_EXPRESSION_SEGMENTATION>", regions=(outline,), query=words, source="human")


def _polygon(outline: dict[str, Any] | tuple[array[float], ...], size: Size) -> Region:
    """One region of all the polygons, cut at the image's edge. Raises ValueError when nothing of them is in it."""
    if isinstance(outline, dict):
        mask = decode_rle(outline)
        if mask.shape[::-1] != size:
            raise ValueError(f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image has not")
        parts = list(polygons(mask))
    else:
        if odd := [len(part) for part in outline if len(part) % 2]:
            raise ValueError(f"a polygon of it has {odd[0]} numbers, not two for each point")
        parts = [clip(np.asarray(part).reshape(-1, 2), size) for part in outline]
    kept = [tuple((float(x), float(y)) for x, y in part) for part in parts if polygon_area(part) > 0]
    if not kept:
        raise ValueError("its outline has no area in the image")
    return Region("polygon", tuple(kept))
