"""Flickr30k Entities: captions whose phrases are tied to boxes (Plummer et al., IJCV 2017).

    Sentences/36979.txt      [/EN#1/people A man] in [/EN#2/clothing a hat] and [/EN#3/other a dog] .   a caption a line
    Annotations/36979.xml    <object><name>1</name><bndbox>...</bndbox></object>                    boxes of each number

A number is an entity, spoken of in any of the captions; 0 stands for what cannot be seen. Boxes count from 1, as in the
original VOC: like the published tools we take 1 off every coordinate.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.parsers import expat

from open_florence.data.records import box_within, find_image, identify
from open_florence.data.safe_xml import xml_root
from open_florence.data.voc import stated_size
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample, Size

IMAGE_FOLDERS = (".", "images", "flickr30k-images", "flickr30k_images", "../flickr30k-images", "../flickr30k_images")
"""Where images are looked for, from the folder that holds Sentences and Annotations."""

PHRASE = re.compile(r"\[/EN#([0-9]+)(?:/[^\s\]]*)? ([^\[\]]*[^\[\]\s])\s*\]")
"""[/EN#number/type/type words of the phrase]"""

Boxes = dict[str, list[Region]]
"""Entity -> its boxes, without label, in pixels counted from 0."""


def read_flickr30k(path: Path, on_error: Callable[[str], object], part: str = "") -> Iterator[Sample]:
    """One sample per file of Sentences, in the order of names; of a part ("test") those listed in test.txt, in order.

    Each caption is a <CAPTION> and, where its phrases have boxes, a <CAPTION_TO_PHRASE_GROUNDING>: a region for every
    box of a phrase, in the order of phrases. Entities without boxes (a scene, nobndbox) have no regions. Captions that
    the data set's own UNRELATED_CAPTIONS names are left out. `on_error` is told of captions whose brackets do not
    match, of boxes without area, and of images without size. Raises OpenFlorenceError without the two folders or the
    part's list.
    """
    sentences, annotations = path / "Sentences", path / "Annotations"
    for folder in (sentences, annotations):
        if not folder.is_dir():
            raise OpenFlorenceError(f"{path} has no folder {folder.name}, as Flickr30k Entities has")
    unrelated = _unrelated(path / "UNRELATED_CAPTIONS")
    folders = [folder for folder in (path / name for name in IMAGE_FOLDERS) if folder.is_dir()]
    for name in _names(path, sentences, part):
        try:
            yield _read_image(name, path, folders, unrelated, on_error)
        except (expat.ExpatError, LookupError, OSError, ValueError) as error:
            on_error(f"{annotations / name}.xml is left out: {error}")


def looks_like_flickr30k(path: Path) -> bool:
    """Whether it is a folder that holds Sentences and Annotations."""
    return (path / "Sentences").is_dir() and (path / "Annotations").is_dir()


def phrases(line: str) -> tuple[str, list[tuple[str, tuple[int, int]]]]:
    """A caption without its markup, words one space apart, and (entity, span of its characters) of every phrase.

    Raises ValueError for markup that does not close.
    """
    line = " ".join(line.split())
    text, found, end = "", [], 0
    for match in PHRASE.finditer(line):
        text += line[end : match.start()]
        found.append((match[1], (len(text), len(text) + len(match[2]))))
        text += match[2]
        end = match.end()
    text += line[end:]
    if "[/EN#" in text:
        raise ValueError(f"its markup does not close: {text[text.index('[/EN#') :]!r:.80}")
    if not text:
        raise ValueError("it has no words")
    return text, found


def _read_image(
    name: str, path: Path, folders: list[Path], unrelated: set[tuple[str, int]], on_error: Callable[[str], object]
) -> Sample:
    xml = path / "Annotations" / f"{name}.xml"
    root = xml_root(xml)
    image_path = find_image(folders, f"{name}.jpg")
    identity, size = identify(image_path, stated_size(root), name)
    boxes = _boxes(root, size, lambda problem: on_error(f"{xml}, {problem}"))
    sentences = path / "Sentences" / f"{name}.txt"
    annotations: list[Annotation] = []
    for number, line in enumerate(sentences.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not line.strip() or (name, number) in unrelated:
            continue
        try:
            annotations += _caption(line, boxes)
        except ValueError as error:
            on_error(f"{sentences}, line {number}, is left out: {error}")
    return Sample(identity, str(image_path or path / f"{name}.jpg"), size, tuple(annotations))


def _caption(line: str, boxes: Boxes) -> Iterator[Annotation]:
    text, found = phrases(line)
    yield Annotation("<CAPTION>", text, source="human")
    regions = tuple(
        replace(box, label=text[slice(*span)], span=span) for entity, span in found for box in boxes.get(entity, ())
    )
    if regions:
        yield Annotation("<CAPTION_TO_PHRASE_GROUNDING>", text, regions, query=text, source="human")


def _boxes(root: ET.Element, size: Size, on_error: Callable[[str], object]) -> Boxes:
    boxes: Boxes = {}
    for number, thing in enumerate(root.iterfind("object"), start=1):
        if thing.find("bndbox") is None:
            continue
        texts = [(thing.findtext(f"bndbox/{side}") or "").strip() for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x1, y1, x2, y2 = (float(text) - 1 for text in texts)
            box = box_within(size, (x1, y1, x2, y2), name="its box")
        except ValueError as error:
            on_error(f"object {number}, is left out: {error}")
            continue
        for name in thing.iterfind("name"):
            boxes.setdefault((name.text or "").strip(), []).append(box)
    return boxes


def _names(path: Path, sentences: Path, part: str) -> Iterator[str]:
    """The images' names: of a part, the lines of its list."""
    if not part:
        yield from sorted(file.stem for file in sentences.glob("*.txt"))
        return
    listed = path / f"{part}.txt"
    if not listed.is_file():
        known = ", ".join(sorted(file.stem for file in path.glob("*.txt"))) or "none"
        raise OpenFlorenceError(f"{path} has no list {listed.name} of the part {part!r}; it has {known}")
    yield from listed.read_text(encoding="utf-8", errors="replace").split()


def _unrelated(file: Path) -> set[tuple[str, int]]:
    """(image, number of the sentence from 1) of the captions that the data set's authors found to be of another image.

    A line each, "129602216 5", after one that begins with #.
    """
    if not file.is_file():
        return set()
    lines = [line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    return {(line[0], int(line[1])) for line in lines if len(line) == 2 and line[1].isdecimal()}
