"""A start for the projector when the tower already sees and the language model knows nothing.

A tower that has only had dense heads on it leaves features of very unequal size: a few directions carry nearly all of
the variance, and the projector's positions, drawn at 0.02, are a hundredth of it. A language model then needs thousands
of steps before it can tell left from right. Here the projection starts as a whitening of the features, so that every
direction is heard alike, and the position tables as sines and cosines of a comparable size. What is trained afterwards,
and saved, is the plain projector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from open_florence.model.florence import Florence

FLOOR = 0.01
"""Directions with less than this share of the mean energy are not amplified further: they are noise."""

POSITION_SHARE = 0.7
"""Size of the positions beside the features, which have size 1 after the projection."""


@torch.no_grad()
def calibrate_projector(model: Florence, pixel_values: Tensor) -> None:
    """Sets the projection and the position tables from the tower's features of some images (I, 3, H, W), in place."""
    was_training = model.training
    grid = model.vision_tower.eval()(pixel_values).float()  # (I, C, h, w)
    model.train(was_training)
    x = grid.permute(0, 2, 3, 1).flatten(0, 2)  # (N, C)
    energy, directions = torch.linalg.eigh(x.T @ x / len(x))  # (C,), (C, C)
    energy = energy.clamp(min=FLOOR * float(energy.mean()))
    whitening = (directions * energy.rsqrt()) @ directions.T  # (C, C)
    weight = model.projector.image_projection.weight
    weight.copy_(nn.init.orthogonal_(torch.empty_like(weight)) @ whitening)  # (P, C)
    columns, rows = model.projector.column_embeddings.weight, model.projector.row_embeddings.weight
    for table in (columns, rows):
        table.copy_(_waves(*table.shape))
    height, width = grid.shape[2:]
    places = torch.cat(
        [columns[:width].expand(height, width, -1), rows[:height, None].expand(height, width, -1)], dim=-1
    )  # (h, w, C)
    scale = POSITION_SHARE / float((places @ weight.T).std())
    columns.mul_(scale)
    rows.mul_(scale)


def _waves(length: int, channels: int) -> Tensor:
    """Sines and cosines (length, channels) of a cell's place, waves from 2.5 cells to all of the table."""
    waves = torch.logspace(math.log10(2.5), math.log10(length), channels // 2)  # (channels / 2,)
    angle = 2 * math.pi * (torch.arange(length)[:, None] + 0.5) / waves  # (length, channels / 2)
    return torch.cat([angle.sin(), angle.cos(), torch.zeros(length, channels % 2)], dim=1)
