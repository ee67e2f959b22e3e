"""Greedy search, and the choice between it and beams, in NumPy: token for token what `inference.generate` answers.

One thing is different, and changes no answer: a question that has its answer is no longer decoded, where there its
rows run along until the last one is done.

Letters: B questions, R of them still being decoded, V vocabulary, T tokens so far (the start token included).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_florence.edge.beams import beam_search
from open_florence.edge.rules import (
    Answer,
    Decoder,
    Ints,
    constrain,
    length_of,
    log_softmax,
    mean_bins,
    next_logits,
    open_answers,
    why,
)
from open_florence.errors import OpenFlorenceError
from open_florence.generation import Generation, GenerationConfig


def search(decoder: Decoder, questions: int, positions: int, config: GenerationConfig) -> Generation:
    """Answers every question of a decoder that has read nothing yet.

    `positions` is the length of the decoder's table of positions, to which `max_new_tokens` is cut. Raises
    OpenFlorenceError for sampling, constrained answers, and a `location_window` without `locations`.
    """
    if config.do_sample:
        raise OpenFlorenceError("sampling needs PyTorch: an exported model answers greedily or with beams")
    if config.constrained:
        raise OpenFlorenceError("constrained answers need PyTorch: an exported model answers as it likes")
    if config.location_window and config.locations is None:
        raise OpenFlorenceError("a location_window needs locations: the first location id and the number of them")
    config = replace(config, max_new_tokens=min(config.max_new_tokens, positions))
    beams = config.num_beams > 1
    answers = beam_search(decoder, questions, config) if beams else _greedy(decoder, questions, config)
    return Generation(
        [answer.ids for answer in answers],
        [answer.logprobs for answer in answers],
        [answer.score for answer in answers],
        [why(answer.ids, config) for answer in answers],
        [answer.beams if beams else [] for answer in answers],
        [answer.bins if config.location_window else [] for answer in answers],
    )


def _greedy(decoder: Decoder, questions: int, config: GenerationConfig) -> list[Answer]:
    """The likeliest token after the likeliest token."""
    history, logits = open_answers(decoder, questions, config)  # (B, T), (B, V)
    logprobs = np.zeros((questions, history.shape[1] - 1), np.float32)  # (B, T - 1)
    bins = np.full_like(logprobs, np.nan)
    live = np.arange(questions)  # (R,): which question each row belongs to
    while True:
        scores = constrain(logits, history[live], config)  # (R, V)
        chosen = scores.argmax(1)  # (R,)
        rows = np.arange(len(live))
        history = _appended(history, live, chosen, config.pad)
        logprobs = _appended(logprobs, live, log_softmax(scores)[rows, chosen], 0)
        bins = _appended(bins, live, mean_bins(logits, rows, chosen, config), np.nan)
        going = chosen != config.end  # (R,)
        if history.shape[1] - 1 == config.max_new_tokens or not going.any():
            break
        if not going.all():
            decoder.select(np.flatnonzero(going))
            live = live[going]
        logits = next_logits(decoder, history[live, -1:], config)
    answers = []
    for ids, steps, means in zip(history[:, 1:].tolist(), logprobs.tolist(), bins.tolist(), strict=True):
        length = length_of(ids, config)
        score = sum(steps[:length]) / length**config.length_penalty
        answers.append(Answer(ids[:length], steps[:length], [], means[:length], score))
    return answers


def _appended(table: NDArray[Any], rows: Ints, values: NDArray[Any], blank: float) -> NDArray[Any]:
    """A table (B, T) with one more column: `values` in `rows`, `blank` in the others."""
    column = np.full((len(table), 1), blank, table.dtype)
    column[rows, 0] = values
    return np.concatenate([table, column], 1)
