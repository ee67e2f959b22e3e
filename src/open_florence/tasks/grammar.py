"""What a grammar is, and how the model's text is cut into pieces that all grammars read.

A grammar is a pair of inverse methods: `serialize` writes an annotation as the text the model is trained to say,
`trace` reads such a text back, together with where in it each region stood. The text follows Florence-2
(arXiv 2311.06242, section 3.1): words, location tokens, and the markup <sep>, <poly>, </poly>.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import bounds
from open_florence.locations import BINS, LocationQuantizer
from open_florence.schema import Annotation, Point, Region, Size

LOCATIONS = LocationQuantizer()

_STRUCTURE = re.compile(r"<loc_([0-9]{1,6})>|<s>|</s>|<pad>|<sep>|<poly>|</poly>")
"""Every token a grammar gives a meaning to; all else is words."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where in the text one region stood: character spans, end exclusive."""

    label: tuple[int, int] | None
    """Its label's words; None where the text gives it no label of its own."""
    location: tuple[int, int]
    """Its own location tokens, from the first of its first part to the last of its last part."""
    tokens: tuple[int, ...] = ()
    """Where the location token of each of its coordinates starts: part by part, point by point, axis by axis."""


@dataclass(frozen=True, slots=True)
class Trace:
    """An annotation and the evidence for it."""

    annotation: Annotation
    extents: tuple[Extent, ...]
    """One for each of `annotation.regions`, in the same order."""


class Grammar(Protocol):
    """How the answers to one kind of task are written as text, and read.

    Implementing a new one: a frozen dataclass that inherits from this class, has `task` (the token to write into
    `Annotation.task`) as its first field, and defines `serialize` and `trace` such that
    `parse(serialize(a, size), size, a.query)` equals `a` up to the width of a bin. `pieces`, `write_points` and
    `read_points` of this module do the common work. Then put a `Task` with it into `TASKS`.
    """

    def serialize(self, annotation: Annotation, size: Size) -> str:
        """The text the model should say, without <s> and </s>. Raises OpenFlorenceError for what cannot be written."""
        ...

    def trace(self, text: str, size: Size, query: str | Region | None = None) -> Trace:
        """Read a text, with or without <s>, </s> and <pad>; never raises, whatever the string. Spans refer to `text`.

        `size` is that of the input, in pixels or seconds; `query`, what was asked, is written into the annotation.
        """
        ...

    def parse(self, text: str, size: Size, query: str | Region | None = None) -> Annotation:
        """The annotation of `trace`, without the evidence."""
        return self.trace(text, size, query).annotation


Mark = Literal["<sep>", "<poly>", "</poly>"]
_MARKS: dict[str, Mark] = {"<sep>": "<sep>", "<poly>": "<poly>", "</poly>": "</poly>"}


class Piece(NamedTuple):
    """A run of words, one location token, or one markup token, and where it stands in the text."""

    kind: Literal["words", "location"] | Mark
    text: str
    start: int
    end: int
    bin: int = -1


def pieces(text: str) -> list[Piece]:
    """The pieces of a text in order, those that say nothing (<s>, </s>, <pad>) left out. Linear in its length."""
    found: list[Piece] = []
    position = 0
    for match in _STRUCTURE.finditer(text):
        if match.start() > position:
            found.append(Piece("words", text[position : match.start()], position, match.start()))
        token, position = match.group(), match.end()
        if match.group(1) is not None:
            found.append(Piece("location", token, match.start(), position, int(match.group(1))))
        elif (mark := _MARKS.get(token)) is not None:
            found.append(Piece(mark, token, match.start(), position))
    if position < len(text):
        found.append(Piece("words", text[position:], position, len(text)))
    return found


class Words:
    """Words gathered piece by piece, and the span from their first to their last visible character."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._text: str | None = ""
        self._start = self._end = -1

    def add(self, piece: Piece) -> None:
        """Append a piece of kind "words"."""
        self._texts.append(piece.text)
        self._text = None
        if piece.text.strip():
            if self._start < 0:
                self._start = piece.end - len(piece.text.lstrip())
            self._end = piece.start + len(piece.text.rstrip())

    @property
    def text(self) -> str:
        """The words, without spaces at either end; empty where there are none."""
        if self._text is None:  # joined once, for all the regions of a label
            self._text = "".join(self._texts).strip()
        return self._text

    @property
    def span(self) -> tuple[int, int] | None:
        """Their characters in the text; None where there are no words."""
        return (self._start, self._end) if self._start >= 0 else None


def write_words(words: str, where: str) -> str:
    """Words as they go into the text: without spaces at either end.

    Raises OpenFlorenceError, naming `where`, for words that hold a token: they would be read back as something else.
    """
    if match := _STRUCTURE.search(words):
        raise OpenFlorenceError(
            f"{where} cannot be written as text: it holds the token {match.group()} ({words[:80]!r})"
        )
    return words.strip()


def write_points(points: tuple[Point, ...], size: Size) -> str:
    """Points as location tokens, axis by axis, point by point."""
    return "".join(LOCATIONS.token(index) for point in points for index in LOCATIONS.quantize(point, size))


def corners(region: Region) -> tuple[Point, ...]:
    """The two corners by which a question names a region: a box's own, of another region those of the box around it.

    Raises OpenFlorenceError for a polygon without points.
    """
    if region.kind == "box":
        return region.parts[0]
    points = [point for part in region.parts for point in part]
    if not points:
        raise OpenFlorenceError(f"a {region.kind} without points is nowhere, so nothing can be asked about it")
    low, high = bounds(points)
    return tuple(low.tolist()), tuple(high.tolist())


def read_points(run: list[Piece], size: Size) -> tuple[Point, ...]:
    """Location tokens as points: the centres of their bins. `run` holds a whole number of points."""
    axes = len(size)
    return tuple(
        LOCATIONS.dequantize([piece.bin for piece in run[i : i + axes]], size) for i in range(0, len(run), axes)
    )


def beyond_last_bin(piece: Piece) -> bool:
    """Whether a location token names a bin that is not in the vocabulary."""
    return piece.bin >= BINS
