"""What the next token may be: forced first and last tokens, no repeated n-gram, ids that are never said.

Each function takes the scores of the next token (logits, or log-probabilities in beam search) and returns scores in
which every forbidden id is -inf. A forced token overrides every ban, as in transformers' `generate`, which the
published settings were tuned with.

Letters: R rows, V vocabulary, T tokens so far (the decoder's start token among them).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from open_florence.generation import GenerationConfig

NEVER = -float("inf")


def ban_repeated_ngrams(scores: Tensor, history: Tensor, size: int) -> Tensor:
    """Forbids every token that would end an n-gram of `size` tokens which the row already holds.

    `scores` (R, V), `history` (R, T) long; the start token counts as part of the history. Returns (R, V).
    """
    if history.shape[1] < size:
        return scores
    ngrams = history.unfold(1, size, 1)  # (R, T - size + 1, size)
    ending = history[:, history.shape[1] - size + 1 :]  # (R, size - 1): what the next token would complete
    repeats = (ngrams[:, :, :-1] == ending[:, None]).all(-1)  # (R, T - size + 1)
    ceiling = torch.where(repeats, NEVER, -NEVER).to(scores.dtype)
    return scores.scatter_reduce(1, ngrams[:, :, -1], ceiling, "amin")  # fixed shapes, so no wait for the device


def force(scores: Tensor, token: int) -> Tensor:
    """Leaves one token to every row, at score 0: with certainty. `scores` (R, V) -> (R, V)."""
    forced = torch.full_like(scores, NEVER)
    forced[:, token] = 0
    return forced


def suppress(scores: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """Forbids the given ids everywhere. `scores` (R, V) -> (R, V)."""
    return scores.index_fill(1, torch.tensor(tokens, dtype=torch.long, device=scores.device), NEVER)


@dataclass(frozen=True, slots=True)
class Constraints:
    """The constraints of one request."""

    limit: int
    """How many tokens may be generated; `last` is forced at the last of them."""
    no_repeat_ngram_size: int = 0
    """0: no ban."""
    first: int | None = None
    """Forced as the first token."""
    last: int | None = None
    suppressed: tuple[int, ...] = ()
    grammar: bool = False
    """Whether scores come masked by a grammar: a ban that would leave a row nothing to say is lifted for that token."""

    @classmethod
    def of(cls, config: GenerationConfig, positions: int) -> Constraints:
        """Those of a request; no answer outgrows the decoder's table of `positions`."""
        return cls(
            min(config.max_new_tokens, positions),
            config.no_repeat_ngram_size,
            config.forced_first,
            config.forced_last,
            config.suppressed,
            config.constrained,
        )

    @property
    def given(self) -> int:
        """How many tokens of an answer are forced at its beginning; of a single token, the forced last one wins."""
        return int(self.first is not None and self.limit > 1)

    def __call__(self, scores: Tensor, history: Tensor) -> Tensor:
        """`scores` (R, V) of the next token, `history` (R, T) with the start token -> scores (R, V)."""
        generated = history.shape[1] - 1
        if self.last is not None and generated == self.limit - 1:
            return force(scores, self.last)
        if self.first is not None and generated == 0:
            return force(scores, self.first)
        banned = scores
        if self.no_repeat_ngram_size:
            banned = ban_repeated_ngrams(banned, history, self.no_repeat_ngram_size)
        if self.suppressed:
            banned = suppress(banned, self.suppressed)
        if not self.grammar or banned is scores:
            return banned
        return torch.where((banned == NEVER).all(1, keepdim=True), scores, banned)
