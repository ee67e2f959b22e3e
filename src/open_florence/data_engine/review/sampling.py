"""Drawing a sample whose chances are known exactly, so that figures can be weighted by them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def systematic_sample(
    weights: NDArray[np.float64], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`count` different indices into `weights` (N,), N >= count, and the chance (N,) of each to be among them.

    Chances are proportional to the weights, at most 1, and exact: systematic sampling with unequal chances (Madow
    1949).
    """
    chances = np.zeros(len(weights))
    certain = np.zeros(len(weights), dtype=bool)
    while (left := count - int(certain.sum())) > 0:
        chances = np.where(certain, 1.0, left * weights / weights[~certain].sum())
        if not (new := (chances > 1 - 1e-9) & ~certain).any():
            break
        certain |= new
    chances[certain] = 1.0
    others = np.flatnonzero(~certain)
    if not left:
        chances[others] = 0.0
        return np.flatnonzero(certain), chances
    edges = np.cumsum(chances[others])
    edges[-1] = left  # what rounding took from it
    steps = np.searchsorted(edges, generator.random() + np.arange(left), side="right")
    return np.concatenate([np.flatnonzero(certain), others[steps]]), chances
