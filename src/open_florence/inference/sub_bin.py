"""Coordinates finer than a bin: the expectation over the bins around the one that was said.

A location token is one of a thousand bins, so a coordinate is at best right to size / 1000, and where the distribution
is broad its peak is noisy as well. The mean over a window around the peak (the soft-argmax of arXiv 1711.08229, kept to
a neighbourhood so that a second peak does not pull) is steadier, and lies between the bins.

Letters: R rows, V vocabulary, N tokens, W = 2 * window + 1 bins.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expected_bins(logits: Tensor, rows: Tensor, tokens: Tensor, locations: tuple[int, int], window: int) -> Tensor:
    """The mean bin around each location token that was said: (N,) float32, NaN for tokens of other kinds.

    `logits` (R, V), as the model gave them: a ban on a bin is none of its beliefs. Token n, `tokens` (N,) long, was
    chosen in row `rows[n]`. `locations` is the first location id and their number K. The bins at most `window` from the
    one said, those beyond the first or last left out, are weighted by their probabilities renormalised: 0 to K - 1, of
    which `LocationQuantizer.dequantize` makes a coordinate.
    """
    start, count = locations
    said = tokens - start  # (N,)
    reach = torch.arange(-window, window + 1, device=logits.device)  # (W,)
    bins = said[:, None] + reach  # (N, W)
    outside = (bins < 0) | (bins >= count)
    near = logits[rows[:, None], bins.clamp(0, count - 1) + start].masked_fill(outside, -float("inf"))  # (N, W)
    mean = said + (near.softmax(1) * reach).sum(1)  # around the bin said, where float32 is fine enough
    return mean.masked_fill((said < 0) | (said >= count), float("nan"))
