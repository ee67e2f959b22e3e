"""YOLO data sets from samples, as ultralytics trains on them: images/, labels/ and data.yaml."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import yaml

from open_florence.data.instances import Instance, instances
from open_florence.data.jsonl import write_whole
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, box_to_polygon
from open_florence.masks import joined
from open_florence.schema import Sample


def write_yolo(path: Path, samples: Iterable[Sample]) -> None:
    """Writes a folder that `yolo train data=PATH/data.yaml` takes: the objects of samples that have an <OD>.

    Images are linked into images/ (hard links, or copies where the disk is another), under a new name where two have
    the same; train and val are both all of them. Classes are numbered by the alphabet. A mask in pieces is one polygon,
    joined by cuts of no width; in an image with masks a box without one is a polygon too, because ultralytics misreads
    lines of both kinds in one file. Scores and crowds are not written, for it would refuse the one and learn the other.
    An image that is not there, and a sample without <OD>, is a warning; of the first the labels are written all the
    same. data.yaml is written last. Raises OpenFlorenceError for a box without a label, and when the disk refuses.
    """
    labels: dict[str, int] = {}  # in the order of first use
    taken: set[str] = set()
    try:
        (path / "images").mkdir(parents=True, exist_ok=True)
        (path / "labels").mkdir(exist_ok=True)
        with tempfile.TemporaryFile() as spool:
            for sample in samples:
                found = instances(sample)
                if found is None:
                    warnings.warn(f"{sample.path} is not written: it has no <OD> annotation")
                    continue
                stem = _free_name(Path(sample.path).stem, taken)
                _link(Path(sample.path), path / "images" / f"{stem}{Path(sample.path).suffix}")
                counted = [thing for thing in found if not thing.crowd]
                rows = [(labels.setdefault(thing.box.label.strip(), len(labels)), thing) for thing in counted]
                masked = any(thing.parts for thing in counted)
                lines = [(number, _shares(thing, sample, masked)) for number, thing in rows]
                spool.write(json.dumps([stem, lines]).encode() + b"\n")
            _write_labels(path / "labels", spool, labels)
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be written: {error.strerror or error}") from error
    document = {"train": "images", "val": "images", "names": dict(enumerate(sorted(labels)))}
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    write_whole(path / "data.yaml", [text.encode()])


def _write_labels(folder: Path, spool: IO[bytes], labels: dict[str, int]) -> None:
    """The files of labels, now that all classes are known."""
    ranks = {number: rank for rank, (_, number) in enumerate(sorted(labels.items()))}
    spool.seek(0)
    for line in spool:
        stem, rows = json.loads(line)
        text = "".join(f"{ranks[number]} {shares}\n" for number, shares in rows)
        (folder / f"{stem}.txt").write_text(text, encoding="utf-8")


def _free_name(stem: str, taken: set[str]) -> str:
    """The stem itself, or with a number where it is taken."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _link(image: Path, target: Path) -> None:
    if not image.is_file():
        warnings.warn(f"{image} is not there: only its labels are written")
        return
    if target.exists():
        if target.samefile(image):
            return
        target.unlink()
    source = os.path.realpath(image)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _shares(thing: Instance, sample: Sample, masked: bool) -> str:
    """What stands after the class: a polygon in an image with masks, or else the centre and size of the box."""
    (x1, y1), (x2, y2) = thing.box.parts[0]
    size = np.asarray(sample.size)  # (2,)
    if masked:
        parts = thing.parts or (box_to_polygon([x1, y1, x2, y2]),)
        points: Array = joined([np.asarray(part, dtype=np.float64) for part in parts])  # (P, 2)
    else:
        points = np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]])
    return " ".join(f"{value:.8g}" for value in (points / size).ravel())
