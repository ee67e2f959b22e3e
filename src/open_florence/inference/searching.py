"""What the engine's decoding has to offer: a search over answers that begin and end at different times.

Two files do: `greedy_slots` and `beam_slots`. Their choices are those of `generate.one_by_one` and `beam.beam_search`;
what differs is that a question comes in while others are half answered, and leaves when it is done. Every step waits
for the device once, for what it chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from open_florence.generation import GenerationConfig
from open_florence.inference.asking import Question, Said
from open_florence.inference.legal import Legal
from open_florence.model.florence import Florence, Memory


class Ended(NamedTuple):
    """A question whose answer is final."""

    question: Question
    said: Said


class Search(Protocol):
    """Questions being answered, each in a slot of its own."""

    @property
    def free(self) -> int:
        """How many more questions there is room for."""
        ...

    @property
    def active(self) -> int:
        """How many questions are being answered."""
        ...

    def admit(self, memory: Memory, questions: Sequence[Question]) -> None:
        """Begins to answer N <= `free` questions, encoded in `memory` (N rows)."""
        ...

    def begin_step(self) -> None:
        """Has the device choose one more token of every answer, without waiting for it."""
        ...

    def end_step(self) -> list[Ended]:
        """Waits for the tokens; returns the answers that ended with theirs, whose slots are free now."""
        ...


def new_legal(model: Florence, config: GenerationConfig) -> Legal | None:
    """Where the rows stand in their grammars, None where answers are not constrained."""
    return Legal(config.vocabulary or model.config.text.vocab_size) if config.constrained else None
