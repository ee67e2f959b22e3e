"""The grammar of answers in places: labels followed by boxes, quads or polygons, written as location tokens.

    wheel<loc_709><loc_576><loc_865><loc_772><loc_150><loc_584><loc_309><loc_773>    two boxes of one label
    STOP<loc_8><loc_9><loc_60><loc_9><loc_60><loc_31><loc_8><loc_31>                 a quad, clockwise from top-left
    <loc_1><loc_2>...<sep><loc_7><loc_8>...                                          a polygon in two parts
    cat<poly><loc_1><loc_2>...</poly><poly><loc_3><loc_4>...</poly>                  two polygons of one label

Points have as many coordinates as the input has axes: in a series a box is an interval of two tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class RegionGrammar(Grammar):
    """Regions of the given kinds, each after its label, or (`labelled` False) without labels.

    Where both boxes and polygons are allowed, a text with <poly> in it is all polygons. Consecutive boxes or polygons
    of one label are written under it once; a quad always carries its own, as published. The order of regions is kept.
    """

    task: str
    kinds: tuple[Kind, ...] = ("box",)
    labelled: bool = True

    def serialize(self, annotation: Annotation, size: Size) -> str:
        """Label, tokens, label, tokens; labels lose spaces at their ends.

        Raises OpenFlorenceError for a kind of region that the grammar does not write, several kinds at once, a label
        that is missing or holds a token, a part without points, and points that do not have an axis each of `size`.
        """
        regions = annotation.regions
        check_kinds(regions, self.kinds, self.task)
        if not self.labelled:
            return "".join(write_region(region, size, fenced=len(regions) > 1) for region in regions)
        text = ""
        for label, group in groupby(regions, key=lambda region: region.label.strip()):
            words = write_label(label, self.task)
            for number, region in enumerate(group):
                text += words if number == 0 or region.kind == "quad" else ""
                text += write_region(region, size, fenced=True)
        return text

    def trace(self, text: str, size: Size, query: str | Region | None = None) -> Trace:
        """Regions in the order of the text. Incomplete when anything in it, words or tokens, led to no region."""
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
        raise OpenFlorenceError(f"a region of {task} has no label, so it cannot be written")
    return words


def write_region(region: Region, size: Size, fenced: bool) -> str:
    """The tokens of one region; `fenced` puts a polygon between <poly> and </poly>."""
    if not region.parts or not all(region.parts):
        raise OpenFlorenceError(f"a {region.kind} without points cannot be written")
    tokens = "<sep>".join(write_points(part, size) for part in region.parts)
    return f"<poly>{tokens}</poly>" if fenced and region.kind == "polygon" else tokens


@dataclass
class Entry:
    """A label, and the tokens that follow it up to the next label."""

    words: Words = field(default_factory=Words)
    tokens: list[Piece] = field(default_factory=list)
    """Locations and markup, and any blanks between them."""


def entries(text: str) -> Iterator[Entry]:
    """A text as labels with their tokens; the first may lack its label, any may lack its tokens."""
    entry = Entry()
    for piece in pieces(text):
        if piece.kind != "words" or (entry.tokens and not piece.text.strip()):
            entry.tokens.append(piece)
            continue
        if entry.tokens:
            yield _without_blank_end(entry)
            entry = Entry()
        entry.words.add(piece)
    yield _without_blank_end(entry)


@dataclass
class Reading:
    """Regions as they are found, and what could not be read."""

    size: Size
    regions: list[Region] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)
    dropped: int = 0
    sound: bool = True
    """Whether all of the text so far was understood."""

    def keep(self, kind: Kind, parts: list[list[Piece]], entry: Entry) -> None:
        """Add one region, given the location tokens of each of its parts."""
        points = tuple(read_points(part, self.size) for part in parts)
        self.regions.append(Region(kind, points, entry.words.text))
        tokens = tuple(piece.start for part in parts for piece in part)
        self.extents.append(Extent(entry.words.span, (parts[0][0].start, parts[-1][-1].end), tokens))
        self.sound &= not any(beyond_last_bin(piece) for part in parts for piece in part)

    def drop(self, tokens: Sequence[Piece]) -> None:
        """Throw tokens away, remembering how many of them were locations."""
        self.dropped += sum(piece.kind == "location" for piece in tokens)
        self.sound &= not tokens

    def trace(self, task: str, text: str = "", query: str | Region | None = None) -> Trace:
        """What was read, as an annotation with its evidence."""
        regions = tuple(self.regions)
        annotation = Annotation(task, text, regions, query, complete=self.sound, dropped=self.dropped)
        return Trace(annotation, tuple(self.extents))


def read_entry(entry: Entry, reading: Reading, kind: Kind, labelled: bool = True) -> None:
    """The regions of one label, added to `reading`.

    Without a label where one is due, its tokens are dropped; a label where none is due is left out.
    """
    if not labelled:
        reading.sound &= entry.words.span is None
        entry = Entry(tokens=entry.tokens)
    elif entry.words.span is None:
        reading.drop(entry.tokens)
        return
    elif not entry.tokens:
        reading.sound = False
    if kind == "polygon":
        _read_polygons(entry, reading)
    else:
        _read_boxes_or_quads(entry, reading, kind)


def _read_boxes_or_quads(entry: Entry, reading: Reading, kind: Kind) -> None:
    """Each unbroken run of locations in groups of one region; only one group where each region has its own label."""
    length = POINTS[kind] * len(reading.size)
    single = kind == "quad" and entry.words.span is not None
    start = len(reading.regions)
    for is_location, group in groupby(entry.tokens, key=lambda piece: piece.kind == "location"):
        run, first = list(group), 0
        while is_location and first + length <= len(run) and not (single and len(reading.regions) > start):
            reading.keep(kind, [run[first : first + length]], entry)
            first += length
        reading.drop(run[first:])


def _read_polygons(entry: Entry, reading: Reading) -> None:
    """One polygon between <poly> and </poly>, or in all there is where they are missing; its parts end at <sep>."""
    parts: list[list[Piece]] = [[]]
    fenced = False
    for piece in entry.tokens:
        if piece.kind == "location":
            parts[-1].append(piece)
        elif piece.kind in ("<poly>", "</poly>"):
            _end_polygon(parts, fenced, entry, reading)
            reading.sound &= fenced == (piece.kind == "</poly>")
            parts, fenced = [[]], piece.kind == "<poly>"
        else:
            parts.append([])
            reading.sound &= piece.kind == "<sep>"
    _end_polygon(parts, fenced, entry, reading)
    reading.sound &= not fenced


def _end_polygon(parts: list[list[Piece]], fenced: bool, entry: Entry, reading: Reading) -> None:
    """Keep a polygon's parts that hold a point; a coordinate too many is dropped from the end of each."""
    kept = []
    for part in parts:
        whole = len(part) - len(part) % len(reading.size)
        reading.drop(part[whole:])
        kept += [part[:whole]] if whole else []
    if kept:
        reading.keep("polygon", kept, entry)
    nothing_was_due = parts == [[]] and not fenced
    reading.sound &= len(kept) == len(parts) or nothing_was_due


def _without_blank_end(entry: Entry) -> Entry:
    while entry.tokens and entry.tokens[-1].kind == "words":
        entry.tokens.pop()
    return entry
