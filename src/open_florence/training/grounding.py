"""The encoder's image tokens, read in the vocabulary's own words: an aid that is dropped at export.

Dense heads teach the tower what is where, but nothing tells the language model which words those features are called. A
linear layer for each attribute takes an image token as the encoder leaves it to the embedding of the word a caption
would use, and four more to the location tokens of the corners of the box the cell lies in. On the tower's output this
could not work for corners: an absolute place is the cell plus an offset, and only the encoder brings the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from open_florence.training.batches import IGNORE
from open_florence.training.locations import sequence_loss

Words = Sequence[tuple[str, Sequence[int]]]
"""(dense label, the id of the word for each of its classes, -1 for a class without one); a label may come twice."""


class WordHeads(nn.Module):
    """Linear layers from the encoder's image tokens into the embedding table."""

    def __init__(self, words: Words, locations: tuple[int, int], width: int) -> None:
        """`locations`: the id of the first location token and their number; `width` of the language model."""
        super().__init__()
        self.names = [name for name, _ in words]
        self.locations = locations
        self.ids = [torch.tensor(ids) for _, ids in words]
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in words)
        self.corners = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def loss(self, hidden: Tensor, table: Tensor, labels: Mapping[str, Tensor], sigma: float) -> Tensor:
        """The sum of all heads' mean losses.

        hidden (B, 1 + h w, d): the encoder's image tokens of B rows; table (V, d): the embedding; labels: dense labels
        of the images of these rows, (B,) for one of the whole image, which the first token answers, (B, h, w) for
        cells, and "box" (B, h, w, 4) as `training.dense` has it; `sigma`: width of soft location targets in bins.
        """
        total = hidden.new_zeros((), dtype=torch.float32)
        for name, ids, layer in zip(self.names, self.ids, self.layers, strict=True):
            ids, label = ids.to(hidden.device), labels[name]
            tokens = hidden[:, 0] if label.ndim == 1 else hidden[:, 1:].reshape(*label.shape, -1)
            known = label != IGNORE
            known = known & (ids[label.clamp(min=0)] >= 0)
            if known.any():
                logits = layer(tokens[known]) @ table[ids.clamp(min=0)].T  # (M, classes)
                logits = logits.float().masked_fill(ids < 0, float("-inf"))
                total = total + F.cross_entropy(logits, label[known])
        return total + self._corner_loss(hidden, table, labels["box"], sigma)

    def _corner_loss(self, hidden: Tensor, table: Tensor, box: Tensor, sigma: float) -> Tensor:
        rows, columns = box.shape[1:3]
        known = box[..., 0].isfinite()  # (B, h, w)
        if not known.any():
            return hidden.new_zeros((), dtype=torch.float32)
        x = ((torch.arange(columns, device=box.device) + 0.5) / columns).expand(rows, columns)  # (h, w)
        y = ((torch.arange(rows, device=box.device) + 0.5) / rows)[:, None].expand(rows, columns)
        left, top, right, bottom = box.unbind(-1)
        places = torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)[known]  # (M, 4)
        start, count = self.locations
        target = (places * count).floor().long().clamp(0, count - 1)  # (M, 4)
        tokens = hidden[:, 1:].reshape(*known.shape, -1)[known]  # (M, d)
        logits = torch.stack([layer(tokens) for layer in self.corners], dim=1) @ table[start : start + count].T
        return sequence_loss(logits, target, 0, count, sigma).mean()
