"""Coordinates between the bins: the expectation itself, through greedy and beam search, and out as points."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.inference.generate import generate
from open_florence.inference.sub_bin import expected_bins
from open_florence.locations import LocationQuantizer

K, START, V = 40, 7, 60  # bins, the id of the first, and the vocabulary around them
LOCATIONS = (START, K)
SMALL = (20, 50)
"""The ids that stand for locations in the small reference model."""


def expected(logits: torch.Tensor, token: int, window: int) -> float:
    return expected_bins(logits[None], torch.tensor([0]), torch.tensor([token]), LOCATIONS, window).item()


def logits_of(seed: int, scale: float) -> torch.Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(seed)) * scale


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.0, 0.5, 3.0, 60.0]),
    said=st.integers(0, K - 1),
    window=st.integers(0, 2 * K),
)
def test_it_is_the_mean_of_the_window_and_stays_in_it(seed: int, scale: float, said: int, window: int) -> None:
    logits = logits_of(seed, scale)
    mean = expected(logits, START + said, window)
    inside = [k for k in range(K) if abs(k - said) <= window]
    weights = np.exp(logits[START : START + K].double().numpy()[inside] - logits.max().item())
    if weights.sum() > 1e-250:
        assert mean == pytest.approx(float(np.average(inside, weights=weights)), abs=1e-4)
    assert inside[0] <= mean <= inside[-1]
    (value,) = LocationQuantizer(K).dequantize([mean], [160.0])
    assert 0 < value < 160


@settings(max_examples=30, deadline=None)
@given(said=st.integers(0, K - 1), window=st.integers(0, K))
def test_an_even_neighbourhood_moves_nothing_except_at_the_edges(said: int, window: int) -> None:
    mean = expected(torch.zeros(V), START + said, window)
    first, last = max(said - window, 0), min(said + window, K - 1)
    assert mean == pytest.approx((first + last) / 2, abs=1e-5)
    if said - window >= 0 and said + window < K:
        assert mean == said


@pytest.mark.parametrize("window", [0, 1, 25])
def test_certainty_is_the_bin_to_the_last_bit(window: int) -> None:
    logits = torch.full((V,), -1e4)
    logits[START + 12] = 0
    mean = expected(logits, START + 12, window)
    assert mean == 12
    quantizer = LocationQuantizer()
    assert quantizer.dequantize([mean], [640.0]) == quantizer.dequantize([12], [640.0])


def test_words_have_no_bin_and_rows_are_those_asked_for() -> None:
    logits = torch.stack([logits_of(1, 1.0), logits_of(2, 1.0)])
    rows, tokens = torch.tensor([1, 0, 1, 1]), torch.tensor([START - 1, START, START + K, START + K - 1])
    bins = expected_bins(logits, rows, tokens, LOCATIONS, 3).tolist()
    assert [math.isnan(mean) for mean in bins] == [True, False, True, False]
    assert bins[1] == pytest.approx(expected(logits[0], START, 3))
    assert bins[3] == pytest.approx(expected(logits[1], START + K - 1, 3))


# --- through generation


def by_hand(pair: Any, row: int, ids: list[int], window: int) -> list[float]:
    """The mean bin of every token of an answer, from one pass over the whole of it."""
    with torch.inference_mode():
        logits = pair.ours.decode(torch.tensor([[2, *ids[:-1]]]), pair.memory(slice(row, row + 1)))[0].float()
    steps = torch.arange(len(ids))
    return expected_bins(logits, steps, torch.tensor(ids), SMALL, window).tolist()


@pytest.mark.parametrize(
    "config",
    [
        GenerationConfig(max_new_tokens=20),
        GenerationConfig.published(max_new_tokens=20),
        GenerationConfig(max_new_tokens=20, num_beams=4, num_return_sequences=4, early_stopping="never"),
        GenerationConfig(max_new_tokens=20, do_sample=True, seed=3),
    ],
    ids=["greedy", "published", "beams", "sampled"],
)
def test_the_bins_of_an_answer_are_those_of_its_own_logits(pair: Any, config: GenerationConfig) -> None:
    plain = generate(pair.ours, pair.memory(), config)
    read = generate(pair.ours, pair.memory(), replace(config, location_window=6, locations=SMALL))
    assert (read.ids, read.logprobs, read.stopped) == (plain.ids, plain.logprobs, plain.stopped)
    assert plain.bins == [[] for _ in plain.ids]
    per_question = config.num_return_sequences
    said = 0
    for answer, (ids, bins) in enumerate(zip(read.ids, read.bins, strict=True)):
        forced = len(ids) == 20  # the last token of an answer that was cut is no choice of the model
        wanted = by_hand(pair, answer // per_question, ids, 6)
        assert bins[1 : len(ids) - forced] == pytest.approx(wanted[1 : len(ids) - forced], abs=1e-3, nan_ok=True)
        assert math.isnan(bins[0])
        said += sum(not math.isnan(mean) for mean in bins)
    assert said > 10


def test_a_window_needs_to_know_the_locations(pair: Any) -> None:
    with pytest.raises(OpenFlorenceError, match="needs locations"):
        generate(pair.ours, pair.memory(), GenerationConfig(location_window=3))
    with pytest.raises(OpenFlorenceError, match="0 or more bins"):
        GenerationConfig(location_window=-1)
