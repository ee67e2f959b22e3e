"""From an encoded question to tokens: greedy, sampling and beam search over the same one-token step.

Token for token and score for score this is transformers' `generate` (5.23), so that a checkpoint answers here what it
answers there; the order of operations is section D.5 of the Florence-2 contract. Three things are done once that are
done many times there: the forced first token costs no step of its own, cross-attention keys and values are computed
once per question and read by all its beams, and a change of beams reorders the short self-attention cache only.

Letters: B questions (memory rows), R rows being decoded, V vocabulary, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.generation import Generation, GenerationConfig
from open_florence.inference.beam import beam_search
from open_florence.inference.constraints import NEVER, Constraints
from open_florence.inference.legal import Legal
from open_florence.inference.request import Stepper, bins_of, collect
from open_florence.legal_tokens import Automaton
from open_florence.model.florence import Florence, Memory


def generate(
    model: Florence,
    memory: Memory,
    config: GenerationConfig | None = None,
    automata: Sequence[Automaton | None] | None = None,
) -> Generation:
    """Answers every question of `memory` (hidden (B, S, d), mask (B, S), from `model.encode`).

    Returns B * num_return_sequences answers; what else is in the batch changes none of them, except where dice decide.
    `max_new_tokens` is cut to the decoder's table of positions, which it cannot outgrow. `automata`, one per question,
    are what a `constrained` answer keeps to (`legal_tokens.automaton`). Raises OpenFlorenceError for a
    `location_window` without `locations`, and for `constrained` without automata.
    """
    config = config or GenerationConfig()
    if config.location_window and config.locations is None:
        raise OpenFlorenceError("a location_window needs locations: the first location id and the number of them")
    constraints = Constraints.of(config, model.config.text.max_positions)
    legal = None
    if config.constrained:
        if automata is None:
            raise OpenFlorenceError(
                "constrained answers need the automata of their questions (`legal_tokens.automaton`)"
            )
        legal = Legal(config.vocabulary or model.config.text.vocab_size)
        for automaton in automata:
            legal.add(automaton, constraints.limit - constraints.given)
    with torch.inference_mode():
        step = Stepper(model, memory, config.vocabulary, legal)
        if config.num_beams > 1:
            return beam_search(step, config, constraints)
        return one_by_one(step, config, constraints)


def one_by_one(step: Stepper, config: GenerationConfig, constraints: Constraints) -> Generation:
    """Greedy search and sampling: each row goes its own way, and the loop ends with the last of them."""
    history, logits = step.open(config, constraints, config.num_return_sequences)  # (R, T), (R, V)
    finished = torch.zeros(len(history), dtype=torch.bool, device=history.device)
    rows = torch.arange(len(history), device=history.device)
    logprobs = [torch.zeros(len(history), device=history.device)] * (history.shape[1] - 1)  # of history[:, 1:]
    bins = [torch.full_like(step, float("nan")) for step in logprobs]
    dice = _dice(config, history.device)
    while True:
        scores = constraints(logits, history)  # (R, V)
        if dice is None:
            token = scores.argmax(-1)
        else:
            scores = shape_distribution(scores, config)
            token = torch.multinomial(scores.softmax(-1), 1, generator=dice)[:, 0]  # (R,)
        logprobs.append(scores.gather(1, token[:, None])[:, 0] - scores.logsumexp(-1))
        bins.append(bins_of(logits, rows, token, config))
        token = token.masked_fill(finished, config.pad)
        finished = finished | (token == config.end)
        history = torch.cat([history, token[:, None]], dim=1)
        if history.shape[1] - 1 == constraints.limit or bool(finished.all()):
            break
        logits = step(token[:, None])
    return collect(
        history[:, 1:],
        torch.stack(logprobs, dim=1),
        torch.stack(bins, dim=1),
        constraints,
        config,
        automata=step.automata,
    )


def shape_distribution(scores: Tensor, config: GenerationConfig) -> Tensor:
    """Temperature, then top-k, then top-p (nucleus). `scores` (R, V), the shut-out ids at -inf -> the same."""
    scores = scores / config.temperature
    if config.top_k is not None and config.top_k < scores.shape[1]:
        weakest = scores.topk(config.top_k).values[:, -1:]  # (R, 1)
        scores = scores.masked_fill(scores < weakest, NEVER)
    if config.top_p is not None and config.top_p < 1:
        ordered, order = scores.sort(dim=-1)  # weakest first
        weak = ordered.softmax(-1).cumsum(-1) <= 1 - config.top_p  # this one and all weaker ones are not needed
        weak[:, -1] = False
        scores = scores.masked_fill(weak.scatter(1, order, weak), NEVER)
    return scores


def _dice(config: GenerationConfig, device: torch.device) -> torch.Generator | None:
    """A generator of this request alone, so that neither the global state nor another request moves its draws."""
    if not config.do_sample:
        return None
    dice = torch.Generator(device)
    if config.seed is None:
        dice.seed()
    else:
        dice.manual_seed(config.seed)
    return dice
