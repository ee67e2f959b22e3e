"""What an automaton over ids is: which tokens may come next, and where the answer then stands.

An answer is cut at a number of tokens, so an automaton also knows how many the shortest ending of each choice takes: it
offers nothing that could not be finished.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from open_florence.legal_tokens.lexicon import Lexicon, Mask

State = Hashable
"""Where an answer stands. What it is made of is the automaton's own affair."""

AXES = 2
"""Location tokens of a point: who generates asks about images."""

UNLIMITED = sys.maxsize
"""More tokens than any answer takes."""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Allowed:
    """The tokens that may come next. One object for one set, as far as it goes: compare with `is`."""

    mask: Mask
    """(V,), True for those that may. Shared: not to be changed."""
    only_locations: bool
    """Whether they are the location tokens, all of them and nothing else."""


class Choice(NamedTuple):
    """Tokens that may come next and are alike in what has to follow them."""

    ids: Mask | slice | list[int]
    """Any index of a mask (V,)."""
    rest: int
    """How many tokens the answer takes at least after one of them, the end token among them."""


class Automaton(ABC):
    """A grammar, token by token: `start`, then `advance` with every token, each one of those that are `allowed`.

    It does not change while it is used, so that many answers may share one, and does not know <s>: that is forced.
    """

    start: State
    slack: int
    """With so many tokens left, or more, the limit takes nothing away."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._known: dict[tuple[State, int], Allowed] = {}

    @property
    def vocabulary(self) -> int:
        """V, the length of its masks."""
        return self.lexicon.vocabulary

    @abstractmethod
    def advance(self, state: State, token: int) -> State | None:
        """The state after one more token; None after the end token, and after one that was not allowed."""

    @abstractmethod
    def choices(self, state: State) -> Iterable[Choice]:
        """What may come next, the limit left aside."""

    def alike(self, state: State) -> State:
        """A state with the same choices, one for many, so that the masks that are kept stay few."""
        return state

    def allowed(self, state: State, left: int = UNLIMITED) -> Allowed:
        """What may come next where at most `left` more tokens are written, the end token among them.

        At least one token is, if every token so far was allowed with the number that was left then.
        """
        key = self.alike(state), min(left, self.slack)
        if (found := self._known.get(key)) is None:
            found = self._known[key] = self._allowed(*key)
        return found

    def cut(self, tokens: Sequence[int], left: int) -> bool:
        """Whether the limit, `left` tokens at the start, kept a finished answer from going on where it ended.

        `tokens` as they were said, the end token last.
        """
        left -= len(tokens) - 1
        if left >= self.slack:
            return False
        state: State | None = self.start
        for token in tokens[:-1]:
            state = None if state is None else self.advance(state, token)
        return state is None or bool((self.allowed(state).mask != self.allowed(state, left).mask).any())

    def _allowed(self, state: State, left: int) -> Allowed:
        mask = np.zeros(self.vocabulary, np.bool_)
        locations = self.lexicon.locations
        for choice in self.choices(state):
            if choice.rest < left:
                mask[choice.ids] = True
        only = bool(mask[locations.start : locations.stop].all()) and int(mask.sum()) == len(locations)
        return Allowed(mask, only)

    @property
    def _end(self) -> Choice:
        return Choice([self.lexicon.end], 0)

    def _location(self, rest: int) -> Choice:
        return Choice(slice(self.lexicon.locations.start, self.lexicon.locations.stop), rest)
