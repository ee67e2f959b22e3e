"""Samples from files and to files: `read` and `write`, and the table of formats they know.

| format | read from | written to |
|---|---|---|
| jsonl | a .jsonl file, or a folder that holds annotations.jsonl | a file |
| voc | a folder of Pascal VOC files (.xml), with or without images beside it | a folder |
| coco | a .json file of COCO's, or a folder of them, images beside it | a .json file, or a folder |
| yolo | a data.yaml of ultralytics, or a folder with one or with classes.txt | a folder |
| icdar | a folder of text quads as in ICDAR 2015 or SROIE (.txt, .csv), images beside it | a folder |
| label_studio | a .json file that Label Studio exports as "JSON" | a .json file of tasks, and the project's .xml |
| mmocr | a .json file of MMOCR's, or a folder with textdet.json or textspotting.json | |
| refcoco | a folder of RefCOCO, RefCOCO+ or RefCOCOg with refs(...).p and instances.json, or one refs(...).p | |
| google_refexp | google_refexp_..._201511.json, or a folder of them, with COCO's instances_train2014.json | |
| visual_genome | a folder of Visual Genome's files with image_data.json, or one of the files | |
| flickr30k | the folder of Flickr30k Entities, which holds Sentences and Annotations | |
| vqa | a folder of VQAv2's questions and annotations, or one file of questions | |

A data set that comes in parts is read whole, or one part after a #: `read("refcoco#testA")`.

A format of your own is a row in `READERS` and `WRITERS`: `READERS["mine"] = my_reader`, then `read(path, "mine")`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

from open_florence.data.coco import looks_like_coco, read_coco
from open_florence.data.coco_writer import write_coco
from open_florence.data.flickr30k import looks_like_flickr30k, read_flickr30k
from open_florence.data.icdar import looks_like_icdar, read_icdar, write_icdar
from open_florence.data.ignored import IGNORED
from open_florence.data.jsonl import read_jsonl, write_jsonl
from open_florence.data.label_studio import TEXT_TASKS, looks_like_label_studio, read_label_studio
from open_florence.data.label_studio_tasks import write_label_studio
from open_florence.data.mmocr import looks_like_mmocr, read_mmocr
from open_florence.data.refcoco import (
    looks_like_google_refexp,
    looks_like_refcoco,
    read_google_refexp,
    read_refcoco,
)
from open_florence.data.visual_genome import looks_like_visual_genome, read_visual_genome
from open_florence.data.voc import read_voc, write_voc
from open_florence.data.vqa import looks_like_vqa, read_vqa
from open_florence.data.yolo import looks_like_yolo, read_yolo
from open_florence.data.yolo_writer import write_yolo
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample

__all__ = ["HELD_TASKS", "PART_READERS", "READERS", "SIGNS", "WRITERS", "read", "write"]

OnError = Callable[[str], object]
"""Told one sentence, with file and line, for each record or box that is left out."""

READERS: dict[str, Callable[[Path, OnError], Iterator[Sample]]] = {
    "jsonl": read_jsonl,
    "voc": read_voc,
    "coco": read_coco,
    "yolo": read_yolo,
    "icdar": read_icdar,
    "label_studio": read_label_studio,
    "mmocr": read_mmocr,
    "refcoco": read_refcoco,
    "google_refexp": read_google_refexp,
    "visual_genome": read_visual_genome,
    "flickr30k": read_flickr30k,
    "vqa": read_vqa,
}
PART_READERS: dict[str, Callable[[Path, OnError, str], Iterator[Sample]]] = {
    "yolo": read_yolo,
    "refcoco": read_refcoco,
    "google_refexp": read_google_refexp,
    "flickr30k": read_flickr30k,
    "vqa": read_vqa,
}
"""Readers of data sets that come in parts (train, val, ...), given the name of the one that is wanted."""
WRITERS: dict[str, Callable[[Path, Iterable[Sample]], None]] = {
    "jsonl": write_jsonl,
    "voc": write_voc,
    "coco": write_coco,
    "yolo": write_yolo,
    "icdar": write_icdar,
    "label_studio": write_label_studio,
}
HELD_TASKS: dict[str, frozenset[str]] = {
    "voc": frozenset({"<OD>"}),
    "coco": frozenset({"<OD>", "<REGION_TO_SEGMENTATION>", "<CAPTION>", IGNORED}),
    "yolo": frozenset({"<OD>", "<REGION_TO_SEGMENTATION>"}),
    "icdar": frozenset({"<OCR_WITH_REGION>", IGNORED}),
    "label_studio": frozenset(
        {"<OD>", "<REGION_TO_SEGMENTATION>", "<OCR_WITH_REGION>", *TEXT_TASKS, "<CLASSIFICATION>", IGNORED},
    ),
}
"""The tasks whose annotations a format can hold; one without a row holds all."""

SIGNS: dict[str, Callable[[Path], bool]] = {
    "jsonl": lambda path: path.suffix == ".jsonl" or (path / "annotations.jsonl").is_file(),
    "refcoco": looks_like_refcoco,
    "google_refexp": looks_like_google_refexp,
    "visual_genome": looks_like_visual_genome,
    "flickr30k": looks_like_flickr30k,  # before VOC, whose .xml files it holds too
    "vqa": looks_like_vqa,
    "coco": looks_like_coco,
    "yolo": looks_like_yolo,
    "voc": lambda path: path.is_dir() and next(path.glob("**/*.xml"), None) is not None,
    "icdar": looks_like_icdar,
    "label_studio": looks_like_label_studio,
    "mmocr": looks_like_mmocr,
}
"""Whether a path looks like a format, by the names of files or the head of one; the first that says so is it."""


def read(path: str | PathLike[str], format: str | None = None, on_error: OnError = warnings.warn) -> Iterator[Sample]:
    """The samples of a file or folder, one after the other: memory does not grow with their number.

    `format` is a row of `READERS`; None tells it from the path, at whose end "#val" chooses one part of a data set.
    What cannot be read is left out and `on_error` is told why: by default a warning each; `problems.append` collects
    them; a function that raises stops the reading. Raises OpenFlorenceError when the path does not exist, is of no
    format known here, or the format has no parts.
    """
    source, part = _parted(Path(path))
    if not source.exists():
        raise OpenFlorenceError(f"there is no file or folder {source}")
    if format is None:
        format = _format_of(source)
    if source.is_dir() and format == "jsonl":
        source = source / "annotations.jsonl"
    reader = _row(READERS, format)
    if not part:
        return reader(source, on_error)
    if format not in PART_READERS:
        raise OpenFlorenceError(f"{format} has no parts, so #{part} cannot be read; {', '.join(PART_READERS)} have")
    return PART_READERS[format](source, on_error, part)


def write(path: str | PathLike[str], samples: Iterable[Sample], format: str | None = None) -> None:
    """Writes samples: to a .jsonl file, to a .json file of COCO's, or to a folder of VOC files for any other path.

    A file appears whole or not at all: a crash in the middle leaves what was there before. `format` is a row of
    `WRITERS`; None tells it from the path. Raises OpenFlorenceError when it cannot be written.
    """
    target = Path(path)
    _row(WRITERS, format or {".jsonl": "jsonl", ".json": "coco"}.get(target.suffix, "voc"))(target, samples)


def _parted(path: Path) -> tuple[Path, str]:
    """A path and what stands after its last #, unless there is a file or folder of the whole name."""
    base, mark, part = fspath(path).rpartition("#")
    return (Path(base), part) if mark and not path.exists() else (path, "")


def _format_of(source: Path) -> str:
    for format, looks_like in SIGNS.items():
        if looks_like(source):
            return format
    raise OpenFlorenceError(f"{source} looks like none of the formats {', '.join(SIGNS)}; if it is one, name it")


Row = TypeVar("Row")


def _row(table: dict[str, Row], format: str) -> Row:
    if format not in table:
        raise OpenFlorenceError(f"there is no format {format!r}; there are {', '.join(table)}")
    return table[format]
