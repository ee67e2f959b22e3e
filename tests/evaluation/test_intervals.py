"""The bootstrap: what it is, that it is the same every time, and that it covers what it says it covers."""

import math

import numpy as np
import pytest

from open_florence.evaluation.intervals import Tally, bootstrap_interval, draws, percentiles


def test_draws_are_counts_of_images():
    weights = draws(7, resamples=50)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == draws(7, resamples=50)).all()


def test_a_tally_is_a_ratio_of_sums():
    tally = Tally.of([(1, 2), (0, 1), (3, 3)])
    assert tally.value == pytest.approx(4 / 6)
    assert tally.count == 6
    low, high = tally.interval()
    assert low <= tally.value <= high


def test_nothing_to_judge_has_no_value_and_no_interval():
    assert math.isnan(Tally.of([]).value)
    assert Tally.of([]).interval() is None
    assert Tally.of([(1, 1)]).interval() is None
    assert Tally.of([(0, 0), (0, 0)]).interval() is None
    assert percentiles([math.nan]) is None


def test_entries_of_one_image_are_drawn_together():
    # Ten images, all answers of an image alike: as uncertain as ten numbers, not as a hundred.
    pairs = [(float(image % 2), 1.0) for image in range(10) for _ in range(10)]
    images = [image for image in range(10) for _ in range(10)]
    apart, together = Tally.of(pairs).interval(), Tally.of(pairs).interval(images)
    assert np.ptp(together) > 2 * np.ptp(apart)


def test_images_need_not_be_counted_from_zero():
    tally = Tally.of([(1, 1), (0, 1), (1, 1)])
    assert tally.interval([5, 900, 7]) == tally.interval([0, 2, 1])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(120):
        hits = (generator.random(80) < 0.7).astype(float)
        low, high = Tally.of([(hit, 1.0) for hit in hits]).interval()
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 120 <= 0.99


def test_any_statistic():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    low, high = bootstrap_interval(lambda weights: weights @ values / 4, 4)
    assert 1 <= low < 2.5 < high <= 4
