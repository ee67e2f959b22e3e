"""What the other sources say of a claim: the same, something else, or nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from open_florence.geometry import iou, region_box
from open_florence.schema import Annotation, Region

OVERLAP = 0.5
"""The least IoU of the boxes of two regions that speak of the same thing."""
WORDS_SHARED = 0.5
"""The least share of words in common (of all words of both) of two texts that say the same."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """The sources that were asked the same, by what they say of one claim."""

    agree: tuple[str, ...] = ()
    against: tuple[tuple[str, str], ...] = ()
    """(source, what it says instead; "" for nothing)"""

    @property
    def sentence(self) -> str:
        """The sources against it, as "1 of 3 sources says otherwise (detector@2: dog)"; "" where there are none."""
        if not self.against:
            return ""
        shown = ", ".join(f"{source}: {said[:40] or 'nothing here'}" for source, said in self.against[:3])
        more = ", ..." if len(self.against) > 3 else ""
        asked = len(self.against) + len(self.agree)
        verb = "says" if len(self.against) == 1 else "say"
        return (
            f"{len(self.against)} of {asked} {'source' if asked == 1 else 'sources'} {verb} otherwise ({shown}{more})"
        )


class Opinions:
    """What every source said about one image, to compare claims with."""

    def __init__(self, annotations: Iterable[Annotation]) -> None:
        self._said: dict[tuple[str, object], dict[str, list[Annotation]]] = defaultdict(lambda: defaultdict(list))
        for annotation in annotations:
            self._said[annotation.task, annotation.query][annotation.source].append(annotation)

    def about(self, claimed: Annotation) -> list[Opinion]:
        """An opinion of each region of an annotation; of its text where it has no regions, so there is at least one.

        Sources count that answered the same task and query.
        """
        sources = self._said.get((claimed.task, claimed.query), {})
        if not claimed.regions:
            return [_of_text(claimed, sources)]
        verdicts = {name: _about_regions(claimed.regions, said) for name, said in sorted(sources.items())}
        return [
            Opinion(
                tuple(name for name, verdict in verdicts.items() if verdict[number] is None),
                tuple((name, other) for name, verdict in verdicts.items() if (other := verdict[number]) is not None),
            )
            for number in range(len(claimed.regions))
        ]


def _about_regions(claimed: tuple[Region, ...], said: list[Annotation]) -> list[str | None]:
    """For each claimed region None where a source says the same, else the label it has there, "" without a region."""
    regions = [region for annotation in said for region in annotation.regions]
    if not regions:
        return [""] * len(claimed)
    overlaps = iou([region_box(r.parts) for r in claimed], [region_box(r.parts) for r in regions])  # (C, R)
    result: list[str | None] = []
    for region, row in zip(claimed, overlaps, strict=True):
        there = [regions[index] for index in np.argsort(-row, kind="stable") if row[index] >= OVERLAP]
        if any(other.label.casefold() == region.label.casefold() for other in there):
            result.append(None)
        else:
            result.append((there[0].label or "a place without a name") if there else "")
    return result


def _of_text(claimed: Annotation, sources: dict[str, list[Annotation]]) -> Opinion:
    """An annotation without regions says its text, or, without a text, that nothing is there."""
    agree, against = [], []
    for name, said in sorted(sources.items()):
        if any(not other.regions and _alike(claimed.text, other.text) for other in said):
            agree.append(name)
        else:
            against.append((name, said[0].text or next((region.label for region in said[0].regions), "")))
    return Opinion(tuple(agree), tuple(against))


def _alike(a: str, b: str) -> bool:
    first, second = (set(re.findall(r"\w+", text.casefold())) for text in (a, b))
    return len(first & second) >= WORDS_SHARED * len(first | second)
