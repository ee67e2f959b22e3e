"""The projector's positions follow the image when it is trained at another size.

The published projector adds a learned row to every column and row of the last grid, counted in cells. At a larger image
the same place has another number, and the rows beyond the old grid were never trained: a model that finds everything at
160 pixels finds next to nothing at 240, and has to learn anew what is where. Stretched to the new grid, a row means the
same share of the image as before (the usual treatment of position tables in vision transformers; Dosovitskiy et al.,
arXiv 2010.11929, section 3.2, for fine-tuning at a higher resolution).
"""

from __future__ import annotations

import torch
from torch import Tensor

from open_florence.model.florence import Florence


@torch.no_grad()
def stretch_positions(model: Florence, before: tuple[int, int], after: tuple[int, int]) -> None:
    """Resamples the position tables from a grid of `before` (rows, columns) cells to one of `after`, in place.

    Rows of the tables past the new grid stay as they are.
    """
    projector = model.projector
    for table, old, new in (
        (projector.row_embeddings.weight, before[0], after[0]),
        (projector.column_embeddings.weight, before[1], after[1]),
    ):
        if old != new:
            table[:new] = _stretched(table[:old].float(), new).to(table.dtype)


def _stretched(rows: Tensor, count: int) -> Tensor:
    """(n, d) values at the centres of n cells -> (count, d) at those of `count`, linear, straight on past the ends."""
    old = len(rows)
    if old == 1:
        return rows.expand(count, -1).clone()
    place = (torch.arange(count, device=rows.device) + 0.5) * old / count - 0.5  # (count,)
    left = place.floor().clamp(0, old - 2).long()  # (count,)
    share = (place - left)[:, None]  # (count, 1), below 0 and above 1 at the ends
    return rows[left] * (1 - share) + rows[left + 1] * share
