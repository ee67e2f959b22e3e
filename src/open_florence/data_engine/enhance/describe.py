"""Detailed descriptions written from the regions alone, for images that no writer has described.

Plain sentences of one pattern: what there is, how many, where, and how two of them stand to each other. Nothing is said
that a region does not show, and every phrase is grounded, because it was made from its regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance.additions import Enhancer, addition
from open_florence.data_engine.enhance.grounding import TASK as GROUNDING
from open_florence.data_engine.enhance.things import Thing, find_things, main_noun
from open_florence.data_engine.enhance.words import counted, joined, plural
from open_florence.schema import Region, Sample, Size
from open_florence.selection import region_score

SOURCE = "template@1"
DETAILED = "<DETAILED_CAPTION>"
MORE_DETAILED = "<MORE_DETAILED_CAPTION>"

MOST_KINDS = 8
"""Kinds of things that are named, those that cover most."""
MOST_WORDS = 4
"""A longer text of a region is left for its category."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Things that are called the same."""

    noun: str
    """In the singular, without article."""
    things: tuple[Thing, ...]
    """From left to right."""


@dataclass
class Passage:
    """A text under construction that knows which characters stand for which things."""

    text: str = ""
    named: list[tuple[tuple[int, int], Kind]] = field(default_factory=list)

    def say(self, words: str) -> Passage:
        """Append words that stand for no thing."""
        self.text += words
        return self

    def name(self, words: str, kind: Kind) -> Passage:
        """Append a noun phrase."""
        self.named.append(((len(self.text), len(self.text) + len(words)), kind))
        return self.say(words)


def description(*, tasks: Sequence[str] = (DETAILED, MORE_DETAILED)) -> Enhancer:
    """An enhancer that writes those of <DETAILED_CAPTION> and <MORE_DETAILED_CAPTION> that nobody else has.

    With each comes its <CAPTION_TO_PHRASE_GROUNDING>. An image without things gets none.
    """

    def enhance(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        things = find_things(candidates)
        there = {c.annotation.task for c in candidates if c.annotation.text.strip()}
        decisions: list[Decision] = []
        for task in tasks:
            if things and task not in there:
                passage = detailed(things) if task == DETAILED else more_detailed(things, sample.size)
                decisions += _decisions(task, passage)
        return decisions

    return enhance


def detailed(things: Sequence[Thing]) -> Passage:
    """ "The image shows two dogs, a person and a frisbee." """
    return _listed(Passage(), kinds(things))


def more_detailed(things: Sequence[Thing], size: Size) -> Passage:
    """The same, then where each kind is and how the first two that stand clearly apart stand to each other."""
    found = kinds(things)
    passage = _listed(Passage(), found)
    for kind in found:
        if len(kind.things) <= 3:
            several = len(kind.things) > 1
            words = f"The {counted(kind.noun, len(kind.things)) if several else kind.noun}"
            places = joined(dict.fromkeys(place(thing, size) for thing in kind.things))
            passage.say(" ").name(words, kind).say(f" {'are' if several else 'is'} {places}.")
    for a, b in pairwise(kind for kind in found if len(kind.things) == 1):
        if where := relation(a.things[0], b.things[0]):
            passage.say(" ").name(f"The {a.noun}", a).say(f" is {where} ").name(f"the {b.noun}", b).say(".")
            break
    return passage


def kinds(things: Sequence[Thing]) -> list[Kind]:
    """Things of one noun together, in the order of their leftmost; at most `MOST_KINDS`."""
    groups: dict[str, list[Thing]] = {}
    for thing in things:
        groups.setdefault(noun_of(thing), []).append(thing)
    largest = sorted(groups, key=lambda noun: -sum(thing.area for thing in groups[noun]))[:MOST_KINDS]
    return [Kind(noun, tuple(members)) for noun, members in groups.items() if noun in largest]


def noun_of(thing: Thing) -> str:
    """What a thing is called so that it can be counted: a short description that ends in its noun, else its name."""
    for saying in reversed(thing.sayings):  # the last was chosen among the others
        words = saying.text.split()
        if len(words) <= MOST_WORDS and words[-1] == main_noun(saying.text) and words[-1] != plural(words[-1]):
            return " ".join(words)
    return thing.name


def place(thing: Thing, size: Size) -> str:
    """Which of nine equal fields of an image of `size` (W, H) the middle of a thing is in: "at the top left"."""
    column = min(2, int(3 * thing.centre[0] / size[0]))
    row = min(2, int(3 * thing.centre[1] / size[1]))
    if row == 1:
        return ("on the left", "in the middle", "on the right")[column]
    return f"at the {'top' if row == 0 else 'bottom'}{(' left', '', ' right')[column]}"


def relation(a: Thing, b: Thing) -> str:
    """How a stands to b, where their boxes lie apart: "to the left of", "above"; empty where neither."""
    if a.box[2] <= b.box[0]:
        return "to the left of"
    if a.box[0] >= b.box[2]:
        return "to the right of"
    if a.box[3] <= b.box[1]:
        return "above"
    return "below" if a.box[1] >= b.box[3] else ""


def _listed(passage: Passage, found: Sequence[Kind]) -> Passage:
    passage.say("The image shows ")
    for number, kind in enumerate(found):
        passage.say("" if number == 0 else " and " if number == len(found) - 1 else ", ")
        passage.name(counted(kind.noun, len(kind.things)), kind)
    return passage.say(".")


def _decisions(task: str, passage: Passage) -> list[Decision]:
    regions: list[Region] = []
    for span, kind in passage.named:
        label = passage.text[slice(*span)]
        regions += [
            replace(thing.boxed, label=label, span=span, score=region_score(thing.region)) for thing in kind.things
        ]
    parents = [parent for _, kind in passage.named for thing in kind.things for parent in thing.parents]
    score = min(region_score(region) for region in regions)
    return [
        addition(task, SOURCE, parents, text=passage.text, score=score, reason="written from the regions"),
        addition(
            GROUNDING,
            SOURCE,
            parents,
            text=passage.text,
            regions=regions,
            query=passage.text,
            score=score,
            reason="the regions it was written from",
        ),
    ]
