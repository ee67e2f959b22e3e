"""The grammar of answers in places: labels followed by boxes, quads or polygons, written as location tokens.

wheel<loc_709><loc_576><loc_865><loc_772><loc_150><loc_584><loc_309><loc_773>     two boxes of one label
STOP<loc_8><loc_9><loc_60><loc_9><loc_60><loc_31><loc_8><loc_31>                  a quad, clockwise from the top-left
<loc_1><loc_2>...<sep><loc_7><loc_8>...                                           a polygon in two parts
cat<poly><loc_1><loc_2>...</poly><poly><loc_3><loc_4>...</poly>                   two polygons of one label
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Kind, Region, Size
from open_florence.tasks.grammar import (
    Extent,
    Grammar,
    Piece,
    Trace,
    Words,
    beyond_last_bin,
    pieces,
    read_points,
    write_points,
    write_words,
)

POINTS = {"box": 2, "quad": 4}
"""Points of a region whose number of points is fixed."""


@dataclass
class Entry:
    """A label and what follows it, up to the next label."""

    words: Words = field(default_factory=Words)
    places: list[Piece] = field(default_factory=list)
    """Location and markup tokens, and the blanks between them."""


def entries(text: str) -> Iterator[Entry]:
    """A text as labels, each with its tokens; the first may lack a label, the last may lack tokens."""
    entry = Entry()
    for piece in pieces(text):
        if piece.kind != "words" or (entry.places and not piece.text.strip()):
            entry.places.append(piece)
            continue
        if entry.places:
            yield entry
            entry = Entry()
        entry.words.add(piece)
    yield entry


@dataclass
class Reading:
    """Regions as they are found, and what could not be read."""

    size: Size
    regions: list[Region] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)
    dropped: int = 0
    sound: bool = True

    def drop(self, run: list[Piece]) -> None:
        """Throw location tokens away, and remember how many."""
        self.dropped += len(run)
        self.sound &= not run

    def keep(self, kind: Kind, runs: list[list[Piece]], entry: Entry) -> None:
        """Add one region, each of `runs` the tokens of one part."""
        parts = tuple(read_points(run, self.size) for run in runs)
        self.regions.append(Region(kind, parts, entry.words.text))
        self.extents.append(Extent(entry.words.span, (runs[0][0].start, runs[-1][-1].end)))
        self.sound &= not any(beyond_last_bin(piece) for run in runs for piece in run)

    def trace(self, task: str, text: str = "", query: str | Region | None = None) -> Trace:
        """What was read, as an annotation with its evidence."""
        regions = tuple(self.regions)
        annotation = Annotation(task, text, regions, query, complete=self.sound, dropped=self.dropped)
        return Trace(annotation, tuple(self.extents))


@dataclass(frozen=True)
class RegionGrammar(Grammar):
    """Regions of the given kinds, each after its label, or without labels.

    With both boxes and polygons allowed, a text with <poly> in it is polygons. Consecutive boxes and polygons of one
    label are written under it once; quads always carry their own, as published. The order of regions is kept.
    """

    task: str
    kinds: tuple[Kind, ...] = ("box",)
    labelled: bool = True

    def serialize(self, annotation: Annotation, size: Size) -> str:
        """Label, tokens, label, tokens; labels lose spaces at their ends."""
        regions = annotation.regions
        check_kinds(regions, self.kinds, self.task)
        if not self.labelled:
            return "".join(write_region(region, size, fence=len(regions) > 1) for region in regions)
        text = ""
        for label, group in groupby(regions, key=lambda region: region.label.strip()):
            words = write_label(label, self.task)
            for number, region in enumerate(group):
                text += words if number == 0 or region.kind == "quad" else ""
                text += write_region(region, size, fence=True)
        return text

    def trace(self, text: str, size: Size, query: str | Region | None = None) -> Trace:
        """Regions in the order of the text; words that lead to no place make it incomplete."""
        reading = Reading(size)
        polygons = "polygon" in self.kinds and (len(self.kinds) == 1 or "<poly>" in text)
        for entry in entries(text):
            read_entry(entry, reading, "polygon" if polygons else self.kinds[0], self.labelled)
        return reading.trace(self.task, query=query)


def check_kinds(regions: tuple[Region, ...], kinds: tuple[Kind, ...], task: str) -> None:
    """Raise OpenFlorenceError unless the regions are all of one kind, and one that the task's grammar writes."""
    if len({region.kind for region in regions}) > 1:
        raise OpenFlorenceError(f"the regions of {task} are of several kinds; one answer holds regions of one kind")
    if regions and regions[0].kind not in kinds:
        raise OpenFlorenceError(f"{task} is answered by regions of kind {' or '.join(kinds)}, not {regions[0].kind}")


def write_label(label: str, task: str) -> str:
    """A label as it goes into the text. Raises OpenFlorenceError where it is empty or holds a token."""
    words = write_words(label, f"a label of {task}")
    if not words:
        raise OpenFlorenceError(f"a region of {task} has no label, so its place cannot be written")
    return words


def write_region(region: Region, size: Size, fence: bool) -> str:
    """The tokens of one region; `fence` puts <poly> and </poly> around a polygon."""
    if not all(region.parts):
        raise OpenFlorenceError(f"a {region.kind} has a part without points, so it cannot be written")
    tokens = "<sep>".join(write_points(part, size) for part in region.parts)
    return f"<poly>{tokens}</poly>" if fence and region.kind == "polygon" else tokens


def read_entry(entry: Entry, reading: Reading, kind: Kind, labelled: bool = True) -> None:
    """The regions of one label, added to `reading`.

    Without a label where one is due, its tokens are dropped; a label where none is due is left out.
    """
    if not labelled:
        reading.sound &= entry.words.span is None
        entry = Entry(places=entry.places)
    elif entry.words.span is None:
        reading.drop([piece for piece in entry.places if piece.kind == "location"])
        reading.sound &= all(piece.kind == "words" for piece in entry.places)
        return
    elif not entry.places:
        reading.sound = False
    if kind == "polygon":
        read_polygons(entry, reading)
    else:
        read_fixed(entry, reading, kind)


def read_fixed(entry: Entry, reading: Reading, kind: Kind) -> None:
    """The boxes or quads of one label: its tokens in groups of one region each; what is left over is dropped."""
    length = POINTS[kind] * len(reading.size)
    full = False
    for is_location, group in groupby(entry.places, key=lambda piece: piece.kind == "location"):
        run = list(group)
        if not is_location:
            reading.sound &= all(piece.kind == "words" for piece in run)
            continue
        while len(run) >= length and not full:
            reading.keep(kind, [run[:length]], entry)
            run = run[length:]
            full = kind == "quad" and entry.words.span is not None
        reading.drop(run)


def read_polygons(entry: Entry, reading: Reading) -> None:
    """The polygons of one label: parts end at <sep>, instances at </poly> or at the next <poly>."""
    parts: list[list[Piece]] = []
    part: list[Piece] = []
    fenced = False

    def end_part() -> None:
        nonlocal part
        odd = len(part) % len(reading.size)
        reading.drop(part[len(part) - odd :])
        if part := part[: len(part) - odd]:
            parts.append(part)
        else:
            reading.sound = False
        part = []

    def end_instance() -> None:
        nonlocal parts
        end_part()
        if parts:
            reading.keep("polygon", parts, entry)
        parts = []

    for piece in entry.places:
        if piece.kind == "location":
            part.append(piece)
        elif piece.kind == "<sep>":
            end_part()
        elif piece.kind == "<poly>":
            if fenced or part or parts:
                reading.sound = False
                end_instance()
            fenced = True
        elif piece.kind == "</poly>":
            reading.sound &= fenced
            end_instance()
            fenced = False
        elif part:
            end_part()
    if fenced or part or parts:
        reading.sound &= not fenced
        end_instance()
