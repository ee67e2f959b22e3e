"""Beam search over answers that begin and end at different times: questions that came in together step together.

Letters: N questions that come in, Q in use, K beams, R = Q * K rows, V vocabulary, d width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from open_florence.generation import GenerationConfig
from open_florence.inference.asking import Question, Said
from open_florence.inference.beam import Race, advance, begin, results
from open_florence.inference.constraints import Constraints
from open_florence.inference.searching import Ended, new_legal
from open_florence.model.florence import Florence, Memory


@dataclass(slots=True)
class _Seat:
    """A question and the slot it is in."""

    question: Question
    slot: int


@dataclass(slots=True)
class _Company:
    """Questions that came in together and so have said equally much."""

    seats: list[_Seat]
    history: list[int]
    """What every answer begins with, as far as the model has read it."""
    race: Race | None = None
    """None until there is something to choose."""


class SlotBeamSearch:
    """Beam search in companies: questions that came together take each step together."""

    def __init__(self, model: Florence, config: GenerationConfig, constraints: Constraints, slots: int) -> None:
        self.model, self.config, self.constraints = model, config, constraints
        self.slots = model.new_slots(slots, config.num_beams)
        self.legal = new_legal(model, config)
        self.seats: list[_Seat] = []
        """By slot."""
        self.companies: list[_Company] = []
        self.choosing: list[_Company] = []
        """The companies that chose something in this step."""
        self.origins = torch.zeros(0, dtype=torch.long, device=model.device)
        """(R,): the row that each row continues after this step."""

    @property
    def free(self) -> int:
        """See `Search`."""
        return self.slots.slots - len(self.seats)

    @property
    def active(self) -> int:
        """See `Search`."""
        return len(self.seats)

    @torch.inference_mode()
    def admit(self, memory: Memory, questions: Sequence[Question]) -> None:
        """See `Search`."""
        taken = self.model.admit(memory, self.slots)
        seats = [_Seat(question, slot) for question, slot in zip(questions, taken, strict=True)]
        self.seats += seats
        self.companies.append(_Company(seats, []))
        if self.legal is not None:
            for question in questions:
                self.legal.add(
                    question.automaton, self.constraints.limit - self.constraints.given, self.config.num_beams
                )

    @torch.inference_mode()
    def begin_step(self) -> None:
        """See `Search`."""
        places = torch.tensor(self._rows(self.companies), device=self.model.device)  # (R,): of each beam, by company
        given = torch.cat([self._next(company) for company in self.companies])  # (R,)
        tokens = torch.empty_like(given).index_copy_(0, places, given)  # by row
        hidden = self.model.step(tokens, self.slots)  # (R, d)
        self.choosing = [company for company in self.companies if len(company.history) > self.constraints.given]
        self.origins = torch.arange(len(hidden), device=hidden.device)  # of every row, itself unless it chooses
        if not self.choosing:
            return
        listed = self._rows(self.choosing)
        rows = torch.tensor(listed, device=hidden.device)
        logits = self._logits(hidden[rows], listed)  # (rows, V)
        counts = [len(company.seats) * self.config.num_beams for company in self.choosing]
        for company, own, some in zip(
            self.choosing, torch.split(rows, counts), torch.split(logits, counts), strict=True
        ):
            company.race = race = advance(company.race or self._begin(company), some, self.config, self.constraints)
            self.origins[own] = own[race.origins]
        self.slots.reorder(self.origins)

    def _logits(self, hidden: Tensor, rows: Sequence[int]) -> Tensor:
        """States (len(rows), d) of some rows -> (len(rows), V) float32, under their grammars if they have any."""
        if self.legal is not None:
            return self.legal.logits(self.model, hidden, rows)
        return self.model.logits(hidden)[:, : self.config.vocabulary].float()

    @torch.inference_mode()
    def end_step(self) -> list[Ended]:
        """See `Search`."""
        races = [company.race for company in self.choosing if company.race is not None]
        if not races:
            return []
        closed: list[bool] = torch.cat([race.closed for race in races]).tolist()
        if self.legal is not None:
            self.legal.reorder(self.origins.tolist())
            self.legal.advance(torch.cat([race.tokens for race in races]).tolist(), self._rows(self.choosing))
        ended: list[Ended] = []
        for company, race in zip(self.choosing, races, strict=True):
            here, closed = closed[: len(company.seats)], closed[len(company.seats) :]
            if any(here):
                ended += self._finish(company, race, here)
        self.companies = [company for company in self.companies if company.seats]
        return ended

    def _next(self, company: _Company) -> Tensor:
        """The token that each beam of a company gives the model next (rows,)."""
        if company.race is not None:
            return company.race.tokens
        token = self.constraints.first if company.history else self.config.start
        assert token is not None  # a company that has read its beginning has a race
        company.history.append(token)
        return torch.full((len(company.seats) * self.config.num_beams,), token, device=self.model.device)

    def _begin(self, company: _Company) -> Race:
        history = torch.tensor([company.history], device=self.model.device)
        return begin(history.expand(len(company.seats) * self.config.num_beams, -1), self.config)

    def _rows(self, companies: Sequence[_Company]) -> list[int]:
        """The rows of the companies' beams, in their order."""
        beams = self.config.num_beams
        return [seat.slot * beams + beam for company in companies for seat in company.seats for beam in range(beams)]

    def _finish(self, company: _Company, race: Race, closed: list[bool]) -> list[Ended]:
        """Takes the closed questions out of a company."""
        places = [[k for k, done in enumerate(closed) if done is which] for which in (True, False)]
        final, going = (torch.tensor(some, dtype=torch.long, device=race.closed.device) for some in places)
        left = [company.seats[place] for place in places[0]]
        automata = [seat.question.automaton for seat in left]
        found = results(race.some(final), self.config, self.constraints, automata)
        company.seats = [company.seats[place] for place in places[1]]
        company.race = race.some(going)
        for seat in left:
            self.slots.release(seat.slot)
            if self.legal is not None:
                self.legal.release(seat.slot * self.config.num_beams, self.config.num_beams)
            last = self.seats.pop()
            if last is not seat:
                self.seats[seat.slot], last.slot = last, seat.slot
        said = map(Said, found.ids, found.logprobs, found.stopped, found.bins)
        return [Ended(seat.question, answer) for seat, answer in zip(left, said, strict=True)]
