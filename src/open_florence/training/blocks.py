"""What a run does to the blocks of a model while it lasts: freezing by name, gradient checkpointing, stochastic depth.

The blocks are the pairs of the tower and the layers of the language model. Nothing here changes a name or a weight, and
everything is put back when the run is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from open_florence.errors import OpenFlorenceError
from open_florence.model.bart import DecoderLayer, EncoderLayer
from open_florence.model.davit import Block, DaViT, DualBlock


def blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a module, in the order of its names."""
    return [child for child in module.modules() if isinstance(child, DualBlock | EncoderLayer | DecoderLayer)]


def freeze(module: nn.Module, patterns: tuple[str, ...]) -> list[nn.Parameter]:
    """Freezes the parameters whose names match a pattern, and returns those that were not frozen before.

    A pattern is a whole name or its end, from a dot on, with * for anything: "vision_tower.*" is all of the tower.
    Raises OpenFlorenceError for a pattern that no name matches, or when nothing is left to train.
    """
    named = dict(module.named_parameters())
    chosen: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        matched = {name: p for name, p in named.items() if fnmatchcase(f".{name}", f"*.{pattern}")}
        if not matched:
            parts = sorted({".".join(name.split(".")[:3]) + ".*" for name in named})
            raise OpenFlorenceError(f"no parameter to freeze is called {pattern!r}; there are {', '.join(parts)}")
        chosen |= matched
    frozen = [p for p in chosen.values() if p.requires_grad]
    if len(frozen) == sum(p.requires_grad for p in named.values()):
        raise OpenFlorenceError(f"nothing is left to train when {', '.join(patterns) or 'everything'} is frozen")
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


@contextmanager
def checkpointed(module: nn.Module, active: bool) -> Iterator[None]:
    """While it lasts, blocks keep only their input for the backward pass and compute the rest again (1604.06174).

    Dropout falls as it fell before, so the gradients are the same ones.
    """
    chosen = blocks(module) if active else []
    for block in chosen:
        block.forward = _recomputing(block.forward)
    try:
        yield
    finally:
        for block in chosen:
            del block.forward


def _recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False) if torch.is_grad_enabled() else forward(*args)

    return run


@contextmanager
def stochastic_depth(module: nn.Module, rate: float | None) -> Iterator[None]:
    """While it lasts, the towers' blocks are left out with a probability that rises from 0 at the first to `rate`."""
    towers = [child for child in module.modules() if isinstance(child, DaViT)] if rate is not None else []
    before: list[tuple[Block, float]] = []
    for tower in towers:
        chain = [child for child in tower.modules() if isinstance(child, Block)]
        before += [(block, block.drop_path) for block in chain]
        for block, share in zip(chain, torch.linspace(0, rate or 0.0, len(chain), device="cpu").tolist(), strict=True):
            block.drop_path = share
    try:
        yield
    finally:
        for block, share in before:
            block.drop_path = share
