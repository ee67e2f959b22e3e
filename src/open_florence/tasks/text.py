"""The grammar of answers in words: captions, the text in an image, what a region is, the answer to a question."""

from __future__ import annotations

from dataclasses import dataclass

from open_florence.schema import Annotation, Region, Size
from open_florence.tasks.grammar import (
    Grammar,
    Trace,
    beyond_last_bin,
    corners,
    pieces,
    read_points,
    write_points,
    write_words,
)


@dataclass(frozen=True)
class TextGrammar(Grammar):
    """Words, and for questions about a region (`echo`) the box that was asked about, repeated after them.

    The published model ends its answers about a region with that box, "car<loc_52><loc_332><loc_932><loc_774>":
    `serialize` writes it when `Annotation.query` is a region, `trace` takes it off the text and returns it as the
    query. Location tokens anywhere else in the words belong to nothing: they are dropped and counted.
    """

    task: str
    echo: bool = False

    def serialize(self, annotation: Annotation, size: Size) -> str:
        """The words, without spaces at either end, and the echo."""
        words = write_words(annotation.text, f"the text of {self.task}")
        query = annotation.query
        if not self.echo or not isinstance(query, Region):
            return words
        return words + write_points(corners(query), size)

    def trace(self, text: str, size: Size, query: str | Region | None = None) -> Trace:
        """Words and query; there are no regions, so no extents."""
        found = pieces(text)
        words = "".join(piece.text for piece in found if piece.kind == "words").strip()
        strays = [piece for piece in found if piece.kind != "words"]
        while found and not found[-1].text.strip():
            found.pop()
        tail = found[-2 * len(size) :]
        sound = True
        if self.echo and len(tail) == 2 * len(size) and all(piece.kind == "location" for piece in tail):
            strays = strays[: -len(tail)]
            sound = not any(map(beyond_last_bin, tail))
            low, high = read_points(tail, size)
            query = Region("box", ((low, high),)) if query is None else query
        dropped = sum(piece.kind == "location" for piece in strays)
        sound = sound and not strays
        return Trace(Annotation(self.task, words, (), query, complete=sound, dropped=dropped), ())
