"""Is there anything at all? How sure one can be that a cluster of boxes is a thing and not an invention.

Nobody has labelled anything, so everything follows from agreement. Where three sources mark one place, something is
there: those clusters show how high the scores of real things are and how often each source finds them. From that
follows how many real things only one source should have found, and that many of its lonely boxes are believed, those
with the best scores first. Two estimates of that share bracket the truth: capture-recapture (Lincoln 1930), too low
when the other sources miss the same things, and the largest share that the distribution of scores allows (mixture
proportion estimation, Blanchard, Lee & Scott 2010), too high when scores say little. Their mean is used. For every
other combination of sources the share of real things is the one under which its scores are likeliest.

What a person has said about clusters is counted in with the estimates, as heavily as `PRIOR` imagined cases.

Letters: N clusters, S sources, B bins of scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

BINS = 6
PRIOR = 20.0
LEAST, MOST = 0.02, 0.98
"""Nothing is ever taken to be certain."""


@dataclass(frozen=True)
class Existence:
    """What the combination of sources and their scores say about a cluster being something."""

    finds: Array
    """(S,) how often each source finds what is there."""
    real_scores: Array
    """(S, B) where the scores of a source's real things lie."""
    false_scores: Array
    """(S, B) where those of its inventions lie."""
    shares: dict[int, float]
    """Combination of sources (source s is bit s) -> the share of its clusters that are something."""

    def probability(self, fired: NDArray[np.bool_], bins: Whole) -> Array:
        """(N,) that a cluster is something; `fired` (N, S) who has a box there, `bins` (N, S) how high it is scored."""
        codes = encode(fired)
        prior = np.array([self.shares.get(int(code), self._new(int(code))) for code in codes])
        ratio = self._ratio(fired, bins)
        return np.asarray(prior * ratio / (prior * ratio + 1 - prior), np.float64)

    def _new(self, code: int) -> float:
        """A combination never met: several sources are right, one is right as often as not."""
        return MOST if code.bit_count() > 1 else 0.5

    def _ratio(self, fired: NDArray[np.bool_], bins: Whole) -> Array:
        """(N,) how much likelier the scores are for something than for nothing."""
        log = np.log(self.real_scores) - np.log(self.false_scores)  # (S, B)
        each = np.take_along_axis(log, bins.T, axis=1).T  # (N, S)
        return np.asarray(np.exp((each * fired).sum(axis=1)), np.float64)


def encode(fired: NDArray[np.bool_]) -> Whole:
    """(N,) the combination of sources of each cluster as a number."""
    return np.asarray(fired.astype(np.int64) @ (1 << np.arange(fired.shape[1])), np.int64)


def estimate(fired: NDArray[np.bool_], bins: Whole, known: Whole) -> Existence:
    """The model of N clusters; of nobody where there are no sources.

    `known` (N,): 1 a person says something is there, 0 nothing, -1 nobody has looked.
    """
    sources = fired.shape[1]
    if sources == 0:
        return Existence(np.zeros(0), np.zeros((0, BINS)), np.zeros((0, BINS)), {})
    if sources == 1:
        return _single(fired, bins, known)
    enough = min(3, sources)
    agreed = fired.sum(axis=1) >= enough
    if agreed.sum() < 30 and enough > 2:
        agreed = fired.sum(axis=1) >= 2
    real = np.stack([_histogram(bins[agreed & fired[:, s], s], _rising()) for s in range(sources)])
    real = np.stack([_counted(real[s], bins[(known == 1) & fired[:, s], s]) for s in range(sources)])
    finds = np.array([_found(fired, s) for s in range(sources)])
    things = _population(fired, finds)
    codes = encode(fired)
    shares, false = {}, np.zeros_like(real)
    for s in range(sources):
        alone = codes == 1 << s
        others = np.delete(np.arange(sources), s)
        expected = things * finds[s] * float((1 - finds[others]).prod())
        shares[1 << s] = _share_alone(expected, bins[alone, s], real[s])
        false[s] = _false_scores(bins[alone, s], real[s], shares[1 << s])
        false[s] = _counted(false[s], bins[(known == 0) & fired[:, s], s])
    for code in np.unique(codes):
        if int(code).bit_count() > 1:
            shares[int(code)] = _share_together(Existence(finds, real, false, {}), fired, bins, codes == code)
    for code in np.unique(codes):
        told = known[(codes == code) & (known >= 0)]
        share = (PRIOR * shares[int(code)] + told.sum()) / (PRIOR + len(told))
        shares[int(code)] = float(np.clip(share, LEAST, MOST))
    return Existence(finds, real, false, shares)


def _single(fired: NDArray[np.bool_], bins: Whole, known: Whole) -> Existence:
    """One source has nobody to agree with: it is believed, unless a person has said otherwise."""
    flat = np.full((1, BINS), 1 / BINS)
    told = known[known >= 0]
    real = _counted(flat[0], bins[known == 1, 0]) if len(told) else flat[0]
    false = _counted(flat[0], bins[known == 0, 0]) if len(told) else flat[0]
    share = float(np.clip((PRIOR * MOST + told.sum()) / (PRIOR + len(told)), LEAST, MOST))
    return Existence(np.array([MOST]), real[None], false[None], {1: share})


def _rising() -> Array:
    return np.arange(1, BINS + 1) / (BINS * (BINS + 1) / 2)


def _histogram(bins: Whole, towards: Array, strength: float = 6.0) -> Array:
    counts = np.bincount(bins, minlength=BINS) + strength * towards
    return np.asarray(counts / counts.sum(), np.float64)


def _counted(histogram: Array, bins: Whole) -> Array:
    """A histogram with cases that are known, the histogram itself counting as `PRIOR` of them."""
    return np.asarray((PRIOR * histogram + np.bincount(bins, minlength=BINS)) / (PRIOR + len(bins)), np.float64)


def _found(fired: NDArray[np.bool_], s: int) -> float:
    """How often a source finds what two others (one, where there are only two) agree is there."""
    others = np.delete(fired, s, axis=1).sum(axis=1)
    sure = others >= min(2, fired.shape[1] - 1)
    return float(np.clip((fired[sure, s].sum() + 1) / (sure.sum() + 2), LEAST, MOST))


def _population(fired: NDArray[np.bool_], finds: Array) -> float:
    """How many things there are, from those that two or more sources found."""
    none = float((1 - finds).prod())
    one = float(sum(finds[s] * np.delete(1 - finds, s).prod() for s in range(len(finds))))
    return float((fired.sum(axis=1) >= 2).sum() / max(1 - none - one, 0.05))


def _share_alone(expected: float, bins: Whole, real: Array) -> float:
    """The share of real things among a source's lonely boxes: the mean of a low and a high estimate."""
    if not len(bins):
        return 0.5
    low = expected / len(bins)
    seen = _histogram(bins, np.full(BINS, 1 / BINS))
    upper = np.arange(BINS) >= BINS // 2
    high = float((seen / real)[upper].min())
    return float(np.clip((min(low, 1.0) + min(high, 1.0)) / 2, LEAST, MOST))


def _false_scores(bins: Whole, real: Array, share: float) -> Array:
    """Where the scores of inventions lie: lonely scores less the real ones, never likelier with rising score."""
    seen = _histogram(bins, np.full(BINS, 1 / BINS))
    rest = np.maximum(seen - share * real, 0.02 / BINS)
    ratio = _falling(rest / rest.sum() / real, real)
    false = ratio * real
    return np.asarray(false / false.sum(), np.float64)


def _falling(values: Array, weights: Array) -> Array:
    """The closest non-increasing sequence: pool adjacent violators (Barlow et al. 1972)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append((float(value), float(weight), 1))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2:]
            blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return np.concatenate([np.full(count, value) for value, _, count in blocks])


def _share_together(model: Existence, fired: NDArray[np.bool_], bins: Whole, chosen: NDArray[np.bool_]) -> float:
    """The share of real things under which the scores of one combination of sources are likeliest."""
    ratio = model._ratio(fired[chosen], bins[chosen])
    share = 0.9
    for _ in range(100):
        belief = share * ratio / (share * ratio + 1 - share)
        share = float((belief.sum() + 0.9 * 5) / (len(ratio) + 5))
    return float(np.clip(share, LEAST, MOST))
