"""The keys and values of answers that begin and end at different times, so that a finished one makes room at once.

Where `KVCache` moves all its rows forward together, here every question has a slot of its own, with one row for each of
its beams. Slots in use are the first ones, without a gap: the last moves into the place of one that is released.

Letters: Q slots in use, K beams, R = Q * K rows, H heads, T positions, S memory length, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from open_florence.model.config import TextConfig

STEP = 64
"""Positions that room is made for at first; it doubles when they are taken."""


class SlotCache:
    """Room for `slots` questions of `beams` rows each, taken once. For inference only: tensors are written in place."""

    def __init__(self, config: TextConfig, slots: int, beams: int, dtype: torch.dtype, device: torch.device) -> None:
        self.slots, self.beams, self.active = slots, beams, 0
        self.lengths = [0] * slots
        """Tokens that the rows of each slot hold; only those of slots in use mean something."""
        self._layers, self._heads = config.decoder_layers, config.decoder_heads
        self._width = config.d_model // config.decoder_heads
        self._like = {"dtype": dtype, "device": device}
        self._own = self._room(slots * beams, STEP)  # (layers, 2, slots * K, H, capacity, D)
        self._cross = self._room(slots, 0)  # (layers, 2, slots, H, S, D)
        self._seen = torch.zeros(slots, 0, dtype=torch.bool, device=device)  # (slots, S)
        self._longest = 0
        self._places = torch.zeros(0, dtype=torch.long, device=device)  # (R,): where this step's token goes
        self._visible = torch.zeros(0, device=device)  # (R, 1, 1, T)
        self._rows = torch.arange(slots * beams, device=device)

    def admit(self, cross: list[Tensor], mask: Tensor) -> range:
        """Puts questions behind those that are there: per layer keys and values (2, N, H, S, D), and mask (N, S) bool.

        Returns their slots. There has to be room: `active + N <= slots`.
        """
        count, length = mask.shape
        if length > self._seen.shape[1]:
            grown = self._room(self.slots, length)
            grown[:, :, : self.active, :, : self._seen.shape[1]] = self._cross[:, :, : self.active]
            self._cross = grown
            seen = self._seen.new_zeros(self.slots, length)
            seen[: self.active, : self._seen.shape[1]] = self._seen[: self.active]
            self._seen = seen
        taken = range(self.active, self.active + count)
        place = slice(taken.start, taken.stop)
        for layer, new in enumerate(cross):
            self._cross[layer, :, place, :, :length] = new
        self._cross[:, :, place, :, length:] = 0
        self._seen[place] = False
        self._seen[place, :length] = mask
        self.lengths[place] = [0] * count
        self.active = taken.stop
        return taken

    def release(self, slot: int) -> None:
        """Frees a slot; the last one in use moves to its place."""
        last = self.active = self.active - 1
        if slot == last:
            return
        self._cross[:, :, slot] = self._cross[:, :, last]
        self._seen[slot] = self._seen[last]
        length, beams = self.lengths[last], self.beams
        to, since = slice(slot * beams, (slot + 1) * beams), slice(last * beams, (last + 1) * beams)
        self._own[:, :, to, :, :length] = self._own[:, :, since, :, :length]
        self.lengths[slot] = length

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was; rows (R,) long, each of the slot that row i belongs to."""
        longest, count = max(self.lengths[: self.active], default=0), self.active * self.beams
        self._own[:, :, :count, :, :longest] = self._own[:, :, rows, :, :longest]

    def begin_step(self) -> Tensor:
        """Makes room for one more token in every row in use; returns the position it takes (R,) long."""
        lengths = [length for length in self.lengths[: self.active] for _ in range(self.beams)]
        self._longest = max(lengths) + 1
        if self._longest > self._own.shape[4]:
            grown = self._room(self.slots * self.beams, 2 * self._own.shape[4])
            grown[:, :, :, :, : self._own.shape[4]] = self._own
            self._own = grown
        self._places = torch.tensor(lengths, device=self._seen.device)
        reach = torch.arange(self._longest, device=self._seen.device)  # (T,)
        self._visible = (reach <= self._places[:, None])[:, None, None]
        return self._places

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor | None]:
        """Keys and values (2, R, H, 1, D) of this step's token -> all (2, R, H, T, D), and which are the row's own.

        The mask is (R, 1, 1, T) bool.
        """
        count = len(self._places)
        own = self._own[layer]
        own[:, self._rows[:count], :, self._places] = new[:, :, :, 0].transpose(0, 1)
        return own[:, :count, :, : self._longest], self._visible

    def memory(self, layer: int) -> Tensor:
        """Keys and values of the memories (2, Q, H, S, D)."""
        return self._cross[layer, :, : self.active]

    @property
    def memory_mask(self) -> Tensor:
        """(Q, S) bool: False where a memory is padded or ended before."""
        return self._seen[: self.active]

    def end_step(self) -> None:
        """Says that every layer has appended its token."""
        self.lengths[: self.active] = [length + 1 for length in self.lengths[: self.active]]

    def _room(self, rows: int, length: int) -> Tensor:
        return torch.zeros(self._layers, 2, rows, self._heads, length, self._width, **self._like)  # type: ignore[call-overload, no-any-return]
