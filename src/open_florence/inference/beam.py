"""Beam search: the K best continuations of every question, together.

The rules are those of transformers 5.23 (its `_beam_search`), which the published checkpoints were measured with: of
2K candidates per question the first K that are unfinished run on; a candidate that ended is kept only if it stood
among the first K; finished ones are ranked by log-probability / length ** length_penalty.

Letters: B questions, K beams, R = B * K rows, V vocabulary, T tokens so far (the start token included).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from open_florence.generation import Generation, GenerationConfig
from open_florence.inference.constraints import NEVER, Constraints
from open_florence.inference.request import Stepper, bins_of, collect
from open_florence.legal_tokens import Automaton

BEHIND = -1e9
"""Below any log-probability of a sequence, above -inf: a last resort where there are fewer sequences than beams."""


@dataclass(frozen=True, slots=True)
class Beams:
    """N sequences for each question, best first."""

    tokens: Tensor
    """(B, N, T) long, the start token first; finished ones are padded."""
    logprobs: Tensor
    """(B, N, T - 1) float32, of `tokens[:, :, 1:]`."""
    origins: Tensor
    """(B, N, T - 1) long: the row that each of those tokens continued."""
    bins: Tensor
    """(B, N, T - 1) float32: the mean bin around each of those tokens, see `bins_of`."""
    scores: Tensor
    """(B, N) float32: running sequences have their log-probability, finished ones that by their length; -inf where
    there is no sequence yet."""

    def pick(self, index: Tensor, scores: Tensor) -> Beams:
        """The sequences `index` (B, M), with new scores (B, M)."""
        trail = index[:, :, None]
        return Beams(
            self.tokens.take_along_dim(trail, 1),
            self.logprobs.take_along_dim(trail, 1),
            self.origins.take_along_dim(trail, 1),
            self.bins.take_along_dim(trail, 1),
            scores,
        )

    def extended(self, token: Tensor, logprob: Tensor, origin: Tensor, mean: Tensor) -> Beams:
        """Every sequence with one more token: each argument (B, N)."""
        return Beams(
            torch.cat([self.tokens, token[:, :, None]], 2),
            torch.cat([self.logprobs, logprob[:, :, None]], 2),
            torch.cat([self.origins, origin[:, :, None]], 2),
            torch.cat([self.bins, mean[:, :, None]], 2),
            self.scores,
        )

    def joined(self, other: Beams) -> Beams:
        """The sequences of both, this one's first."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in Beams.__slots__)
        return Beams(*(torch.cat(pair, 1) for pair in pairs))


@dataclass(frozen=True, slots=True)
class Race:
    """B questions that have said equally much: their K running sequences, and the K best that ended."""

    running: Beams
    finished: Beams
    closed: Tensor
    """(B,) bool: questions whose answer is final."""

    @property
    def tokens(self) -> Tensor:
        """(R,) long: the last token of each running sequence."""
        return self.running.tokens[:, :, -1].flatten()

    @property
    def origins(self) -> Tensor:
        """(R,) long: the row that each running sequence continues."""
        return self.running.origins[:, :, -1].flatten()

    def some(self, questions: Tensor) -> Race:
        """The race of some of the questions alone, (M,) long."""
        running, finished = (
            Beams(*(getattr(beams, name)[questions] for name in Beams.__slots__))
            for beams in (self.running, self.finished)
        )
        return Race(running, finished, self.closed[questions])


def beam_search(step: Stepper, config: GenerationConfig, constraints: Constraints) -> Generation:
    """Runs until no question can improve; returns the best `num_return_sequences` of each."""
    history, logits = step.open(config, constraints, config.num_beams)  # (R, T), (R, V)
    race = begin(history, config)
    while True:
        race = advance(race, logits, config, constraints)
        if bool(race.closed.all()):
            return results(race, config, constraints, step.automata)
        step.reorder(race.origins)
        logits = step(race.tokens[:, None])


def begin(history: Tensor, config: GenerationConfig) -> Race:
    """The race before its first choice. `history` (R, T): what every answer begins with, the start token first."""
    running = _equal_beams(history.view(-1, config.num_beams, history.shape[1]))
    finished = replace(running, scores=torch.full_like(running.scores, NEVER))  # K places, none taken
    return Race(running, finished, torch.zeros(len(running.tokens), dtype=torch.bool, device=history.device))


def advance(race: Race, logits: Tensor, config: GenerationConfig, constraints: Constraints) -> Race:
    """One more token for every running sequence; `logits` (R, V) of it. At the limit of tokens all are closed."""
    candidates = _candidates(race.running, logits, constraints, config)  # 2K a question
    length = candidates.tokens.shape[2] - 1
    ended = candidates.tokens[:, :, -1] == config.end  # (B, 2K)
    if length == constraints.limit:
        ended = torch.ones_like(ended)
    running = _best(candidates, candidates.scores.masked_fill(ended, NEVER), config.num_beams)
    finished = _finish(race.finished, candidates, ended, race.closed, length, config)
    if length == constraints.limit:
        return Race(running, finished, torch.ones_like(race.closed))
    closed = race.closed | _cannot_improve(running, finished, length, config, constraints.limit)
    return Race(running, finished, closed)


def results(
    race: Race,
    config: GenerationConfig,
    constraints: Constraints,
    automata: Sequence[Automaton | None] | None = None,
) -> Generation:
    """The best `num_return_sequences` that ended, of each question; `automata` as in `generate`."""
    tokens, logprobs, origins, bins, scores = (
        getattr(race.finished, name)[:, : config.num_return_sequences].flatten(0, 1) for name in Beams.__slots__
    )
    return collect(tokens[:, 1:], logprobs, bins, constraints, config, scores, origins, automata)


def _equal_beams(tokens: Tensor) -> Beams:
    """K beams of the same tokens (B, K, T), all but the first so far behind that they do not repeat its choices."""
    questions, width, length = tokens.shape
    scores = torch.full((questions, width), BEHIND, device=tokens.device)
    scores[:, 0] = 0
    rows = torch.arange(questions * width, device=tokens.device).view(questions, width, 1)
    forced = torch.zeros(questions, width, length - 1, device=tokens.device)
    return Beams(tokens, forced, rows.expand(-1, -1, length - 1), torch.full_like(forced, float("nan")), scores)


def _candidates(running: Beams, logits: Tensor, constraints: Constraints, config: GenerationConfig) -> Beams:
    """The 2K likeliest continuations of each question's beams, best first. `logits` (R, V)."""
    width = running.scores.shape[1]
    logprobs = constraints(logits.log_softmax(-1), running.tokens.flatten(0, 1))  # (R, V)
    totals = logprobs.view(*running.scores.shape, -1) + running.scores[:, :, None]  # (B, K, V)
    vocabulary = totals.shape[2]
    scores, flat = totals.flatten(1).topk(2 * width)  # (B, 2K)
    beam, token = flat // vocabulary, flat % vocabulary
    row = beam + width * torch.arange(len(beam), device=beam.device)[:, None]  # (B, 2K): which of the R rows
    bins = bins_of(logits, row.flatten(), token.flatten(), config).view_as(token)  # (B, 2K)
    return running.pick(beam, scores).extended(token, logprobs[row, token], row, bins)


def _best(candidates: Beams, scores: Tensor, width: int) -> Beams:
    scores, index = scores.topk(width)
    return candidates.pick(index, scores)


def _finish(
    finished: Beams, candidates: Beams, ended: Tensor, closed: Tensor, length: int, config: GenerationConfig
) -> Beams:
    """The K best of the finished sequences and of those that ended now among the first K candidates."""
    admitted = ended & ~closed[:, None]  # (B, 2K)
    admitted[:, config.num_beams :] = False
    ranks = (candidates.scores / length**config.length_penalty).masked_fill(~admitted, NEVER)
    blank = torch.full_like(finished.scores, config.pad, dtype=torch.long)
    padded = finished.extended(
        blank, torch.zeros_like(finished.scores), blank, torch.full_like(finished.scores, float("nan"))
    )
    everyone = padded.joined(replace(candidates, scores=ranks))
    return _best(everyone, everyone.scores, config.num_beams)


def _cannot_improve(running: Beams, finished: Beams, length: int, config: GenerationConfig, limit: int) -> Tensor:
    """(B,) bool: questions whose K finished sequences are final."""
    full = (finished.scores > NEVER).all(1) | (running.scores[:, 0] == NEVER)  # or nothing is left that may go on
    if config.early_stopping is True:
        return full
    hoped = limit if config.early_stopping == "never" and config.length_penalty > 0 else length
    best = running.scores[:, 0] / hoped**config.length_penalty
    hopeless: Tensor = best <= finished.scores.min(1).values
    return full & hopeless
