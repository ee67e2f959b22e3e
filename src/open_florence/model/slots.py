"""The keys and values of answers that begin and end at different times, so that a finished one makes room at once.

Where `KVCache` moves all its rows forward together, here every question has a slot of its own, with one row for each of
its beams. Slots in use are the first ones, without a gap: the last moves into the place of one that is released.

On a GPU a step is recorded once and replayed (a CUDA graph), because starting its hundreds of small operations takes
longer than doing them. What is replayed has fixed shapes: always all slots, and lengths rounded up (`is_fixed`).

Letters: Q slots in use (where fixed: all), K beams, R = Q * K rows, H heads, T positions, S memory length, D head
width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from open_florence.model.config import TextConfig

STEP = 64
"""Positions that room is made for at first; it doubles when they are taken."""

Step = Callable[[Tensor, Tensor], Tensor]
"""Tokens (R,) and their positions (R,) -> the decoder's states (R, d)."""


class SlotCache:
    """Room for `slots` questions of `beams` rows each, taken once. For inference only: tensors are written in place."""

    def __init__(
        self,
        config: TextConfig,
        slots: int,
        beams: int,
        dtype: torch.dtype,
        device: torch.device,
        is_fixed: bool | None = None,
    ) -> None:
        """`is_fixed`: keep the shapes of a step fixed, as a recorded one needs; by default on a GPU."""
        self.slots, self.beams, self.active = slots, beams, 0
        self.is_fixed = device.type == "cuda" if is_fixed is None else is_fixed
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}  # by T: graph, tokens, states
        self.lengths = [0] * slots
        """Tokens that the rows of each slot hold; only those of slots in use mean something."""
        self._spans = [0] * slots  # the length of each slot's memory
        self._layers, self._heads = config.decoder_layers, config.decoder_heads
        self._width = config.d_model // config.decoder_heads
        self._like = {"dtype": dtype, "device": device}
        self._own = self._room(slots * beams, STEP)  # (layers, 2, slots * K, H, capacity, D)
        self._cross = self._room(slots, 0)  # (layers, 2, slots, H, S, D)
        self._seen = torch.zeros(slots, 0, dtype=torch.bool, device=device)  # (slots, S)
        self._longest = 0
        self._rows = torch.arange(slots * beams, device=device)
        self._places = torch.zeros_like(self._rows)  # (R,): where this step's token goes
        self._visible = torch.zeros(0, device=device)  # (R, 1, 1, T)

    def admit(self, cross: list[Tensor], mask: Tensor) -> range:
        """Puts questions behind those that are there: per layer keys and values (2, N, H, S, D), and mask (N, S) bool.

        Returns their slots. There has to be room: `active + N <= slots`.
        """
        count, length = mask.shape
        if length > self._seen.shape[1]:
            self._widen(-(-length // STEP) * STEP)
        taken = range(self.active, self.active + count)
        place = slice(taken.start, taken.stop)
        for layer, new in enumerate(cross):
            self._cross[layer, :, place, :, :length] = new
        self._cross[:, :, place, :, length:] = 0
        self._seen[place] = False
        self._seen[place, :length] = mask
        self.lengths[place] = [0] * count
        self._spans[place] = [length] * count
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
        self.lengths[slot], self._spans[slot] = length, self._spans[last]

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was; rows (R,) long, each of the slot that row i belongs to."""
        longest, count = max(self.lengths[: self.active], default=0), len(rows)
        self._own[:, :, :count, :, :longest] = self._own[:, :, rows, :, :longest]

    def step(self, tokens: Tensor, step: Step) -> Tensor:
        """One token of every row of the slots in use, tokens (R,) -> the states (R, d) that `step` makes of them.

        `step` calls `append` and `memory` for every layer.
        """
        count = len(tokens)
        places = self._make_room()
        if self.is_fixed:
            tokens = torch.nn.functional.pad(tokens, (0, self.slots * self.beams - count))
        recorded = self.is_fixed and tokens.is_cuda
        states = self._replay(tokens, step) if recorded else step(tokens, places)
        self.lengths[: self.active] = [length + 1 for length in self.lengths[: self.active]]
        return states[:count]

    def begin_step(self, positions: Tensor) -> None:
        """Says which position (R,) each row's token takes; to be called by `step` before its first layer."""
        reach = torch.arange(self._longest, device=positions.device)  # (T,)
        self._visible = (reach <= positions[:, None])[:, None, None]

    def _make_room(self) -> Tensor:
        """Room for one more token in every row in use; the position it takes (R,) long."""
        lengths = [length for length in self.lengths[: self.active] for _ in range(self.beams)]
        self._longest = max(lengths, default=0) + 1
        if self._longest > self._own.shape[4]:
            grown = self._room(self.slots * self.beams, 2 * self._own.shape[4])
            grown[:, :, :, :, : self._own.shape[4]] = self._own
            self._own = grown
            self._recorded.clear()
        if not self.is_fixed:
            self._places = torch.tensor(lengths, device=self._seen.device)
            return self._places
        self._longest = max(STEP, 1 << (self._longest - 1).bit_length())  # a power of two
        self._places[: len(lengths)].copy_(torch.tensor(lengths, dtype=torch.long), non_blocking=True)
        return self._places

    def _replay(self, tokens: Tensor, step: Step) -> Tensor:
        """The recorded step of this length, recorded first where there is none."""
        if self._longest not in self._recorded:
            given = tokens.clone()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries choose their kernels before anything is recorded
                step(given, self._places)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                states = step(given, self._places)
            self._recorded[self._longest] = graph, given, states
        graph, given, states = self._recorded[self._longest]
        given.copy_(tokens)
        graph.replay()
        return states.clone()

    def append(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor | None]:
        """Keys and values (2, R, H, 1, D) of this step's token -> all (2, R, H, T, D), and which are the row's own.

        The mask is (R, 1, 1, T) bool.
        """
        count = new.shape[1]
        own = self._own[layer]
        own[:, self._rows[:count], :, self._places[:count]] = new[:, :, :, 0].transpose(0, 1)
        return own[:, :count, :, : self._longest], self._visible

    def memory(self, layer: int) -> Tensor:
        """Keys and values of the memories (2, Q, H, S, D)."""
        return self._cross[layer, :, : self._used, :, : self._span]

    @property
    def memory_mask(self) -> Tensor:
        """(Q, S) bool: False where a memory is padded or ended before."""
        return self._seen[: self._used, : self._span]

    @property
    def _used(self) -> int:
        return self.slots if self.is_fixed else self.active

    @property
    def _span(self) -> int:
        """S: the longest memory in use; where shapes are fixed, all there is room for."""
        return self._seen.shape[1] if self.is_fixed else max(self._spans[: self.active], default=0)

    def _widen(self, length: int) -> None:
        """Makes room for memories of that length."""
        held = self._seen.shape[1]
        cross, seen = self._room(self.slots, length), self._seen.new_zeros(self.slots, length)
        cross[:, :, : self.active, :, :held] = self._cross[:, :, : self.active]
        seen[: self.active, :held] = self._seen[: self.active]
        self._cross, self._seen = cross, seen
        self._recorded.clear()

    def _room(self, rows: int, length: int) -> Tensor:
        return torch.zeros(self._layers, 2, rows, self._heads, length, self._width, **self._like)  # type: ignore[call-overload, no-any-return]
