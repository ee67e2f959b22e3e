import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from open_florence.data_engine.fusion.existence import BINS, encode, estimate

Whole = NDArray[np.int64]


def world(
    things: int, finds: list[float], inventions: int, seed: int = 0, telling: bool = True
) -> tuple[NDArray[np.bool_], Whole, NDArray[np.bool_]]:
    """(N, S) who fired, (N, S) the bin of the score, (N,) whether anything is there; what nobody found is left out."""
    rng = np.random.default_rng(seed)
    sources = len(finds)
    real = rng.random((things, sources)) < np.array(finds)
    false = np.zeros((inventions * sources, sources), bool)
    false[np.arange(len(false)), np.arange(len(false)) % sources] = True
    fired = np.concatenate([real, false])
    is_real = np.arange(len(fired)) < things
    high = rng.beta(4, 2, fired.shape)
    low = rng.beta(2, 4, fired.shape) if telling else high
    scores = np.where(is_real[:, None], high, low)
    edges = np.quantile(scores[fired], np.arange(1, BINS) / BINS)
    seen = fired.any(axis=1)
    bins = np.searchsorted(edges, scores)
    return fired[seen], np.asarray(bins[seen], np.int64), is_real[seen]


def test_probabilities_are_what_they_say_without_any_truth() -> None:
    fired, bins, real = world(2000, [0.7, 0.6, 0.8], 250)
    model = estimate(fired, bins, np.full(len(fired), -1))
    probability = model.probability(fired, bins)
    assert model.finds == pytest.approx([0.7, 0.6, 0.8], abs=0.05)
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (probability >= low) & (probability < low + 0.25)
        assert inside.sum() > 30
        assert real[inside].mean() == pytest.approx(probability[inside].mean(), abs=0.2)
    assert ((probability >= 0.5) == real).mean() > 0.93
    lonely = fired.sum(axis=1) == 1
    assert ((probability >= 0.5) == real)[lonely].mean() > 0.75, "better than to believe all or none"


def test_scores_that_say_nothing_leave_the_count_of_sources() -> None:
    fired, bins, _ = world(1500, [0.7, 0.7, 0.7], 300, telling=False)
    probability = estimate(fired, bins, np.full(len(fired), -1)).probability(fired, bins)
    agreed = fired.sum(axis=1) > 1
    assert probability[agreed].min() > 0.7
    assert probability[agreed].mean() > probability[~agreed].mean() + 0.2


def test_one_source_alone_is_believed_until_a_person_contradicts() -> None:
    fired, bins = np.ones((200, 1), bool), np.arange(200)[:, None] % BINS
    silent = np.full(200, -1)
    assert estimate(fired, bins, silent).probability(fired, bins).min() > 0.9
    told = np.where(np.arange(200) < 120, (bins[:, 0] > 2).astype(int), -1)
    judged = estimate(fired, bins, told).probability(fired, bins)
    assert judged[bins[:, 0] == BINS - 1].mean() > judged[bins[:, 0] == 0].mean() + 0.3


def test_what_a_person_says_moves_the_share_of_a_combination() -> None:
    fired, bins, _ = world(800, [0.7, 0.7, 0.7], 100)
    both = encode(fired) == 0b011
    known = np.full(len(fired), -1)
    before = estimate(fired, bins, known).shares[0b011]
    known[both] = 0  # the two make the same thing up
    assert estimate(fired, bins, known).shares[0b011] < before - 0.3


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_input_gives_probabilities(sources: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fired = rng.random((count, sources)) < 0.5
    fired[~fired.any(axis=1), 0] = True
    bins = rng.integers(0, BINS, fired.shape)
    known = rng.integers(-1, 2, count)
    probability = estimate(fired, bins, known).probability(fired, bins)
    assert ((probability > 0) & (probability < 1)).all()
