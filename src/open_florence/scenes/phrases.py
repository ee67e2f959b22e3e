"""Noun phrases: articles, plurals, numbers, groups of objects, and texts that remember where each phrase stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from open_florence.scenes.contents import Contents, SceneObject
from open_florence.scenes.vocabulary import NUMBERS


def article(noun: str) -> str:
    """ "a red star", "an orange star"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The last word in the plural: "red crosses"."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return noun[:-1] + "ies"
    return noun + "s"


def number(count: int) -> str:
    """A count in words, up to twenty."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def counted(noun: str, count: int) -> str:
    """ "a red star", "three red stars"."""
    return article(noun) if count == 1 else f"{number(count)} {plural(noun)}"


@dataclass(frozen=True)
class Group:
    """Objects that one noun phrase stands for."""

    noun: str
    """In the singular, without article: "red star"."""
    members: tuple[int, ...]
    """Indices into the scene's objects, left to right."""

    @property
    def phrase(self) -> str:
        return counted(self.noun, len(self.members))


def groups(objects: Sequence[SceneObject], noun: Callable[[SceneObject], str]) -> list[Group]:
    """Objects of the same noun together, in the order of each group's leftmost member."""
    found: dict[str, list[int]] = {}
    for index, thing in enumerate(objects):
        found.setdefault(noun(thing), []).append(index)
    return [Group(name, tuple(members)) for name, members in found.items()]


def position(thing: SceneObject, scene: Contents) -> str:
    """One of nine places by the centre of the box: "at the top left", "on the right", "in the middle"."""
    return place(thing.centre, scene)


def place(point: tuple[float, float], scene: Contents) -> str:
    """Which of nine equal fields of the image a point is in, in words."""
    column = min(2, int(3 * point[0] / scene.width))
    row = min(2, int(3 * point[1] / scene.height))
    if row == 1:
        return ("on the left", "in the middle", "on the right")[column]
    return f"at the {('top', '', 'bottom')[row]}{(' left', '', ' right')[column]}"


class Passage:
    """A text under construction that knows which characters stand for which objects."""

    def __init__(self) -> None:
        self.text = ""
        self.phrases: list[tuple[tuple[int, int], tuple[int, ...]]] = []
        """(span, members) of each noun phrase, in the order of the text."""

    def say(self, words: str) -> Passage:
        """Append words that stand for no object."""
        self.text += words
        return self

    def name(self, phrase: str, members: tuple[int, ...]) -> Passage:
        """Append a noun phrase."""
        start = len(self.text)
        self.text += phrase
        self.phrases.append(((start, len(self.text)), members))
        return self

    def list(self, items: Sequence[Callable[[Passage], object]]) -> Passage:
        """Append items as "A, B and C"."""
        for k, item in enumerate(items):
            if k:
                self.say(" and " if k == len(items) - 1 else ", ")
            item(self)
        return self


def joined(words: Iterable[str]) -> str:
    """ "A, B and C"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
