"""Answers in words, and the box that may be repeated after them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from open_florence.legal_tokens.automaton import AXES, Automaton, Choice
from open_florence.legal_tokens.lexicon import VISIBLE, Lexicon, Words

ECHO = 2 * AXES
"""Location tokens of the box that is repeated."""


class TextAutomaton(Automaton):
    """Any words, also none; with `echo` then the box that was asked about, or none. States: words, or how much of the
    box is said."""

    start: Words = VISIBLE  # whether anything is visible does not matter

    def __init__(self, lexicon: Lexicon, echo: bool) -> None:
        super().__init__(lexicon)
        self.echo = echo
        self.slack = 1 + ECHO if echo else 2

    def advance(self, state: Any, token: int) -> Words | int | None:
        """See `Automaton`."""
        if token in self.lexicon.locations:
            said = state if isinstance(state, int) else 0
            return said + 1 if self.echo and said < ECHO else None
        if isinstance(state, int):
            return None
        return self.lexicon.say(state, token)

    def choices(self, state: Any) -> Iterator[Choice]:
        """See `Automaton`."""
        if isinstance(state, int):
            yield self._end if state == ECHO else self._location(ECHO - state)
            return
        yield self._end
        yield Choice(self.lexicon.mask(state), 1)
        if self.echo:
            yield self._location(ECHO)
