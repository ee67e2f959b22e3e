"""What greedy and beam search share: what the next token may be, how probable it is, and what an answer consists of.

The rules are those of `inference.constraints`, `inference.request` and `inference.sub_bin`, in NumPy.

Letters: B questions, R rows being decoded, V vocabulary, T tokens so far (the start token included), N tokens chosen,
M of them locations, W = 2 * window + 1 bins.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from open_florence.generation import GenerationConfig, Stopped

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NEVER = np.float32(-np.inf)


class Decoder(Protocol):
    """A batch of answers being written: a decoder and what it has read so far."""

    def __call__(self, tokens: Ints) -> Floats:
        """The next tokens of every row (R, n) -> logits (R, V) of the token after them."""

    def select(self, rows: Ints) -> None:
        """Row i becomes what row rows[i] was, its question too; rows (any number,)."""

    def reorder(self, rows: Ints) -> None:
        """The same, where rows change places within one question only."""


class Answer(NamedTuple):
    """One sequence, up to its end token."""

    ids: list[int]
    logprobs: list[float]
    beams: list[int]
    bins: list[float]
    score: float


def open_answers(decoder: Decoder, questions: int, config: GenerationConfig) -> tuple[Ints, Floats]:
    """The start token and, if one is forced, the first, read in one step: they (B, T), and the next logits (B, V)."""
    tokens = [config.start]
    if config.forced_first is not None and config.max_new_tokens > 1:  # of a single token, the forced last one wins
        tokens.append(config.forced_first)
    history = np.array([tokens] * questions, np.int64)  # (B, T)
    return history, next_logits(decoder, history, config)


def next_logits(decoder: Decoder, tokens: Ints, config: GenerationConfig) -> Floats:
    """The logits (R, V) of the ids that have a meaning."""
    return decoder(tokens)[:, : config.vocabulary]


def constrain(scores: Floats, history: Ints, config: GenerationConfig) -> Floats:
    """Scores (R, V) of the next token after `history` (R, T), in which what is forbidden is -inf.

    As `inference.constraints` does it: a forced token overrides every ban.
    """
    generated = history.shape[1] - 1
    if config.forced_last is not None and generated == config.max_new_tokens - 1:
        return _forced(scores, config.forced_last)
    if config.forced_first is not None and generated == 0:
        return _forced(scores, config.forced_first)
    size = config.no_repeat_ngram_size
    if not config.suppressed and not 0 < size <= history.shape[1]:
        return scores
    scores = scores.copy()
    if 0 < size <= history.shape[1]:
        ngrams = np.lib.stride_tricks.sliding_window_view(history, size, 1)  # (R, T - size + 1, size)
        ending = history[:, history.shape[1] - size + 1 :]  # (R, size - 1): what the next token would complete
        row, place = np.nonzero((ngrams[:, :, :-1] == ending[:, None]).all(2))
        scores[row, ngrams[row, place, -1]] = NEVER
    scores[:, list(config.suppressed)] = NEVER
    return scores


def _forced(scores: Floats, token: int) -> Floats:
    forced = np.full_like(scores, NEVER)
    forced[:, token] = 0
    return forced


def mean_bins(logits: Floats, rows: Ints, tokens: Ints, config: GenerationConfig) -> Floats:
    """The mean bin (N,) around each location token, as `inference.sub_bin`; NaN for others and without a window.

    `logits` (R, V); token n, `tokens` (N,), was chosen in row `rows[n]`.
    """
    means = np.full(len(tokens), np.nan, np.float32)
    if not config.location_window or config.locations is None:
        return means
    start, count = config.locations
    known = (tokens >= start) & (tokens < start + count)  # (N,)
    said = tokens[known] - start  # (M,)
    reach = np.arange(-config.location_window, config.location_window + 1)  # (W,)
    bins = said[:, None] + reach  # (M, W)
    near = logits[rows[known][:, None], bins.clip(0, count - 1) + start]  # (M, W)
    weights = np.exp(log_softmax(np.where((bins < 0) | (bins >= count), NEVER, near)))
    means[known] = said + (weights * reach).sum(1)
    return means


def log_softmax(scores: Floats) -> Floats:
    """(..., V) -> the same, normalised; -inf stays -inf."""
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))  # type: ignore[no-any-return]


def top(values: Floats, count: int) -> tuple[Floats, Ints]:
    """The `count` largest of each row (B, M) and where they stand, largest first, equal ones in their order."""
    index = np.sort(np.argpartition(values, values.shape[1] - count, 1)[:, -count:], 1)
    found = np.take_along_axis(values, index, 1)
    order = np.argsort(-found, 1, kind="stable")
    return np.take_along_axis(found, order, 1), np.take_along_axis(index, order, 1)


def length_of(ids: list[int], config: GenerationConfig) -> int:
    """Up to the first end token, that included."""
    return ids.index(config.end) + 1 if config.end in ids else len(ids)


def why(ids: list[int], config: GenerationConfig) -> Stopped:
    """Why an answer ended. An end token that was forced, or would have been, says nothing about the model."""
    cut = len(ids) == config.max_new_tokens and (config.forced_last is not None or ids[-1] != config.end)
    return "length" if cut else "eos"
