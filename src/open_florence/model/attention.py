"""Scaled dot-product attention, the one place where its kernel is chosen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from open_florence.model.packed import being_recorded, product

FEW = 8
"""Queries of a decoding step: a token for each of its beams, or the two tokens that every answer begins with."""
MANY = 256
"""Queries of a sequence so long that its heads are better taken one by one: the encoder's, image and question."""
SHORT = 256
"""Products of a head's queries and keys up to which bfloat16 is slower than float32: an answer's own beginning."""
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
    if being_recorded():
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, is_causal=causal)
    if not (learning or causal) and query.dtype == torch.float32 and query.shape[2] >= MANY and not query.is_cuda:
        return _head_by_head(query, key, value, mask)
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


def _head_by_head(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """`attend` by two products a head: for long sequences, whose products are large enough to stand alone."""
    b, h, t, d = query.shape
    seen = query.new_empty(b, t, h, d)
    hidden = None if mask is None else ~mask.expand(b, h, t, key.shape[2])
    for row in range(b):
        for head in range(h):
            scores = product(query[row, head] * d**-0.5, key[row, head])  # (T, S)
            if hidden is not None:
                scores.masked_fill_(hidden[row, head], float("-inf"))
            seen[row, :, head] = product(scores.softmax(-1), value[row, head].T)
    return seen.transpose(1, 2)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """`attend` by two batched products, of as many rows at a time as keep the scores small."""
    b, h, t, d = query.shape
    s = key.shape[2]
    if query.dtype == torch.bfloat16 and t * s <= SHORT:
        return _in_blocks(query.float(), key.float(), value.float(), mask).to(query.dtype)
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
