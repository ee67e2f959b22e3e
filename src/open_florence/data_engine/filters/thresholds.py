"""The least score of each class, fitted on what people judged, for a wanted precision."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import NormalDist

from open_florence.errors import OpenFlorenceError

DEFAULT = 0.3
"""The least score of a class about which too little is known."""
ENOUGH = 20
"""Judged regions from which a class gets a threshold of its own."""
CONFIDENCE = 0.9


def wilson_bound(hits: int, count: int, confidence: float = CONFIDENCE) -> float:
    """The lower bound of a share of which `hits` of `count` are a sample: one-sided, Wilson's (1927); 0 without any."""
    if not count:
        return 0.0
    z = NormalDist().inv_cdf(confidence)
    share = hits / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - spread) / (1 + z * z / count))


def fit_thresholds(
    judged: Iterable[tuple[str, float, bool]],
    precision: float = 0.9,
    default: float = DEFAULT,
    enough: int = ENOUGH,
) -> dict[str, float]:
    """Class -> least score, from (class, score, whether it was right) of regions that people judged; and "default".

    The threshold of a class is the lowest score at which the precision of the regions that reach it is at least
    `precision` with 90 % confidence (`wilson_bound`), so that a few lucky ones do not make a threshold. Where no score
    does, it is the one at which the bound is highest. A class with fewer than `enough` judged regions gets
    `default`. Asking for more precision never lowers a threshold. Raises OpenFlorenceError for a precision that is
    not above 0 and at most 1.
    """
    if not 0 < precision <= 1:
        raise OpenFlorenceError(f"a wanted precision is above 0 and at most 1, not {precision}")
    by_class: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for name, score, right in judged:
        by_class[name].append((score, right))
    fitted = {
        name: _fit(regions, precision) if len(regions) >= enough else default
        for name, regions in sorted(by_class.items())
    }
    return {**fitted, "default": default}


def _fit(regions: list[tuple[float, bool]], precision: float) -> float:
    ranked = sorted(regions, reverse=True)
    best, best_bound, hits = ranked[0][0], -1.0, 0
    lowest: float | None = None
    for count, (score, right) in enumerate(ranked, start=1):
        hits += right
        if count < len(ranked) and ranked[count][0] == score:
            continue  # equal scores stand or fall together
        bound = wilson_bound(hits, count)
        if bound > best_bound:
            best, best_bound = score, bound
        if bound >= precision:
            lowest = score
    return best if lowest is None else lowest
