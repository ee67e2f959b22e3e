"""The grammars of a batch's answers against the model's scores: masks, and the short way where only a place is due.

A coordinate is one of 1,000 ids, and most of an answer in boxes is coordinates: where a row can only say one, its
logits are computed for the location tokens alone. Masks go onto logits, before any softmax, so that scores are
probabilities among the tokens that were allowed.

Letters: R rows, V vocabulary, d width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.inference.constraints import NEVER
from open_florence.legal_tokens import Allowed, Automaton, State
from open_florence.model.florence import Florence


class Legal:
    """Where the answer of every row stands in its grammar. Rows are those of the decoder, in its order.

    A step is `logits` (or `mask`, for scores that are there already), the choice of a token in every row, for beams
    `reorder`, then `advance`. Rows may be added and released at any time.
    """

    def __init__(self, vocabulary: int) -> None:
        """`vocabulary`: V, the ids that scores are of."""
        self.vocabulary = vocabulary
        self._automata: list[Automaton | None] = []
        self._states: list[State | None] = []
        self._left: list[int] = []
        self._allowed: list[Allowed | None] = []
        self._forbidden: WeakKeyDictionary[Allowed, Tensor] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._automata)

    def add(self, automaton: Automaton | None, left: int, rows: int = 1) -> None:
        """Rows behind those that are there, at the start of an answer; None allows everything.

        `left` tokens may still be written, the end token among them and forced ones that were read left out. Raises
        OpenFlorenceError for an automaton of another vocabulary.
        """
        if automaton is not None and automaton.vocabulary != self.vocabulary:
            raise OpenFlorenceError(
                f"the automaton is of {automaton.vocabulary} ids, but the scores are of {self.vocabulary}"
            )
        for _ in range(rows):
            self._automata.append(automaton)
            self._states.append(None if automaton is None else automaton.start)
            self._left.append(left)
            self._allowed.append(self._look(len(self._allowed)))

    @property
    def automata(self) -> list[Automaton | None]:
        """That of each row."""
        return self._automata

    def release(self, first: int, rows: int = 1) -> None:
        """Forgets the rows from `first` on; as many of the last ones move to their place."""
        order = list(range(len(self)))
        order[first : first + rows] = order[-rows:]
        self.reorder(order[:-rows])

    def reorder(self, rows: Sequence[int]) -> None:
        """Row i becomes what row rows[i] was; there may be more of them than before."""
        self._automata = [self._automata[row] for row in rows]
        self._states = [self._states[row] for row in rows]
        self._left = [self._left[row] for row in rows]
        self._allowed = [self._allowed[row] for row in rows]

    def advance(self, tokens: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """One more token was said by every row, or by `rows` alone.

        After the end token, or one that was not allowed, a row may say anything.
        """
        for row, token in zip(range(len(self)) if rows is None else rows, tokens, strict=True):
            self._left[row] -= 1
            automaton, state = self._automata[row], self._states[row]
            if automaton is not None and state is not None:
                self._states[row] = automaton.advance(state, token)
                self._allowed[row] = self._look(row)

    def only_locations(self, row: int) -> bool:
        """Whether nothing but a location may come next. So it is taken to be where an answer is over."""
        allowed = self._allowed[row]
        return self._automata[row] is not None if allowed is None else allowed.only_locations

    def logits(self, model: Florence, hidden: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """The decoder's states (R, d) of all rows, or of `rows` -> masked logits (R, V) float32 of the next token.

        Of rows that can only say a location, those of the locations alone are computed.
        """
        rows = range(len(self)) if rows is None else rows
        narrow = [place for place, row in enumerate(rows) if self.only_locations(row)]
        if not narrow:
            return self.mask(model.logits(hidden)[:, : self.vocabulary].float(), rows)
        places = next(a for a in self._automata if a is not None).lexicon.locations
        scores = torch.full((len(hidden), self.vocabulary), NEVER, device=hidden.device)
        if len(narrow) == len(rows):
            scores[:, places.start : places.stop] = model.logits(hidden, places).float()
            return scores
        wide = sorted(set(range(len(rows))).difference(narrow))
        near, far = (torch.tensor(some, device=hidden.device) for some in (narrow, wide))
        scores[near, places.start : places.stop] = model.logits(hidden[near], places).float()
        some = model.logits(hidden[far])[:, : self.vocabulary].float()  # (rows that are not narrow, V)
        scores[far] = self.mask(some, [rows[place] for place in wide])
        return scores

    def mask(self, scores: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Scores (R, V) of the next token of all rows, or of `rows` -> the same, -inf where a token is not allowed."""
        allowed = self._allowed if rows is None else [self._allowed[row] for row in rows]
        if all(each is allowed[0] for each in allowed):
            first = allowed[0]
            return scores if first is None else scores.masked_fill(self._forbidding(first, scores.device), NEVER)
        nothing = torch.zeros(self.vocabulary, dtype=torch.bool, device=scores.device)
        forbidden = [nothing if each is None else self._forbidding(each, scores.device) for each in allowed]
        return scores.masked_fill(torch.stack(forbidden), NEVER)

    def _look(self, row: int) -> Allowed | None:
        """What a row may say next; None for anything."""
        automaton, state = self._automata[row], self._states[row]
        return None if automaton is None or state is None else automaton.allowed(state, self._left[row])

    def _forbidding(self, allowed: Allowed, device: torch.device) -> Tensor:
        """The ids (V,) that are not allowed, on the device."""
        if (found := self._forbidden.get(allowed)) is None:
            found = self._forbidden[allowed] = ~torch.from_numpy(allowed.mask).to(device)
        return found
