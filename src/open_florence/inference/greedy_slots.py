"""Greedy search over answers that begin and end at different times: one choice for all rows, however far each is.

Letters: N questions that come in, Q in use, R rows that choose, V vocabulary, d width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from open_florence.generation import GenerationConfig
from open_florence.inference.asking import Question, Said
from open_florence.inference.constraints import NEVER, Constraints, suppress
from open_florence.inference.request import bins_of, why_stopped
from open_florence.inference.searching import Ended, new_legal
from open_florence.model.florence import Florence, Memory


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
        self.legal = new_legal(model, config)
        self.answers: list[_Answer] = []
        """By slot."""
        self.tokens = torch.zeros(0, dtype=torch.long, device=model.device)
        """(Q,): the last token of each, which the model has not read yet."""
        self.fresh = 0
        """How many of the answers, the last ones, have said nothing yet."""
        self.choosing = 0
        """How many, the first ones, chose their token in this step, which others were given."""
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
            if self.legal is not None:
                self.legal.add(question.automaton, self.constraints.limit - self.constraints.given)
        self.tokens = torch.cat([self.tokens, self.tokens.new_full((len(questions),), self.config.start)])
        self.fresh += len(questions)

    @torch.inference_mode()
    def begin_step(self) -> None:
        """See `Search`."""
        hidden = self.model.step(self.tokens, self.slots)  # (Q, d)
        self.choosing = len(hidden) - self.fresh * self.constraints.given
        self.chosen = self._choose(hidden)
        self.tokens, self.fresh = self.chosen[0].long(), 0

    @torch.inference_mode()
    def end_step(self) -> list[Ended]:
        """See `Search`."""
        ended = []
        tokens, logprobs, means = self.chosen.tolist()
        if self.legal is not None:
            self.legal.advance(list(map(int, tokens[: self.choosing])), range(self.choosing))
        for slot, (token, logprob, mean) in enumerate(zip(tokens, logprobs, means, strict=True)):
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
        limits, choosing = self.constraints, self.choosing
        chosen = torch.full((3, len(hidden)), float("nan"), device=hidden.device)
        chosen[1] = 0
        if limits.first is not None:
            chosen[0] = float(limits.first)
        if choosing:
            logits = self._logits(hidden[:choosing])  # (R, V)
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

    def _logits(self, hidden: Tensor) -> Tensor:
        """States (R, d) of the first R rows -> (R, V) float32, under their grammars if they have any."""
        if self.legal is not None:
            return self.legal.logits(self.model, hidden, range(len(hidden)))
        return self.model.logits(hidden)[:, : self.config.vocabulary].float()

    def _allowed(self, scores: Tensor) -> Tensor:
        """What the constraints leave of the scores of the first rows, (R, V) -> (R, V), as `Constraints` says."""
        ngram, left = self.constraints.no_repeat_ngram_size, scores
        if ngram:
            banned = [(row, token) for row in range(len(scores)) for token in self.answers[row].banned(ngram)]
            if banned:
                rows, tokens = torch.tensor(banned, device=scores.device).unbind(1)
                left = left.index_put((rows, tokens), left.new_tensor(NEVER))
        if self.constraints.suppressed:
            left = suppress(left, self.constraints.suppressed)
        if self.legal is None or left is scores:
            return left
        return torch.where((left == NEVER).all(1, keepdim=True), scores, left)

    def _release(self, ended: list[int]) -> list[Ended]:
        """Frees slots, in rising order; the answers that were in them."""
        found = [self._said(self.answers[slot]) for slot in ended]
        kept = list(range(len(self.answers)))
        for slot in reversed(ended):
            self.slots.release(slot)
            if self.legal is not None:
                self.legal.release(slot)
            last, place = self.answers.pop(), kept.pop()
            if slot < len(kept):
                self.answers[slot], kept[slot] = last, place
        if ended:
            self.tokens = self.tokens[torch.tensor(kept, dtype=torch.long, device=self.tokens.device)]
        return found

    def _said(self, answer: _Answer) -> Ended:
        ids = answer.history[1:]
        bins = answer.bins if self.config.location_window else []
        stopped = why_stopped(ids, self.constraints, self.config, answer.question.automaton)
        return Ended(answer.question, Said(ids, answer.logprobs, stopped, bins))
