"""Which things of an image a noun phrase of its caption means: by name, attributes, count and side.

Where words leave it open nothing is guessed: of two dogs, "a dog" is neither, unless one is much the larger. What was
not checked, or only made likely, lowers the evidence; the scale is below, and a match is as good as its weakest part.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from open_florence.data_engine.enhance.things import Thing
from open_florence.data_engine.enhance.words import COMPOUNDS, KINDS, is_called, is_plural, name_key, number_of, words
from open_florence.data_engine.ontology import Ontology
from open_florence.noun_phrases import Phrase
from open_florence.noun_phrases.words import ADVERBS, DETERMINERS, MEASURES, NUMBERS
from open_florence.schema import Size

CERTAIN = 1.0
OTHER_NAME = 0.9
"""The thing is labelled with the kind ("person") of what the caption calls it ("skier")."""
BY_SIDE = 0.9
"""One of several, told from the others by where the caption says it is."""
UNCHECKED = 0.8
"""The caption says more of it ("brown") than anybody said of the region."""
PROMINENT = 0.6
"""One of several, `LARGER` times the size of the next; only where the caption names no other of them."""
LARGER = 3.0

_FAMILIES = (
    "red orange yellow green cyan blue purple violet pink brown grey gray black white golden beige tan",
    "small little tiny large big huge giant",
    "plain striped dotted checkered spotted",
)
FAMILIES = tuple(frozenset(family.split()) for family in _FAMILIES)
"""Attributes of which a thing that has one has no other."""

SILENT = DETERMINERS | NUMBERS | MEASURES | ADVERBS | {"of", "and", "or", "with", "in", "on", "colored", "coloured"}
"""Words beside a noun that say nothing about how one such thing looks."""

_SIDE = re.compile(
    r"\W*(?:(?:is|are|standing|sitting|lying|seen|shown)\s+)?(?:at|on|in|to)\s+the\s+(?:far\s+|very\s+)?"
    r"((?:top|bottom|upper|lower)?[\s-]*(?:left|right|middle|center|centre)?)(?:\s+(?:hand\s+)?(?:side|corner|part|half))?"
    r"(?!\s+of\s+(?!the\s+(?:image|picture|photo|frame)))",
    re.IGNORECASE,
)
_PAIR = re.compile(r"\b(?:couple|pair)\s+of\s*$", re.IGNORECASE)

Names = Callable[[str], str | None]
"""From a label or phrase to the class it means, None where it means none: an ontology's `name_of`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a phrase asks for."""

    phrase: Phrase
    name: str
    """The key of the noun, as far as labels know it: "hot dog", not "dog"."""
    attributes: frozenset[str]
    count: int | None
    """How many there are by the phrase; None where it does not say ("dogs")."""
    introduces: bool
    """Whether it speaks of something new ("a dog"), not of something known ("the dog")."""
    side: frozenset[str] = frozenset()
    """Of left, right, top, bottom, middle."""


@dataclass(frozen=True, slots=True)
class Match:
    """The things a phrase means."""

    reading: Reading
    things: tuple[int, ...]
    """Indices into the things of the image, at least one."""
    evidence: float
    """How sure the words make it, 0 to 1; the scores of the regions are not in it."""
    alone: bool
    """Whether the phrase fits nothing else in the image, so that it can be asked for by itself."""


def names_of(ontology: Ontology | None) -> Names | None:
    """How an ontology names things; None for one without classes, which takes every label for a class."""
    return ontology.name_of if ontology is not None and ontology.classes else None


def match_phrases(
    caption: str, phrases: Iterable[Phrase], things: Sequence[Thing], size: Size, names: Names | None = None
) -> list[Match]:
    """The phrases of a caption that mean things of the image, in their order; `size` (W, H) in pixels.

    Phrases that introduce more things together than all of them could mean ("a man and a woman", one person) match
    none of them.
    """
    known = {thing.name for thing in things}
    readings = [read_phrase(phrase, caption, known, names) for phrase in phrases]
    fitting = [_fitting(reading, things, names) for reading in readings]
    introduced = _introduced(caption, readings, [fits for fits, _ in fitting])
    matches = []
    for reading, (fits, evidence) in zip(readings, fitting, strict=True):
        count, rivals = introduced.get(fits, (0, 0))
        if not fits or (rivals > 1 and count > len(fits)):
            continue
        guess = rivals <= 1 and evidence > UNCHECKED
        chosen, sure = _choose(reading, sorted(fits), things, size, guess)
        if chosen:
            matches.append(Match(reading, chosen, min(evidence, sure), len(fits) == 1))
    return matches


def _introduced(
    caption: str, readings: Sequence[Reading], fitting: Sequence[frozenset[int]]
) -> dict[frozenset[int], tuple[int, int]]:
    """For each set of things that phrases fit: how many things they introduce, and how many phrases do.

    Phrases of one sentence introduce different things, and so do different nouns; the same noun in another sentence may
    mean the same again.
    """
    counts: dict[frozenset[int], dict[str, Counter[int]]] = {}
    for reading, fits in zip(readings, fitting, strict=True):
        if reading.introduces:
            sentence = len(re.findall(r"[.!?;]\s", caption[: reading.phrase.span[0]]))
            counts.setdefault(fits, {}).setdefault(reading.name, Counter())[sentence] += reading.count or 2
    phrases = Counter(fits for reading, fits in zip(readings, fitting, strict=True) if reading.introduces)
    return {
        fits: (sum(max(sentences.values()) for sentences in nouns.values()), phrases[fits])
        for fits, nouns in counts.items()
    }


def read_phrase(phrase: Phrase, caption: str, known: Iterable[str], names: Names | None = None) -> Reading:
    """What a phrase of a caption asks for; `known` are the names that labels of this image have.

    The noun is the longest end of the phrase that `known` or the table of kinds holds ("teddy bear", "fire hydrant").
    """
    before = words(phrase.text[: phrase.text.rfind(phrase.head)])
    head = words(phrase.head) or [""]
    content = [*(word for word in before if word not in ("and", "or", "of")), *head]
    vocabulary = {*known, *KINDS, *COMPOUNDS}
    name, used = name_key(" ".join(head)), len(head)
    for length in range(min(3, len(content)), 1, -1):
        key = name_key(" ".join(content[-length:]))
        told_apart = key in vocabulary or (names is not None and names(key) not in (None, names(name)))
        if told_apart and content[-length] not in SILENT:
            name, used = key, length
            break
    rest = content[: len(content) - used]
    numbers = [count for word in rest if (count := number_of(word)) is not None]
    count = numbers[-1] if numbers else 2 if _PAIR.search(caption[: phrase.span[0]]) or "pair" in rest else None
    several = is_plural(head[-1])
    if several is False:
        count = 1
    elif count == 1 and several:  # "a group of dogs"
        count = None
    introduces = not rest or rest[0] not in ("the", "this", "that", "his", "her", "its", "their", "other")
    attributes = frozenset(word for word in rest if word not in SILENT and number_of(word) is None)
    side = _side(caption[phrase.span[1] :]) | (attributes & {"left", "right", "middle"})
    return Reading(phrase, name, attributes - side, count, introduces, side)


def _side(after: str) -> frozenset[str]:
    """The part of the image that the words after a phrase place it in."""
    found = _SIDE.match(after)
    said = words(found[1].replace("-", " ")) if found else []
    same = {"upper": "top", "lower": "bottom", "center": "middle", "centre": "middle"}
    return frozenset(same.get(word, word) for word in said)


def _fitting(reading: Reading, things: Sequence[Thing], names: Names | None) -> tuple[frozenset[int], float]:
    """The things that have the name and may have the attributes of a phrase, and how sure that is."""
    named = [k for k, thing in enumerate(things) if thing.name == reading.name]
    evidence = CERTAIN
    if not named:
        named = [k for k, thing in enumerate(things) if means(reading.name, thing.name, names)]
        evidence = OTHER_NAME
    if not reading.attributes or not named:
        return frozenset(named), evidence
    said = {k: _attributes(things[k]) for k in named}
    full = [k for k in named if reading.attributes <= said[k]]
    if full:
        exact = [k for k in full if said[k] == reading.attributes]
        wanted = reading.count or 2
        return frozenset(exact if len(exact) >= wanted else full), evidence
    open_ = [k for k in named if not _contradicts(reading.attributes, said[k])]
    return frozenset(open_), min(evidence, UNCHECKED)


def means(name: str, label: str, names: Names | None = None) -> bool:
    """Whether a noun may mean a thing of that label, by the table of kinds or an ontology's `name_of`."""
    if is_called(name, label):
        return True
    return names is not None and (meant := names(name)) is not None and meant == names(label)


def _attributes(thing: Thing) -> frozenset[str]:
    """The words that are said of a thing, those of its own name left out."""
    said = {word for saying in thing.sayings for word in words(saying.text)}
    return frozenset(word for word in said if word not in thing.name.split() and word not in SILENT)


def _contradicts(asked: frozenset[str], said: frozenset[str]) -> bool:
    """Whether a thing has another attribute of a family than is asked for."""
    return any(asked & family and said & family and not asked & said & family for family in FAMILIES)


def _choose(
    reading: Reading, fits: Sequence[int], things: Sequence[Thing], size: Size, guess: bool
) -> tuple[tuple[int, ...], float]:
    """Which of the things that fit a phrase means, and how sure that is; none where it is open.

    `guess`: whether the largest may be taken for the one that is meant.
    """
    if reading.side and reading.count == 1:
        there = [k for k in fits if _is_there(things[k], reading.side, size)]
        if not there:
            return (), 0.0
        if len(there) == 1 < len(fits):
            return tuple(there), BY_SIDE
        fits = there
    if reading.count is None:
        return tuple(fits), CERTAIN if len(fits) > 1 else UNCHECKED
    if len(fits) <= reading.count:
        return tuple(fits), len(fits) / reading.count
    order = sorted(fits, key=lambda k: -things[k].area)
    if not guess or things[order[reading.count - 1]].area < LARGER * things[order[reading.count]].area:
        return (), 0.0
    return tuple(sorted(order[: reading.count])), PROMINENT


def _is_there(thing: Thing, side: frozenset[str], size: Size) -> bool:
    """Whether the middle of a thing lies where it should: in that half of the image, or in the middle two thirds."""
    x, y = thing.centre[0] / size[0], thing.centre[1] / size[1]
    tests = {"left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5}
    middle = "middle" not in side or 1 / 6 < x < 5 / 6
    return middle and all(tests.get(word, True) for word in side)
