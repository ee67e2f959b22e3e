"""The grammar of grounding: the phrases of a caption, each followed by its boxes.

    A green car<loc_54><loc_330><loc_911><loc_780>a yellow building<loc_0><loc_8><loc_998><loc_635>

The text holds no words outside the phrases. The caption is what was asked: it stands in `Annotation.query` and
`Annotation.text`, and each region's `span` says which of the caption's words it grounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import groupby

from open_florence.schema import Annotation, Region, Size
from open_florence.tasks.grammar import Grammar, Trace
from open_florence.tasks.regions import Reading, check_kinds, entries, read_entry, write_label, write_region


@dataclass
class Cursor:
    """Finds phrases in a caption, in the order in which they are read."""

    caption: str
    last: int = 0
    """Where the last phrase found ends."""
    seen: dict[str, int] = field(default_factory=dict)
    """Where the last occurrence found of the same words ends."""

    def find(self, phrase: str) -> tuple[int, int] | None:
        """The next occurrence of a phrase: after the last phrase, else after its own last occurrence, else None.

        Whole words are preferred to parts of words, the same letters to letters of another case.
        """
        own = self.seen.get(phrase, 0)
        for start in sorted({max(self.last, own), own}, reverse=True):
            for pattern, flags in ((rf"(?<!\w){re.escape(phrase)}(?!\w)", 0), (re.escape(phrase), re.IGNORECASE)):
                if match := re.compile(pattern, flags).search(self.caption, start):
                    self.last = max(self.last, match.end())
                    self.seen[phrase] = match.end()
                    return match.span()
        return None


@dataclass(frozen=True)
class PhraseGrammar(Grammar):
    """Phrases with boxes; a phrase of several boxes is written once, two phrases of the same words twice.

    The text says words, not where they stand: `trace` gives each phrase its next occurrence in the caption, so a
    serialized annotation comes back with its spans when every phrase is grounded at the first occurrence of its words
    after the phrase before. Without a caption the text of the annotation is the phrases, joined by commas.
    """

    task: str

    def serialize(self, annotation: Annotation, size: Size) -> str:
        """The phrases in the order of their spans (as they come, where there are none), each with its boxes."""
        regions = annotation.regions
        if all(region.span is not None for region in regions):
            regions = tuple(sorted(regions, key=lambda region: region.span or (0, 0)))
        check_kinds(regions, ("box",), self.task)
        text = ""
        for (span, label), group in groupby(regions, key=lambda region: (region.span, region.label)):
            text += write_label(annotation.text[slice(*span)] if span else label, self.task)
            text += "".join(write_region(region, size, fence=False) for region in group)
        return text

    def trace(self, text: str, size: Size, query: str | Region | None = None) -> Trace:
        """Boxes in the order of the text. `query`, when given, is the caption."""
        reading = Reading(size)
        cursor = Cursor(query) if isinstance(query, str) else None
        phrases = ""
        for entry in entries(text):
            first = len(reading.regions)
            read_entry(entry, reading, "box")
            if first == len(reading.regions):
                continue
            phrase = entry.words.text
            if cursor is not None:
                span = cursor.find(phrase)
            else:
                phrases += ", " * bool(phrases) + phrase
                span = (len(phrases) - len(phrase), len(phrases))
            reading.regions[first:] = [replace(region, span=span) for region in reading.regions[first:]]
        return reading.trace(self.task, cursor.caption if cursor is not None else phrases, query)
