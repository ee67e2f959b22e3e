"""The dense vision stage: what every cell of the last grid shows, learnt before and beside the sequences.

A tower trained from scratch only through a language model sees almost no gradient that says what is where. Linear
heads on its last grid do: what object covers the cell, its colour, the distances to the sides of its box, the
characters printed there. The heads are dropped at export; what they taught the tower stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from open_florence.geometry import region_box
from open_florence.schema import Region, Size
from open_florence.training.batches import IGNORE

Kind = Literal["class", "binary", "distance", "global_class"]
"""One of n for each cell; yes or no; a number; one of n for the whole image."""

DISTANCE_WEIGHT = 5.0
"""A distance is a share of the image and its error a small number beside a cross-entropy."""

HeadTable = Mapping[str, tuple[Kind, int]]
"""Head name -> (kind, number of outputs a cell)."""


class DenseHeads(nn.Module):
    """A linear layer for each head of a table, over the tower's last grid."""

    def __init__(self, heads: HeadTable, channels: int) -> None:
        super().__init__()
        self.heads = dict(heads)
        self.norm = nn.LayerNorm(channels)
        self.layers = nn.ModuleDict({name: nn.Linear(channels, n) for name, (_, n) in heads.items()})

    def forward(self, grid: Tensor) -> dict[str, Tensor]:
        """The tower's grid (B, C, h, w) -> head name -> (B, h, w, n), or (B, n) for a global head."""
        cells = self.norm(grid.permute(0, 2, 3, 1))  # (B, h, w, C)
        pooled = cells.mean((1, 2))  # (B, C)
        return {
            name: self.layers[name](pooled if kind == "global_class" else cells).float()
            for name, (kind, _) in self.heads.items()
        }

    def losses(self, grid: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean loss of each head over the cells that have a label.

        Class labels are integers (B, h, w) or (B, h, w, m) for m classifications a cell, -100 where there is nothing
        to say; binary labels (0 / 1) and distances are floats, NaN where there is nothing to say.
        """
        return {name: _loss(self.heads[name][0], out, labels[name]) for name, out in self(grid).items()}


def _loss(kind: Kind, output: Tensor, label: Tensor) -> Tensor:
    if kind in ("class", "global_class"):
        classes = output.numel() // label.numel()
        logits = output.reshape(-1, classes)
        known = (label != IGNORE).sum().clamp(min=1)
        return F.cross_entropy(logits, label.reshape(-1), ignore_index=IGNORE, reduction="sum") / known
    label = label.float().reshape(output.shape)
    known = label.isfinite()
    difference = (
        DISTANCE_WEIGHT * F.l1_loss(output, label.nan_to_num(), reduction="none")
        if kind == "distance"
        else F.binary_cross_entropy_with_logits(output, label.nan_to_num(), reduction="none")
    )
    return (difference * known).sum() / known.sum().clamp(min=1)


def box_heads(classes: Sequence[str]) -> HeadTable:
    """The heads that boxes with class names can teach; `cells_from_boxes` makes their labels."""
    return {"object": ("binary", 1), "class": ("class", len(classes)), "box": ("distance", 4)}


def cells_from_boxes(
    regions: Sequence[Region], size: Size, grid: tuple[int, int], classes: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Cell labels from regions with class names, the smallest region winning where several cover a cell's centre.

    `size` is (width, height) in pixels, the frame of the regions; `grid` is (rows, columns). "object" (h, w) is 0 / 1,
    "class" (h, w) the index in `classes` or -100, "box" (h, w, 4) the distances from the cell's centre to the left,
    top, right and bottom side as fractions of the image, NaN outside objects.
    """
    rows, columns = grid
    x = (np.arange(columns) + 0.5) / columns  # (w,)
    y = (np.arange(rows) + 0.5) / rows  # (h,)
    labels: dict[str, NDArray[Any]] = {
        "object": np.zeros(grid, np.float32),
        "class": np.full(grid, IGNORE, np.int64),
        "box": np.full((*grid, 4), np.nan, np.float32),
    }
    boxes = [(np.asarray(region_box(region.parts)) / np.tile(size, 2), region.label) for region in regions]
    for (x1, y1, x2, y2), label in sorted(boxes, key=lambda b: -(b[0][2] - b[0][0]) * (b[0][3] - b[0][1])):
        inside = np.ix_((y >= y1) & (y < y2), (x >= x1) & (x < x2))
        labels["object"][inside] = 1
        labels["class"][inside] = classes.index(label) if label in classes else IGNORE
        sides = np.stack(np.broadcast_arrays(x[None] - x1, y[:, None] - y1, x2 - x[None], y2 - y[:, None]), axis=-1)
        labels["box"][inside] = sides[inside]  # (h', w', 4)
    return labels


def unknown_cells(grid: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """The labels of `box_heads` for an image of which nothing is known: no head has a loss there."""
    return {
        "object": np.full(grid, np.nan, np.float32),
        "class": np.full(grid, IGNORE, np.int64),
        "box": np.full((*grid, 4), np.nan, np.float32),
    }


def grid_of(tower: nn.Module, image_size: int) -> tuple[int, int]:
    """(rows, columns) of a tower's last grid for square images of `image_size` pixels."""
    was_training = tower.training
    parameter = next(tower.parameters())
    image = torch.zeros(1, 3, image_size, image_size, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad():
        shape = tower.eval()(image).shape
    tower.train(was_training)
    return int(shape[2]), int(shape[3])
