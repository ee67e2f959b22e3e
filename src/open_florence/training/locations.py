"""Two aids that let a small model learn coordinates; both leave a plain Florence-2 behind.

A location token is one of a thousand unrelated words to a language model. Nothing tells it that <loc_500> lies beside
<loc_501>, and a small budget is not enough to find out. `smooth_locations` gives the rows of the embedding table a
shared smooth part, E[k] = free_k + W phi(k), which is folded into the plain table by `fold_locations`.
`sequence_loss` spreads the target of a location token over its neighbours (a Gaussian whose width shrinks during
training), so that a near miss costs less than a far one. Text tokens keep their hard target.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from open_florence.training.batches import IGNORE

MIN_SIGMA = 0.3
"""Below this width (in bins) a soft target is a hard one; zero would divide by zero."""


class SmoothLocations(nn.Module):
    """Embedding table (V, d) -> the same table with W phi(k) added to the rows of the location tokens.

    phi(k) are `features` sines and cosines of the bin's position, frequencies spaced geometrically from one half
    period over all bins to one period over four bins.
    """

    phi: Tensor

    def __init__(self, start: int, count: int, width: int, features: int = 64) -> None:
        super().__init__()
        self.start, self.count = start, count
        position = (torch.arange(count) + 0.5) / count  # (K,)
        cycles = torch.logspace(math.log10(0.5), math.log10(count / 4), features // 2)  # (F/2,)
        angle = 2 * math.pi * position[:, None] * cycles  # (K, F/2)
        loudness = (1 + cycles / 8) ** -0.5  # (F/2,) the coarse waves first: neighbours are to start out alike
        self.register_buffer("phi", torch.cat([angle.sin() * loudness, angle.cos() * loudness], dim=1))  # (K, F)
        self.weight = nn.Parameter(torch.randn(features, width) * 0.1 / math.sqrt(features))  # (F, d)

    def forward(self, table: Tensor) -> Tensor:
        """(V, d) -> (V, d)."""
        smooth = self.phi @ self.weight  # (K, d)
        tail = table.shape[0] - self.start - self.count
        return table + F.pad(smooth, (0, 0, self.start, tail))


def smooth_locations(embedding: nn.Embedding, start: int, count: int) -> None:
    """Gives the location rows `start` .. `start + count - 1` of a table their shared smooth part, in place."""
    parametrize.register_parametrization(embedding, "weight", SmoothLocations(start, count, embedding.embedding_dim))


def fold_locations(embedding: nn.Embedding) -> None:
    """Folds the smooth part into the plain table, in place; without effect on a plain table."""
    if parametrize.is_parametrized(embedding, "weight"):
        parametrize.remove_parametrizations(embedding, "weight", leave_parametrized=True)


def sequence_loss(logits: Tensor, labels: Tensor, start: int, count: int, sigma: float) -> Tensor:
    """Cross-entropy of every token, location targets softened over their neighbours.

    logits (B, T, V), labels (B, T) with -100 where padded -> (B, T) float32, zero where padded. `sigma` is the width
    of the soft target in bins; 0 gives the plain cross-entropy of the paper (section 3.2).
    """
    flat = logits.flatten(0, 1).float()  # (B*T, V)
    target = labels.flatten()  # (B*T,)
    loss = F.cross_entropy(flat, target, ignore_index=IGNORE, reduction="none")  # (B*T,)
    bins = target - start  # (B*T,)
    where = ((bins >= 0) & (bins < count)).nonzero().squeeze(1)  # (M,)
    if sigma > MIN_SIGMA and len(where):
        located = flat[where]  # (M, V)
        distance = torch.arange(count, device=bins.device) - bins[where, None]  # (M, K)
        soft = torch.softmax(-0.5 * (distance / sigma) ** 2, dim=1)  # (M, K)
        soft_loss = located.logsumexp(1) - (soft * located[:, start : start + count]).sum(1)  # (M,)
        loss = loss.index_put((where,), soft_loss)
    return loss.view_as(labels)
