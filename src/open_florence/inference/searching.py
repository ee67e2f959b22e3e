"""Greedy and beam search over answers that begin and end at different times: what the engine's decoding is made of.

The choices are those of `generate.one_by_one` and `beam.beam_search`; what differs is that a question comes in while
others are half answered, and leaves when it is done. Every step waits for the device once, for what it chose.

Letters: N questions that come in, Q in use, K beams, R = Q * K rows, V vocabulary, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from open_florence.generation import GenerationConfig
from open_florence.inference.asking import Question, Said
from open_florence.inference.beam import Race, advance, begin, results
from open_florence.inference.constraints import NEVER, Constraints, suppress
from open_florence.inference.request import bins_of, why_stopped
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


def new_search(model: Florence, config: GenerationConfig, max_rows: int) -> Search:
    """The search that `config` asks for, which must not sample, with room for `max_rows` rows."""
    limit = min(config.max_new_tokens, model.config.text.max_positions)
    constraints = Constraints(
        limit, config.no_repeat_ngram_size, config.forced_first, config.forced_last, config.suppressed
    )
    if config.num_beams == 1:
        return GreedySearch(model, config, constraints, max_rows)
    return SlotBeamSearch(model, config, constraints, max(1, max_rows // config.num_beams))


@dataclass(slots=True)
class _Answer:
    """An answer while it is written."""

    question: Question
    history: list[int] = field(default_factory=list)
    """The start token and what was said."""
    logprobs: list[float] = field(default_factory=list)
    bins: list[float] = field(default_factory=list)
    followers: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    """What each n - 1 tokens in a row were followed by, where n-grams may not repeat."""

    def append(self, token: int, ngram: int) -> None:
        """Takes in a token; `ngram` is the size of those that may not repeat, or 0."""
        self.history.append(token)
        if ngram and len(self.history) >= ngram:
            self.followers.setdefault(tuple(self.history[-ngram:-1]), []).append(token)

    def banned(self, ngram: int) -> list[int]:
        """The tokens that would repeat an n-gram of that size."""
        return self.followers.get(tuple(self.history[len(self.history) - ngram + 1 :]), [])


class GreedySearch:
    """The likeliest token of every row, all rows at once, however far each has come."""

    def __init__(self, model: Florence, config: GenerationConfig, constraints: Constraints, rows: int) -> None:
        self.model, self.config, self.constraints = model, config, constraints
        self.slots = model.new_slots(rows)
        self.answers: list[_Answer] = []
        """By slot."""
        self.tokens = torch.zeros(0, dtype=torch.long, device=model.device)
        """(Q,): the last token of each, which the model has not read yet."""
        self.fresh = 0
        """How many of the answers, the last ones, have said nothing yet."""
        self.chosen = self.tokens.new_zeros(3, 0, dtype=torch.float32)
        """(3, Q): what this step chose, see `_choose`."""

    @property
    def free(self) -> int:
        """See `Search`."""
        return self.slots.slots - len(self.answers)

    @property
    def active(self) -> int:
        """See `Search`."""
        return len(self.answers)

    @torch.inference_mode()
    def admit(self, memory: Memory, questions: Sequence[Question]) -> None:
        """See `Search`."""
        self.model.admit(memory, self.slots)
        for question in questions:
            self.answers.append(_Answer(question))
            self.answers[-1].append(self.config.start, self.config.no_repeat_ngram_size)
        self.tokens = torch.cat([self.tokens, self.tokens.new_full((len(questions),), self.config.start)])
        self.fresh += len(questions)

    @torch.inference_mode()
    def begin_step(self) -> None:
        """See `Search`."""
        self.chosen = self._choose(self.model.step(self.tokens, self.slots))
        self.tokens, self.fresh = self.chosen[0].long(), 0

    @torch.inference_mode()
    def end_step(self) -> list[Ended]:
        """See `Search`."""
        ended = []
        for slot, (token, logprob, mean) in enumerate(zip(*self.chosen.tolist(), strict=True)):
            answer = self.answers[slot]
            answer.append(int(token), self.config.no_repeat_ngram_size)
            answer.logprobs.append(logprob)
            answer.bins.append(mean)
            if token == self.config.end or len(answer.history) > self.constraints.limit:
                ended.append(slot)
        return self._release(ended)

    def _choose(self, hidden: Tensor) -> Tensor:
        """States (Q, d) -> (3, Q) float32: the next token, its log-probability, the mean bin around it.

        Ids below 2 ** 24 are exact in float32, and one tensor is one transfer.
        """
        limits, first = self.constraints, self.constraints.first
        chosen = torch.full((3, len(hidden)), float("nan"), device=hidden.device)
        chosen[1] = 0
        choosing = len(hidden)
        if first is not None and limits.limit > 1:  # of a single token, the forced last one wins
            choosing -= self.fresh
            chosen[0, choosing:] = float(first)
        if choosing:
            logits = self.model.logits(hidden[:choosing])[:, : self.config.vocabulary].float()  # (R, V)
            scores = self._allowed(logits)
            token = scores.argmax(-1)  # (R,)
            chosen[0, :choosing] = token
            chosen[1, :choosing] = scores.gather(1, token[:, None])[:, 0] - scores.logsumexp(-1)
            chosen[2, :choosing] = bins_of(logits, torch.arange(choosing, device=token.device), token, self.config)
        if limits.last is not None:
            for slot, answer in enumerate(self.answers):
                if len(answer.history) == limits.limit:
                    chosen[:, slot] = torch.tensor([limits.last, 0, float("nan")])
        return chosen

    def _allowed(self, scores: Tensor) -> Tensor:
        """What the constraints leave of the scores of the first rows, (R, V) -> (R, V)."""
        ngram = self.constraints.no_repeat_ngram_size
        if ngram:
            banned = [(row, token) for row in range(len(scores)) for token in self.answers[row].banned(ngram)]
            if banned:
                rows, tokens = torch.tensor(banned, device=scores.device).unbind(1)
                scores = scores.index_put((rows, tokens), scores.new_tensor(NEVER))
        return suppress(scores, self.constraints.suppressed) if self.constraints.suppressed else scores

    def _release(self, ended: list[int]) -> list[Ended]:
        """Frees slots, in rising order; the answers that were in them."""
        found = [self._said(self.answers[slot]) for slot in ended]
        kept = list(range(len(self.answers)))
        for slot in reversed(ended):
            self.slots.release(slot)
            last, place = self.answers.pop(), kept.pop()
            if slot < len(kept):
                self.answers[slot], kept[slot] = last, place
        if ended:
            self.tokens = self.tokens[torch.tensor(kept, dtype=torch.long, device=self.tokens.device)]
        return found

    def _said(self, answer: _Answer) -> Ended:
        ids = answer.history[1:]
        bins = answer.bins if self.config.location_window else []
        return Ended(answer.question, Said(ids, answer.logprobs, why_stopped(ids, self.constraints, self.config), bins))


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
        self.seats: list[_Seat] = []
        """By slot."""
        self.companies: list[_Company] = []
        self.choosing: list[_Company] = []
        """The companies that chose something in this step."""

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

    @torch.inference_mode()
    def begin_step(self) -> None:
        """See `Search`."""
        places = self._rows(self.companies)  # (R,): the row of each beam, company by company
        given = torch.cat([self._next(company) for company in self.companies])  # (R,)
        tokens = torch.empty_like(given).index_copy_(0, places, given)  # by row
        hidden = self.model.step(tokens, self.slots)  # (R, d)
        self.choosing = [company for company in self.companies if len(company.history) == self._opening]
        if not self.choosing:
            return
        rows = places if len(self.choosing) == len(self.companies) else self._rows(self.choosing)
        logits = self.model.logits(hidden[rows])[:, : self.config.vocabulary].float()  # (rows, V)
        origins = torch.arange(len(hidden), device=rows.device)  # of every row, itself unless it chooses
        counts = [len(company.seats) * self.config.num_beams for company in self.choosing]
        for company, own, some in zip(
            self.choosing, torch.split(rows, counts), torch.split(logits, counts), strict=True
        ):
            company.race = race = advance(company.race or self._begin(company), some, self.config, self.constraints)
            origins[own] = own[race.origins]
        self.slots.reorder(origins)

    @torch.inference_mode()
    def end_step(self) -> list[Ended]:
        """See `Search`."""
        races = [company.race for company in self.choosing if company.race is not None]
        closed: list[bool] = torch.cat([race.closed for race in races]).tolist() if races else []
        ended: list[Ended] = []
        for company, race in zip(self.choosing, races, strict=True):
            here, closed = closed[: len(company.seats)], closed[len(company.seats) :]
            if any(here):
                ended += self._finish(company, race, here)
        self.companies = [company for company in self.companies if company.seats]
        return ended

    @property
    def _opening(self) -> int:
        """How many tokens an answer begins with: the start token, and the first where one is forced."""
        return 1 if self.constraints.first is None or self.constraints.limit == 1 else 2

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

    def _rows(self, companies: Sequence[_Company]) -> Tensor:
        """(rows,) long: the rows of the companies' beams, in their order."""
        beams = self.config.num_beams
        rows = [seat.slot * beams + beam for company in companies for seat in company.seats for beam in range(beams)]
        return torch.tensor(rows, device=self.model.device)

    def _finish(self, company: _Company, race: Race, closed: list[bool]) -> list[Ended]:
        """Takes the closed questions out of a company."""
        places = [[k for k, done in enumerate(closed) if done is which] for which in (True, False)]
        final, going = (torch.tensor(some, dtype=torch.long, device=race.closed.device) for some in places)
        found = results(race.some(final), self.config, self.constraints)
        left = [company.seats[place] for place in places[0]]
        company.seats = [company.seats[place] for place in places[1]]
        company.race = race.some(going)
        for seat in left:
            self.slots.release(seat.slot)
            last = self.seats.pop()
            if last is not seat:
                self.seats[seat.slot], last.slot = last, seat.slot
        said = map(Said, found.ids, found.logprobs, found.stopped, found.bins)
        return [Ended(seat.question, answer) for seat, answer in zip(left, said, strict=True)]
