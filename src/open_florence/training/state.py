"""The state of a run in one file: the same file however many processes there are and however they share the model.

Written beside the last one, put on the disk, and moved into its place: after a crash at any moment there is a whole
file, the old or the new.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from open_florence.training.distributed import placed_like


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` make a file, and puts it at `path` as a whole or not at all, power cut or not."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the move itself
    finally:
        os.close(folder)


@torch.no_grad()
def load_tensors(current: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Copies whole tensors into those of the same names, sharded or not.

    Raises KeyError for a name that only one side has, RuntimeError for a tensor of another shape.
    """
    if missing := current.keys() ^ saved.keys():
        raise KeyError(min(missing))
    for name, tensor in current.items():
        if tensor.shape != saved[name].shape:
            raise RuntimeError(f"{name} has shape {tuple(saved[name].shape)}, not {tuple(tensor.shape)}")
        tensor.copy_(placed_like(saved[name], tensor))


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Gives an optimiser its state back, cut into the shares of its parameters; Muon's momentum is whole everywhere.

    Raises ValueError when it was the state of another number of parameters.
    """
    parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    if len(parameters) != sum(len(group["params"]) for group in saved["param_groups"]):
        raise ValueError("the optimisers have other parameters")
    muon = type(optimizer).__name__ == "Muon"
    state = {
        index: {
            name: placed_like(value, parameters[index], replicated=muon) if name != "step" else value
            for name, value in entry.items()
        }
        for index, entry in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})
