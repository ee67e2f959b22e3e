"""What stands in an image by its kept labels: one thing for each object, with its name and what is said about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.words import is_called, name_key
from open_florence.geometry import iou, region_box
from open_florence.noun_phrases import noun_phrases
from open_florence.schema import Annotation, Region
from open_florence.selection import region_score

SAME = 0.7
"""The overlap (IoU) from which two regions are one thing, when their names agree or one of them has none."""


@dataclass(frozen=True, slots=True)
class Saying:
    """What a source calls a region in a few words."""

    text: str
    source: str
    parent: str
    """The row it stands in."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of an image."""

    region: Region
    """As its source gave it, label and score included."""
    name: str
    """The key of its class (`name_key`); of a thing that is only described, the noun of the description."""
    source: str
    parents: tuple[str, ...]
    sayings: tuple[Saying, ...] = ()
    """Descriptions of it, without its class, each once, in the order in which they were last said."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 in pixels."""
        x1, y1, x2, y2 = region_box(self.region.parts).tolist()
        return x1, y1, x2, y2

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)

    @property
    def boxed(self) -> Region:
        """The box alone, without label and score."""
        return Region.box(*self.box)


def find_things(candidates: Sequence[Candidate]) -> list[Thing]:
    """The things of an image, left to right, ties from the top.

    Regions of <OD> are things; those of several annotations with the same name that overlap by `SAME` are one, as its
    surest source places it. <DENSE_REGION_CAPTION> and <REGION_TO_DESCRIPTION> say more about the thing they overlap
    most, of those that are called so if there are any, and are things themselves where they overlap none.
    """
    found: list[Thing] = []
    for candidate, region in _regions(candidates, "<OD>"):
        _add(found, Thing(region, name_key(region.label), candidate.annotation.source, (candidate.id,)))
    for candidate, region, text in _descriptions(candidates):
        saying = Saying(text, candidate.annotation.source, candidate.id)
        noun = name_key(main_noun(text))
        fitting = [index for index, thing in enumerate(found) if is_called(noun, thing.name)]
        index = _best_of(found, fitting, region)
        if index is None:
            index = _best_of(found, range(len(found)), region)
        if index is None:
            found.append(Thing(region, noun, candidate.annotation.source, (candidate.id,), (saying,)))
        else:
            _say(found, index, saying)
    return sorted(found, key=lambda thing: (*thing.centre, thing.box, thing.name))


def best_overlap(region: Region, others: Sequence[Region], least: float = SAME) -> int | None:
    """The index of the region whose box overlaps that of `region` most, by at least `least` (IoU); None without one."""
    if not others:
        return None
    overlaps = iou([region_box(region.parts)], [region_box(other.parts) for other in others])[0]
    best = int(overlaps.argmax())
    return best if overlaps[best] >= least else None


def main_noun(text: str) -> str:
    """What a description is about: the head of its first noun phrase, its last word where it has none."""
    phrases = noun_phrases(text)
    return phrases[0].head if phrases else text.split()[-1] if text.split() else ""


def _regions(candidates: Iterable[Candidate], task: str) -> Iterator[tuple[Candidate, Region]]:
    return ((c, region) for c in candidates if c.annotation.task == task for region in c.annotation.regions)


def _descriptions(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Region, str]]:
    for candidate, region in _regions(candidates, "<DENSE_REGION_CAPTION>"):
        if region.label.strip():
            yield candidate, region, region.label
    for candidate in candidates:
        annotation: Annotation = candidate.annotation
        said = annotation.text.strip()
        if annotation.task == "<REGION_TO_DESCRIPTION>" and isinstance(annotation.query, Region) and said:
            yield candidate, annotation.query, said


def _add(found: list[Thing], thing: Thing) -> None:
    """Put a thing beside the others, or make one of it and the one it is."""
    same = [
        k
        for k, other in enumerate(found)
        if other.name == thing.name and (other.box == thing.box or thing.parents[0] not in other.parents)
    ]
    index = _best_of(found, same, thing.region)
    if index is None:
        found.append(thing)
        return
    other = found[index]
    better = thing if region_score(thing.region) > region_score(other.region) else other
    found[index] = replace(better, parents=tuple(dict.fromkeys((*other.parents, *thing.parents))))


def _best_of(found: Sequence[Thing], indices: Sequence[int], region: Region) -> int | None:
    """Which of some of the things a region overlaps most, by at least `SAME`."""
    best = best_overlap(region, [found[k].region for k in indices])
    return None if best is None else indices[best]


def _say(found: list[Thing], index: int, saying: Saying) -> None:
    thing = found[index]
    found[index] = replace(
        thing,
        sayings=(*(other for other in thing.sayings if other.text != saying.text), saying),
        parents=tuple(dict.fromkeys((*thing.parents, saying.parent))),
    )
