"""How sure a number is: the percentile bootstrap over images (Efron 1979).

What is found in one image hangs together, so images are drawn with replacement, never single boxes. A draw is a row of
counts, how often each image occurs in it; a statistic computes itself for all draws at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 500


def draws(count: int, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """`resamples` draws of `count` images with replacement, as how often each occurs: (R, N), rows sum to `count`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def bootstrap_interval(
    statistic: Callable[[Array], ArrayLike],
    count: int,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """The percentile interval of a statistic of `count` images; the same for the same seed.

    `statistic(weights (R, N)) -> (R,)` gives its value for data in which image n occurs weights[r, n] times, NaN where
    it has none. None when there are fewer than two images or no draw has a value.
    """
    if count < 2:
        return None
    return percentiles(statistic(draws(count, resamples, seed)), confidence)


def percentiles(values: ArrayLike, confidence: float = 0.95) -> Interval | None:
    """The middle `confidence` of values (R,), NaN left out; None when nothing is left."""
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    if not len(array):
        return None
    low, high = np.quantile(array, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Tally:
    """A metric that is a ratio of two sums: accuracy, recall, F1, mean IoU. An entry for each answer, or image."""

    hits: Array
    """(N,) what was gained: right answers, or IoUs."""
    totals: Array
    """(N,) what could be gained."""
    count: int
    """How many things were judged (queries, regions, words): the n of a table."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]], count: int | None = None) -> Tally:
        """From (hit, total) pairs; `count` is the sum of the totals where it is not given."""
        array = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)  # (N, 2)
        return cls(array[:, 0], array[:, 1], int(array[:, 1].sum()) if count is None else count)

    @property
    def value(self) -> float:
        """The ratio; NaN when there was nothing to judge."""
        total = float(self.totals.sum())
        return float(self.hits.sum()) / total if total else float("nan")

    def interval(self, images: Sequence[int] | None = None, confidence: float = 0.95) -> Interval | None:
        """The bootstrap interval. `images` (N,) says which image each entry is about; without it each is its own."""
        _, which = np.unique(np.arange(len(self.hits)) if images is None else np.asarray(images), return_inverse=True)
        count = int(which.max()) + 1 if len(which) else 0
        hits = np.bincount(which, self.hits, count)  # (I,)
        totals = np.bincount(which, self.totals, count)

        def ratio(weights: Array) -> Array:
            total = weights @ totals  # (R,)
            return np.divide(weights @ hits, total, out=np.full_like(total, np.nan), where=total > 0)

        return bootstrap_interval(ratio, count, confidence=confidence)
