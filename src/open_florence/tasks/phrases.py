"""The grammar of grounding: the phrases of a caption, each followed by its boxes.

    A green car<loc_54><loc_330><loc_911><loc_780>a yellow building<loc_0><loc_8><loc_998><loc_635>

The text has no words outside the phrases. The caption is what was asked: it stands in `Annotation.query` and in
`Annotation.text`, and each region's `span` says which of its characters the region grounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Size
from open_florence.tasks.grammar import Grammar, Trace
from open_florence.tasks.regions import Reading, check_kinds, entries, read_entry, write_label, write_region


@dataclass(frozen=True)
class PhraseGrammar(Grammar):
    """Phrases with boxes: a phrase with several boxes is written once, two phrases of the same words twice.

    The text says the words of a phrase, not where they stand. `trace` gives each phrase the next occurrence of its
    words in the caption, so spans come back exactly when every phrase is the first occurrence of its words after the
    end of the phrase before it. A phrase that the caption does not hold has no span.
    """

    task: str

    def serialize(self, annotation: Annotation, size: Size) -> str:
        """The phrases in the order of their spans (as they come, unless all have one), each with its boxes.

        The words are those of the span in `Annotation.text`, or the label where there is no span. Raises
        OpenFlorenceError for words that are missing or hold a token, a span outside the text, and regions that are not
        boxes.
        """
        regions = annotation.regions
        check_kinds(regions, ("box",), self.task)
        if all(region.span is not None for region in regions):
            regions = tuple(sorted(regions, key=lambda region: region.span or (0, 0)))
        text = ""
        for (span, label), group in groupby(regions, key=lambda region: (region.span, region.label)):
            if span is not None:
                if not 0 <= span[0] < span[1] <= len(annotation.text):
                    raise OpenFlorenceError(f"the span {span} of a region of {self.task} lies outside its text")
                label = annotation.text[slice(*span)]
            text += write_label(label, self.task)
            text += "".join(write_region(region, size, fenced=False) for region in group)
        return text

    def trace(self, text: str, size: Size, query: str | Region | None = None) -> Trace:
        """Boxes in the order of the text, each with the span of its phrase.

        `query` is the caption. Without it the text of the annotation is the phrases found, joined by commas, and the
        spans point into that.
        """
        reading = Reading(size)
        caption = query if isinstance(query, str) else None
        finder = PhraseFinder(caption or "")
        phrases = ""
        for entry in entries(text):
            known = len(reading.regions)
            read_entry(entry, reading, "box")
            if len(reading.regions) == known:
                continue
            phrase = entry.words.text
            phrases += ", " * bool(phrases) + phrase
            span = (len(phrases) - len(phrase), len(phrases)) if caption is None else finder.find(phrase)
            reading.regions[known:] = [replace(region, span=span) for region in reading.regions[known:]]
        return reading.trace(self.task, phrases if caption is None else caption, query)


class PhraseFinder:
    """Finds phrases in a caption, in the order in which they are read."""

    def __init__(self, caption: str) -> None:
        self.caption = caption
        lowered = caption.lower()
        self._lowered = lowered if len(lowered) == len(caption) else caption  # the same length, so the same positions
        self._last = 0
        self._taken: dict[str, int] = {}

    def find(self, phrase: str) -> tuple[int, int] | None:
        """The span of a phrase: after the phrase before it, else anywhere after the last occurrence of the same words.

        Letters of the same case are preferred to letters of any case.
        """
        own = self._taken.get(phrase, 0)
        for caption, words in ((self.caption, phrase), (self._lowered, phrase.lower())):
            for start in (max(self._last, own), own):
                if (found := _find_words(caption, words, start)) >= 0:
                    end = self._taken[phrase] = found + len(words)
                    self._last = max(self._last, end)
                    return found, end
        return None


def _find_words(caption: str, phrase: str, start: int) -> int:
    """Where a phrase first stands in a caption as whole words, else where it first stands at all, else -1."""
    first = found = caption.find(phrase, start)
    while found >= 0:
        end = found + len(phrase)
        runs_on_left = found > 0 and (caption[found - 1] + caption[found]).isalnum()
        runs_on_right = end < len(caption) and (caption[end - 1] + caption[end]).isalnum()
        if not runs_on_left and not runs_on_right:
            return found
        found = caption.find(phrase, found + 1)
    return first
