"""COCO files from samples: objects in one, captions in another, as COCO itself keeps them apart."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from open_florence.data.instances import Instance, instances
from open_florence.data.jsonl import write_whole
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import polygon_area
from open_florence.schema import Sample


def write_coco(path: Path, samples: Iterable[Sample]) -> None:
    """Writes `path`, when it ends in .json, with the objects, and NAME_captions.json beside it with the captions.

    Any other path is a folder that gets instances.json and captions.json. A file with nothing to hold is not written,
    unless it is the only one. Images are named from the folder of the file, so that the two can be moved together;
    their ids count from 1, and the ids of categories count their labels in the order of the alphabet, so two files with
    the same classes agree. The `score` of a box (place times label) is kept: the list under "annotations" is what COCO
    calls results. Raises OpenFlorenceError for a box without a label, and when the disk refuses.
    """
    objects_path, captions_path = path / "instances.json", path / "captions.json"
    if path.suffix.lower() == ".json":
        objects_path, captions_path = path, path.with_name(f"{path.stem}_captions.json")
    try:
        with (
            tempfile.TemporaryFile() as images,
            tempfile.TemporaryFile() as records,
            tempfile.TemporaryFile() as captioned_images,
            tempfile.TemporaryFile() as caption_records,
        ):
            objects, captions = _Document(images, records), _Document(captioned_images, caption_records)
            _sort(samples, objects, captions, objects_path.parent)
            if captions.images.tell():
                write_whole(captions_path if objects.images.tell() else objects_path, captions.lines())
            if objects.images.tell() or not captions.images.tell():
                write_whole(objects_path, objects.lines())
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be written: {error.strerror or error}") from error


def _sort(samples: Iterable[Sample], objects: _Document, captions: _Document, folder: Path) -> None:
    """Adds what samples say of objects to one document, and their captions to the other."""
    for number, sample in enumerate(samples, start=1):
        image = _image(number, sample, folder)
        if (found := instances(sample)) is not None:
            objects.add(image, [(thing.box.label.strip(), _record(thing)) for thing in found])
        if texts := [annotation.text for annotation in sample.annotations if annotation.task == "<CAPTION>"]:
            captions.add(image, [(None, {"caption": text}) for text in texts])


class _Document:
    """A COCO file to be: its two lists, a line each, in files of their own, for neither may fill the memory."""

    def __init__(self, images: IO[bytes], records: IO[bytes]) -> None:
        self.images = images
        self._records = records
        self._count = 0
        self._labels: dict[str, int] = {}  # in the order of first use

    def add(self, image: dict[str, Any], records: list[tuple[str | None, dict[str, Any]]]) -> None:
        """An image, and its annotations with the label of each."""
        self.images.write(b"," * (self.images.tell() > 0) + json.dumps(image).encode() + b"\n")
        for label, record in records:
            self._count += 1
            number = -1 if label is None else self._labels.setdefault(label, len(self._labels))
            ids = {"id": self._count, "image_id": image["id"]}
            self._records.write(f"{number}\t{json.dumps({**ids, **record})}\n".encode())

    def lines(self) -> Iterator[bytes]:
        """The file. Categories are counted from 1 by the alphabet, now that all are known."""
        ids = {label: rank for rank, label in enumerate(sorted(self._labels), start=1)}
        names = list(self._labels)
        yield b'{"info": {},\n"images": [\n'
        self.images.seek(0)
        yield from self.images
        yield b'],\n"annotations": [\n'
        self._records.seek(0)
        for position, line in enumerate(self._records):
            number, _, record = line.partition(b"\t")
            if names:
                record = record.rstrip()[:-1] + f', "category_id": {ids[names[int(number)]]}}}\n'.encode()
            yield b"," * (position > 0) + record
        categories = [{"id": rank, "name": label} for label, rank in ids.items()]
        yield f'],\n"categories": {json.dumps(categories)}}}\n'.encode()


def _image(number: int, sample: Sample, folder: Path) -> dict[str, Any]:
    width, height = (int(side) if side == int(side) else side for side in sample.size)
    name = sample.path
    if os.path.exists(name):
        name = os.path.relpath(name, folder)
    return {"id": number, "file_name": name.replace(os.sep, "/"), "width": width, "height": height}


def _record(thing: Instance) -> dict[str, Any]:
    (x1, y1), (x2, y2) = thing.box.parts[0]
    area = sum(map(polygon_area, thing.parts)) if thing.parts else (x2 - x1) * (y2 - y1)
    record: dict[str, Any] = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": int(thing.crowd)}
    if thing.parts:
        record["segmentation"] = [[number for point in part for number in point] for part in thing.parts]
    if thing.score is not None:
        record["score"] = thing.score
    return record
