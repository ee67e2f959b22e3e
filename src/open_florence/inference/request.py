"""The one-token step that every way of choosing shares, and how its tensors become a `Generation`.

Letters: B questions (memory rows), K beams or draws per question, R = B * K rows, V vocabulary, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from open_florence.generation import Generation, GenerationConfig, Stopped
from open_florence.inference.constraints import Constraints
from open_florence.inference.legal import Legal
from open_florence.inference.sub_bin import expected_bins
from open_florence.legal_tokens import Automaton
from open_florence.model.florence import Florence, Memory


def bins_of(logits: Tensor, rows: Tensor, tokens: Tensor, config: GenerationConfig) -> Tensor:
    """The `expected_bins` (N,) with the request's settings; NaN without a window. Arguments as there."""
    if not config.location_window or config.locations is None:
        return torch.full_like(tokens, float("nan"), dtype=torch.float32)
    return expected_bins(logits, rows, tokens, config.locations, config.location_window)


class Stepper:
    """The model and its cache for one request: the tokens since the last call in, the logits of the next one out."""

    def __init__(self, model: Florence, memory: Memory, vocabulary: int | None, legal: Legal | None = None) -> None:
        """`legal` has a row for each question and masks the logits; None allows everything."""
        self.model, self.memory, self.vocabulary, self.legal = model, memory, vocabulary, legal
        self.automata = None if legal is None else legal.automata
        """Those of the questions, before there were copies."""
        self.cache = model.new_cache()

    def __call__(self, tokens: Tensor) -> Tensor:
        """`tokens` (R, 1) that were chosen -> logits of the next token (R, V), float32."""
        if self.legal is not None:
            self.legal.advance(tokens[:, 0].tolist())
        return self._read(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was; rows (R,) long."""
        self.cache.reorder(rows)
        if self.legal is not None:
            self.legal.reorder(rows.tolist())

    def open(self, config: GenerationConfig, constraints: Constraints, copies: int) -> tuple[Tensor, Tensor]:
        """The first step: the start token and, if one is forced, the first, read once per question.

        Returns the tokens so far (R, T) and the logits of the next (R, V), R = B * `copies`.
        """
        tokens = [config.start]
        if constraints.first is not None and constraints.given:
            tokens.append(constraints.first)
        questions, device = len(self.memory.hidden), self.memory.hidden.device
        history = torch.tensor([tokens] * questions, dtype=torch.long, device=device)  # (B, T)
        logits = self._read(history)  # (B, V)
        if copies == 1:
            return history, logits
        rows = torch.arange(questions, device=device).repeat_interleave(copies)  # (R,)
        self.reorder(rows)
        return history[rows], logits[rows]

    def _read(self, tokens: Tensor) -> Tensor:
        """Tokens (R, T) that the cache has not seen -> logits of the next one (R, V), float32."""
        if self.legal is not None:
            return self.legal.logits(self.model, self.model.hidden(tokens, self.memory, self.cache)[:, -1])
        logits = self.model.decode(tokens, self.memory, self.cache)[:, -1]  # (R, V)
        return logits[:, : self.vocabulary].float()


def collect(
    tokens: Tensor,
    logprobs: Tensor,
    bins: Tensor,
    constraints: Constraints,
    config: GenerationConfig,
    scores: Tensor | None = None,
    origins: Tensor | None = None,
    automata: Sequence[Automaton | None] | None = None,
) -> Generation:
    """Tensors of one length to lists that end with their end token.

    `tokens`, `logprobs` and `bins` (N, T) without the start token; `scores` (N,) and `origins` (N, T) where beams made
    them; `automata`, one per question, where answers kept to them.
    """
    padded: list[list[int]] = tokens.tolist()
    lengths = [row.index(config.end) + 1 if config.end in row else len(row) for row in padded]
    ids = [row[:length] for row, length in zip(padded, lengths, strict=True)]
    steps = [row[:length] for row, length in zip(logprobs.tolist(), lengths, strict=True)]
    beams: list[list[int]] = [[] for _ in ids]
    if scores is None or origins is None:
        totals = [sum(row) / len(row) ** config.length_penalty for row in steps]
    else:
        totals = scores.tolist()
        beams = [row[:length] for row, length in zip(origins.tolist(), lengths, strict=True)]
    read: list[list[float]] = [[] for _ in ids]
    if config.location_window:
        read = [row[:length] for row, length in zip(bins.tolist(), lengths, strict=True)]
    kept = [automaton for automaton in automata or [] for _ in range(config.num_return_sequences)] or [None] * len(ids)
    stopped = [why_stopped(row, constraints, config, automaton) for row, automaton in zip(ids, kept, strict=True)]
    return Generation(ids, steps, totals, stopped, beams, read)


def why_stopped(
    ids: list[int], constraints: Constraints, config: GenerationConfig, automaton: Automaton | None = None
) -> Stopped:
    """Why an answer ended. An end token that was forced, or would have been, says nothing about the model.

    Nor does one before which the limit had already taken away what the answer's automaton allows.
    """
    cut = len(ids) == constraints.limit and (constraints.last is not None or ids[-1] != config.end)
    if automaton is not None and not cut:
        cut = automaton.cut(ids[constraints.given :], constraints.limit - constraints.given)
    return "length" if cut else "eos"
