"""Beam search in NumPy: token for token what `inference.beam` answers; see there for the rules.

Letters: B questions still being decoded, K beams, R = B * K rows, V vocabulary, T tokens so far (the start token
included).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from open_florence.edge.rules import (
    NEVER,
    Answer,
    Decoder,
    Floats,
    Ints,
    constrain,
    length_of,
    log_softmax,
    mean_bins,
    next_logits,
    open_answers,
    top,
)
from open_florence.generation import GenerationConfig

BEHIND = -1e9
"""Below any log-probability of a sequence, above -inf: what keeps equal beams from making the same choices."""


@dataclass(frozen=True, slots=True)
class _Beams:
    """M sequences for each question, best first."""

    tokens: Ints
    """(B, M, T), the start token first; finished ones are padded."""
    logprobs: Floats
    """(B, M, T - 1), of `tokens[:, :, 1:]`."""
    origins: Ints
    """(B, M, T - 1): which of its question's beams each of those tokens continued."""
    bins: Floats
    """(B, M, T - 1): the mean bin around each of those tokens, NaN where none was read."""
    scores: Floats
    """(B, M): running sequences have their log-probability, finished ones that by their length; -inf where there is
    no sequence yet."""

    def pick(self, index: Ints, scores: Floats) -> _Beams:
        """The sequences `index` (B, M), with new scores (B, M)."""
        trail = index[:, :, None]
        return _Beams(
            np.take_along_axis(self.tokens, trail, 1),
            np.take_along_axis(self.logprobs, trail, 1),
            np.take_along_axis(self.origins, trail, 1),
            np.take_along_axis(self.bins, trail, 1),
            scores,
        )

    def extended(self, token: Ints, logprob: Floats, origin: Ints, mean: Floats) -> _Beams:
        """Every sequence with one more token: each argument (B, M)."""
        return _Beams(
            np.concatenate([self.tokens, token[:, :, None]], 2),
            np.concatenate([self.logprobs, logprob[:, :, None]], 2),
            np.concatenate([self.origins, origin[:, :, None]], 2),
            np.concatenate([self.bins, mean[:, :, None]], 2),
            self.scores,
        )

    def joined(self, other: _Beams) -> _Beams:
        """The sequences of both, this one's first."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in _Beams.__slots__)
        return _Beams(*(np.concatenate(pair, 1) for pair in pairs))

    def of(self, questions: NDArray[np.bool_]) -> _Beams:
        """The sequences of some questions, (B,) bool."""
        return _Beams(*(getattr(self, name)[questions] for name in _Beams.__slots__))


def beam_search(decoder: Decoder, questions: int, config: GenerationConfig) -> list[Answer]:
    """Runs until no question can improve; returns the best `num_return_sequences` of each."""
    width, limit = config.num_beams, config.max_new_tokens
    history, logits = open_answers(decoder, questions, config)  # (B, T), (B, V)
    copies = np.arange(questions).repeat(width)  # (R,)
    decoder.select(copies)
    logits = logits[copies]  # (R, V)
    running = _equal_beams(history, width)
    finished = replace(running, scores=np.full_like(running.scores, NEVER))  # K places, none taken
    live = np.arange(questions)
    answers: dict[int, list[Answer]] = {}
    while True:
        candidates = _candidates(running, logits, config)  # 2K a question
        length = candidates.tokens.shape[2] - 1
        ended = (candidates.tokens[:, :, -1] == config.end) | (length == limit)  # (B, 2K)
        running = _best(candidates, np.where(ended, NEVER, candidates.scores), width)
        finished = _finish(finished, candidates, ended, length, config)
        closed = _cannot_improve(running, finished, length, config) | (length == limit)  # (B,)
        for place in np.flatnonzero(closed):
            answers[int(live[place])] = _sequences(finished, int(place), int(live[place]), config)
        if closed.all():
            return [answer for question in range(questions) for answer in answers[question]]
        origins = running.origins[:, :, -1] + width * np.arange(len(live))[:, None]  # (B, K): rows
        if closed.any():
            running, finished, live = running.of(~closed), finished.of(~closed), live[~closed]
            decoder.select(origins[~closed].ravel())
        else:
            decoder.reorder(origins.ravel())
        logits = next_logits(decoder, running.tokens[:, :, -1].reshape(-1, 1), config)


def _equal_beams(history: Ints, width: int) -> _Beams:
    """K beams of the same tokens, `history` (B, T), all but the first so far behind that they come to nothing."""
    tokens = history[:, None].repeat(width, 1)  # (B, K, T)
    scores = np.full(tokens.shape[:2], BEHIND, np.float32)
    scores[:, 0] = 0
    said = tokens[:, :, 1:]
    origins = np.arange(width)[None, :, None] + np.zeros_like(said)
    return _Beams(tokens, np.zeros(said.shape, np.float32), origins, np.full(said.shape, np.nan, np.float32), scores)


def _candidates(running: _Beams, logits: Floats, config: GenerationConfig) -> _Beams:
    """The 2K likeliest continuations of each question's beams, best first. `logits` (R, V)."""
    questions, width, length = running.tokens.shape
    logprobs = constrain(log_softmax(logits), running.tokens.reshape(-1, length), config)  # (R, V)
    totals = logprobs.reshape(questions, width, -1) + running.scores[:, :, None]  # (B, K, V)
    scores, flat = top(totals.reshape(questions, -1), 2 * width)  # (B, 2K)
    beam, token = np.divmod(flat, totals.shape[2])  # (B, 2K)
    row = beam + width * np.arange(questions)[:, None]  # (B, 2K): which of the R rows
    bins = mean_bins(logits, row.ravel(), token.ravel(), config).reshape(token.shape)
    return running.pick(beam, scores).extended(token, logprobs[row, token], beam, bins)


def _best(candidates: _Beams, scores: Floats, width: int) -> _Beams:
    scores, index = top(scores, width)
    return candidates.pick(index, scores)


def _finish(
    finished: _Beams, candidates: _Beams, ended: NDArray[np.bool_], length: int, config: GenerationConfig
) -> _Beams:
    """The K best of the finished sequences and of those that ended now among the first K candidates."""
    admitted = ended & (np.arange(ended.shape[1]) < config.num_beams)  # (B, 2K)
    ranks = np.where(admitted, candidates.scores / np.float32(length**config.length_penalty), NEVER)
    shape = finished.scores.shape
    padded = finished.extended(
        np.full(shape, config.pad), np.zeros(shape, np.float32), np.zeros(shape, np.int64), np.full(shape, np.nan, "f4")
    )
    everyone = padded.joined(replace(candidates, scores=ranks))
    return _best(everyone, everyone.scores, config.num_beams)


def _cannot_improve(running: _Beams, finished: _Beams, length: int, config: GenerationConfig) -> NDArray[np.bool_]:
    """(B,): questions whose K finished sequences are final."""
    full = np.asarray((finished.scores > NEVER).all(1))
    if config.early_stopping is True:
        return full
    hoped = config.max_new_tokens if config.early_stopping == "never" and config.length_penalty > 0 else length
    best = running.scores[:, 0] / np.float32(hoped**config.length_penalty)
    return np.asarray(full & (best <= finished.scores.min(1)))


def _sequences(finished: _Beams, place: int, question: int, config: GenerationConfig) -> list[Answer]:
    """The best sequences of the question at `place`, the how many-th of all being `question`."""
    found = []
    for beam in range(config.num_return_sequences):
        ids = finished.tokens[place, beam, 1:].tolist()
        length = length_of(ids, config)
        rows = (finished.origins[place, beam] + question * config.num_beams).tolist()
        logprobs, bins = finished.logprobs[place, beam].tolist(), finished.bins[place, beam].tolist()
        score = float(finished.scores[place, beam])
        found.append(Answer(ids[:length], logprobs[:length], rows[:length], bins[:length], score))
    return found
