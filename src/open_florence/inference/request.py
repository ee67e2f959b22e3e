"""The one-token step that every way of choosing shares, and how its tensors become a `Generation`.

Letters: B questions (memory rows), K beams or draws per question, R = B * K rows, V vocabulary, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from open_florence.generation import Generation, GenerationConfig, Stopped
from open_florence.inference.constraints import Constraints
from open_florence.inference.sub_bin import expected_bins
from open_florence.model.florence import Florence, Memory


def bins_of(logits: Tensor, rows: Tensor, tokens: Tensor, config: GenerationConfig) -> Tensor:
    """The `expected_bins` (N,) with the request's settings; NaN without a window. Arguments as there."""
    if not config.location_window or config.locations is None:
        return torch.full_like(tokens, float("nan"), dtype=torch.float32)
    return expected_bins(logits, rows, tokens, config.locations, config.location_window)


class Stepper:
    """The model and its cache for one request: the tokens since the last call in, the logits of the next one out."""

    def __init__(self, model: Florence, memory: Memory, vocabulary: int | None) -> None:
        self.model, self.memory, self.vocabulary = model, memory, vocabulary
        self.cache = model.new_cache()

    def __call__(self, tokens: Tensor) -> Tensor:
        """`tokens` (R, T) that the cache has not seen -> logits of the next token (R, V), float32."""
        logits = self.model.decode(tokens, self.memory, self.cache)[:, -1]  # (R, V)
        return logits[:, : self.vocabulary].float()

    def open(self, config: GenerationConfig, constraints: Constraints, copies: int) -> tuple[Tensor, Tensor]:
        """The first step: the start token and, if one is forced, the first, read once per question.

        Returns the tokens so far (R, T) and the logits of the next (R, V), R = B * `copies`.
        """
        tokens = [config.start]
        if constraints.first is not None and constraints.limit > 1:  # of a single token, the forced last one wins
            tokens.append(constraints.first)
        questions, device = len(self.memory.hidden), self.memory.hidden.device
        history = torch.tensor([tokens] * questions, dtype=torch.long, device=device)  # (B, T)
        logits = self(history)  # (B, V)
        if copies == 1:
            return history, logits
        rows = torch.arange(questions, device=device).repeat_interleave(copies)  # (R,)
        self.cache.reorder(rows)
        return history[rows], logits[rows]


def collect(
    tokens: Tensor,
    logprobs: Tensor,
    bins: Tensor,
    constraints: Constraints,
    config: GenerationConfig,
    scores: Tensor | None = None,
    origins: Tensor | None = None,
) -> Generation:
    """Tensors of one length to lists that end with their end token.

    `tokens`, `logprobs` and `bins` (N, T) without the start token; `scores` (N,) and `origins` (N, T) where beams made
    them.
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
    return Generation(ids, steps, totals, [why_stopped(row, constraints, config) for row in ids], beams, read)


def why_stopped(ids: list[int], constraints: Constraints, config: GenerationConfig) -> Stopped:
    """Why an answer ended. An end token that was forced, or would have been, says nothing about the model."""
    cut = len(ids) == constraints.limit and (constraints.last is not None or ids[-1] != config.end)
    return "length" if cut else "eos"
