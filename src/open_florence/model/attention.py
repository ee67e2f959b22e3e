"""Scaled dot-product attention, the one place where its kernel is chosen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FEW = 8
"""Queries of a decoding step: a token for each of its beams, or the two tokens that every answer begins with."""
BLOCK = 2**22
"""Scores computed at a time on a CPU, which its cache holds."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """softmax(query key^T / sqrt(D)) value.

    query (B, H, T, D); key and value (B, H, S, D); mask bool, broadcastable to (B, H, T, S), True where a key may be
    read; `causal` lets query t read keys 0..t and excludes a mask. Returns (B, H, T, D).

    PyTorch's fused kernel, except on a CPU: there its backward pass took 34-49 % of a training step and three plain
    operations are faster, and in inference it is slow for the few queries of a decoding step and for bfloat16.
    """
    learning = query.requires_grad or key.requires_grad
    if query.device.type != "cpu" or not (learning or query.shape[2] <= FEW or query.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, is_causal=causal)
    if causal:
        mask = causal_mask(query.shape[2], 0, query.device)
    if not learning:
        return _in_blocks(query, key, value, mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (B, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = F.dropout(scores.softmax(-1), dropout) if dropout else scores.softmax(-1)
    return weights.to(value.dtype) @ value


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """`attend` by two batched products, of as many rows at a time as keep the scores small."""
    b, h, t, d = query.shape
    s = key.shape[2]
    rows = max(1, BLOCK // (h * t * s))
    seen = query.new_empty(b, h, t, d)
    for start in range(0, b, rows):
        some = slice(start, start + rows)
        q, k, v = (part[some].flatten(0, 1) for part in (query, key, value))
        scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=d**-0.5)  # (rows H, T, S)
        if mask is not None:
            hidden = ~(mask[some] if mask.dim() == 4 else mask)
            scores.view(-1, h, t, s).masked_fill_(hidden, float("-inf"))
        torch.bmm(scores.softmax(-1), v, out=seen[some].view(-1, t, d))
    return seen


def causal_mask(length: int, past: int, device: torch.device) -> Tensor:
    """(length, past + length) bool: query t, which stands at position past + t, reads positions 0..past + t."""
    return torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
