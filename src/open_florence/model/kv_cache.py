"""The keys and values a decoder keeps between steps, so that each step computes one token only.

Letters: R rows being decoded (memory rows times beams), B memory rows, H heads, T positions, S memory length, D head
width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from open_florence.model.attention import causal_mask

STEP = 64
"""Positions the self-attention cache grows by at least; it doubles, so that appending stays cheap."""


class KVCache:
    """Self-attention keys and values per row, and cross-attention ones per memory row, of every decoder layer.

    The cross-attention part is computed once and never copied: the beams of a memory row read the same tensor.
    For inference only: tensors are written in place.
    """

    def __init__(self) -> None:
        self.length = 0
        """Positions held so far: the position of the next token."""
        self._cross: list[Tensor] = []  # per layer, (2, B, H, S, D)
        self._own: list[Tensor] = []  # per layer, (2, R, H, capacity, D)

    def memory(self, layer: int) -> Tensor | None:
        """Keys and values of the memory (2, B, H, S, D); None before `keep_memory`."""
        return self._cross[layer] if layer < len(self._cross) else None

    def keep_memory(self, held: Tensor) -> Tensor:
        """Keep the next layer's keys and values (2, B, H, S, D) of the memory, laid out for being read every step."""
        self._cross.append(held.contiguous())
        return self._cross[-1]

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor | None]:
        """Add the keys and values (2, R, H, T, D) of T new tokens.

        Returns all of them, (2, R, H, length + T, D), and a mask (T, length + T) of those each token may read, None
        where there is one and it may read all. `length` itself moves only by `advance`, when every layer has appended.
        """
        end = self.length + new.shape[3]
        if layer == len(self._own):
            self._own.append(new.new_empty(*new.shape[:3], max(STEP, end), new.shape[4]))
        elif end > self._own[layer].shape[3]:
            held = self._own[layer][:, :, :, : self.length]
            grown = new.new_empty(*held.shape[:3], max(2 * self._own[layer].shape[3], end), held.shape[4])
            grown[:, :, :, : self.length] = held
            self._own[layer] = grown
        self._own[layer][:, :, :, self.length : end] = new
        mask = None if new.shape[3] == 1 else causal_mask(new.shape[3], self.length, new.device)
        return self._own[layer][:, :, :, :end], mask

    def advance(self, count: int) -> None:
        """Say that every layer has appended `count` tokens."""
        self.length += count

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was; rows (R,) long.

        A beam may only take the place of a beam of the same memory row, so cross-attention is left alone. Copies the
        self-attention part, `length` positions of it.
        """
        for layer, held in enumerate(self._own):
            kept = held[:, :, :, : self.length].index_select(1, rows)
            if len(rows) != held.shape[1]:
                self._own[layer] = torch.empty(2, len(rows), *held.shape[2:], dtype=held.dtype, device=held.device)
            self._own[layer][:, :, :, : self.length] = kept
