"""Visual Genome: phrases for regions, named objects, and questions (Krishna et al., IJCV 2017).

    image_data.json            [{"image_id": 1, "url": ".../VG_100K_2/1.jpg", "width": 800, "height": 600}, ...]
    region_descriptions.json   [{"id": 1, "regions": [{"x", "y", "width", "height", "phrase", ...}, ...]}, ...]
    objects.json               [{"image_id": 1, "objects": [{"x", "y", "w", "h", "names": [...], ...}, ...]}, ...]
    question_answers.json      [{"id": 1, "qas": [{"question", "answer", ...}, ...]}, ...]

attributes.json, relationships.json and scene_graphs.json are not read: no task is answered by triples, and to word them
as phrases ("sidewalk street", "shade ON sidewalk") would teach sentences that nobody said. What they know stands in
people's own words in the region descriptions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from open_florence.data.json_items import json_items
from open_florence.data.records import box_within, find_image, identify
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample, Size

FILES = {"region_descriptions.json": "regions", "objects.json": "objects", "question_answers.json": "qas"}
"""The files that are read, and the key of the list in each of their records."""

IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images", "images/VG_100K", "images/VG_100K_2", ".")
"""Where images are looked for, from the folder of the files."""


class _Image(NamedTuple):
    place: int
    """Its place in image_data.json."""
    id: int
    name: str
    """The last two parts of its address, as "VG_100K_2/1.jpg"."""
    size: Size


class _Record(NamedTuple):
    image: _Image
    where: str
    """File and number of the record, for messages."""
    key: str
    things: list[Any]


def read_visual_genome(path: Path, on_error: Callable[[str], object]) -> Iterator[Sample]:
    """One sample per image, from the files of the folder `path`, or from that one file beside its image_data.json.

    Regions become one <DENSE_REGION_CAPTION> of them all and a <REGION_TO_DESCRIPTION> of each; objects become <OD>,
    under the first of their names; questions become <VQA>. Files of hundreds of megabytes are read side by side in the
    order of image_data.json, which all of them follow, so memory is that of the image sizes; were one in another order,
    nothing would be lost but an image would come once for each file. `on_error` is told of boxes without area, things
    without words, records of unknown images, and the place where a file is cut off. Raises OpenFlorenceError without
    image_data.json, or when there is none of the files.
    """
    names = list(FILES) if path.is_dir() else [path.name]
    folder = path if path.is_dir() else path.parent
    present = [folder / name for name in names if name in FILES and (folder / name).is_file()]
    if not present:
        raise OpenFlorenceError(f"{path} is none of Visual Genome's {', '.join(FILES)}, nor a folder of them")
    images = _images(folder / "image_data.json", on_error)
    folders = [place for place in (folder / name for name in IMAGE_FOLDERS) if place.is_dir()]
    streams = [_records(file, images, on_error) for file in present]
    merged = heapq.merge(*streams, key=lambda record: record.image.place)
    for image, records in groupby(merged, key=lambda record: record.image):
        image_path = find_image(folders, Path(image.name).name)
        try:
            identity, size = identify(image_path, image.size, Path(image.name).stem)
        except ValueError as error:
            on_error(f"{folder / 'image_data.json'}, image {image.id}, is left out: {error}")
            continue
        annotations = [found for record in records for found in _annotations(record, size, on_error)]
        yield Sample(identity, str(image_path or folder / image.name), size, tuple(annotations))


def looks_like_visual_genome(path: Path) -> bool:
    """Whether it is one of the files that are read, or a folder that holds one, beside image_data.json."""
    files = [path] if path.is_file() else [path / name for name in FILES]
    return any(f.name in FILES and f.is_file() and f.with_name("image_data.json").is_file() for f in files)


def _images(file: Path, on_error: Callable[[str], object]) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    for number, record in json_items(file, None, on_error):
        try:
            name = "/".join(str(record["url"]).split("/")[-2:])
            size = (float(record["width"]), float(record["height"]))
            if min(size) <= 0:
                raise ValueError(f"its size is {size}")
            images[_id(record)] = _Image(len(images), _id(record), name, size)
        except (KeyError, TypeError, ValueError) as error:
            on_error(f"{file}, record {number}, is left out: {_reason(error)}")
    if not images:
        raise OpenFlorenceError(f"{file} says of no image how large it is")
    return images


def _records(file: Path, images: dict[int, _Image], on_error: Callable[[str], object]) -> Iterator[_Record]:
    key = FILES[file.name]
    for number, record in json_items(file, None, on_error):
        where = f"{file}, record {number}"
        try:
            image, things = images.get(_id(record)), record[key]
            if not isinstance(things, list):
                raise ValueError(f"its {key} are no list")
            if image is None:
                raise ValueError(f"image_data.json has no image {_id(record)}")
        except (KeyError, TypeError, ValueError) as error:
            on_error(f"{where}, is left out: {_reason(error)}")
            continue
        yield _Record(image, where, key, things)


def _id(record: dict[str, Any]) -> int:
    """The image's number, which some of the files call "id"."""
    found = record["image_id"] if "image_id" in record else record["id"]
    if type(found) is not int:
        raise ValueError(f"its image_id is {found!r:.40}, not a number")
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error) if isinstance(error, ValueError) else "it is no object with the fields of this file"


def _annotations(record: _Record, size: Size, on_error: Callable[[str], object]) -> Iterator[Annotation]:
    kept: list[Any] = []
    read = _question if record.key == "qas" else _region
    for number, thing in enumerate(record.things, start=1):
        try:
            kept.append(read(thing, size))
        except (KeyError, TypeError, ValueError) as error:
            on_error(f"{record.where}, {record.key} {number}, is left out: {_reason(error)}")
    if record.key == "qas":
        yield from kept
    elif record.key == "objects" and kept:
        yield Annotation("<OD>", regions=tuple(kept), source="human")
    elif kept:
        yield Annotation("<DENSE_REGION_CAPTION>", regions=tuple(kept), source="human")
        for region in kept:
            place = Region(region.kind, region.parts)
            yield Annotation("<REGION_TO_DESCRIPTION>", region.label, query=place, source="human")


def _region(thing: dict[str, Any], size: Size) -> Region:
    """A region with its phrase, or an object with the first of its names."""
    words = _words(thing["phrase"] if "phrase" in thing else [*thing["names"], ""][0])
    width, height = ("width", "height") if "width" in thing else ("w", "h")
    x, y, w, h = (float(thing[name]) for name in ("x", "y", width, height))
    return box_within(size, (x, y, x + w, y + h), words, f"the box of {words[:80]!r}")


def _question(thing: dict[str, Any], _: Size) -> Annotation:
    return Annotation("<VQA>", _words(thing["answer"]), query=_words(thing["question"]), source="human")


def _words(text: Any) -> str:
    if not isinstance(text, str) or not (words := " ".join(text.split())):
        raise ValueError("it has no words")
    return words
