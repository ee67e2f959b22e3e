"""Scaled dot-product attention, the one place where its kernel is chosen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """softmax(query key^T / sqrt(D)) value.

    query (B, H, T, D); key and value (B, H, S, D); mask bool, broadcastable to (B, H, T, S), True where a key may be
    read; `causal` lets query t read keys 0..t and excludes a mask. Returns (B, H, T, D).

    PyTorch's fused kernel, except for training on a CPU: there its backward pass took 34-49 % of a step, and three
    plain operations are faster.
    """
    if query.device.type != "cpu" or not (query.requires_grad or key.requires_grad):
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, is_causal=causal)
    if causal:
        mask = causal_mask(query.shape[2], 0, query.device)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (B, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = F.dropout(scores.softmax(-1), dropout) if dropout else scores.softmax(-1)
    return weights.to(value.dtype) @ value


def causal_mask(length: int, past: int, device: torch.device) -> Tensor:
    """(length, past + length) bool: query t, which stands at position past + t, reads positions 0..past + t."""
    return torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
