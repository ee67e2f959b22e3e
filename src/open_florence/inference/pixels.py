"""Resized images onto the model's device: an eighth of the bytes travels, and the device makes values of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from open_florence.processor import Processor


def pixel_values(processor: Processor, levels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Resized images (I, S, S, 3), see `Processor.resized` -> (I, 3, S, S) float32 on `device`.

    The values are those of `Processor.normalised`, to the last bit, wherever they are looked up.
    """
    if device.type == "cpu":
        return torch.from_numpy(processor.normalised(levels))
    resized = torch.from_numpy(levels)
    if device.type == "cuda":
        return looked_up(processor, resized.pin_memory().to(device, non_blocking=True))
    return looked_up(processor, resized.to(device))


def looked_up(processor: Processor, levels: Tensor) -> Tensor:
    """Resized images (I, S, S, 3) uint8 -> (I, 3, S, S) float32, computed where they are."""
    table = torch.from_numpy(processor.level_table()).to(levels.device)  # (3, 256)
    channels = torch.arange(3, dtype=torch.int32, device=levels.device)[:, None, None]  # (3, 1, 1)
    places = levels.permute(0, 3, 1, 2).int() + 256 * channels  # (I, 3, S, S)
    return table.flatten().index_select(0, places.flatten()).view(places.shape)
