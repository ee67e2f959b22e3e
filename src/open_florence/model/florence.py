"""Florence-2: an image tower, a projector and a language model (arXiv 2311.06242, section 4).

`encode_image` -> `encode` -> `decode` is inference, `forward` the same teacher-forced; nothing else is public.
Letters: I images, N grid cells, B rows (an image and a prompt), L prompt tokens, S = 1 + N + L, R = B x beams rows
being decoded, T answer tokens, V vocabulary, d width of the language model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from open_florence.model.bart import Bart, Table
from open_florence.model.config import FlorenceConfig, VisionConfig
from open_florence.model.davit import DaViT
from open_florence.model.kv_cache import KVCache
from open_florence.model.packed import pack
from open_florence.model.slots import SlotCache

IGNORED_LABEL = -100
"""A label that takes no part in the loss."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the encoder made of images and prompts: all the decoder sees of them."""

    hidden: Tensor
    """(B, S, d): the mean visual token, the grid's tokens row by row, the prompt."""
    mask: Tensor
    """(B, S) bool: False where the prompt is padded."""


class Florence(nn.Module):
    """The whole model. Built with random weights; `checkpoint.read_weights` gives published ones."""

    def __init__(self, config: FlorenceConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = DaViT(config.vision)
        self.projector = Projector(config.vision)
        self.language_model = Bart(config.text)

    def pack(self) -> None:
        """Lays the weights out for a CPU, see `packed`: the model can only answer then, not be trained or saved."""
        pack(self, keep=[] if self.language_model.lm_head is None else [self.language_model.lm_head])
        self.language_model.pack_head()
        if self.device.type == "cpu":  # what is left lets go of the file that it was read from
            self.projector.temporal = self.projector.temporal.clone()
            for parameter in self.parameters():
                parameter.data = parameter.data.clone()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.projector.temporal.device

    def new_cache(self) -> KVCache:
        """An empty cache for `decode`."""
        return KVCache()

    def new_slots(self, slots: int, beams: int = 1, is_fixed: bool | None = None) -> SlotCache:
        """Room for `slots` answers at a time, each with `beams` rows, that begin and end as they like."""
        return SlotCache(self.config.text, slots, beams, self.projector.temporal.dtype, self.device, is_fixed)

    def admit(self, memory: Memory, slots: SlotCache) -> range:
        """Puts the questions of a memory (N rows) into slots that are free; returns which they are."""
        return slots.admit(self.language_model.decoder.read(memory.hidden), memory.mask)

    def step(self, tokens: Tensor, slots: SlotCache) -> Tensor:
        """One token of every row in use, tokens (R,) long -> the decoder's states (R, d), for `logits`."""

        def step(tokens: Tensor, positions: Tensor) -> Tensor:
            embedded = self.language_model.embed(tokens[:, None])  # (R, 1, d)
            return self.language_model.decoder.step(embedded, positions, slots)[:, 0]

        return slots.step(tokens, step)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels (I, 3, height, width) -> image features (I, 1 + N, d)."""
        return self.projector(self.vision_tower(pixel_values.to(self.projector.image_proj_norm.weight.dtype)))  # type: ignore[no-any-return]

    def encode(self, image_features: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Memory:
        """image_features (B, 1 + N, d); input_ids (B, L) long; attention_mask (B, L), 0 where padded -> Memory."""
        embedded = torch.cat([image_features, self.language_model.embed(input_ids)], dim=1)  # (B, S, d)
        seen = attention_mask.new_ones(image_features.shape[:2], dtype=torch.bool)
        mask = torch.cat([seen, attention_mask.bool()], dim=1)  # (B, S)
        return Memory(self.language_model.encoder(embedded, mask), mask)

    def decode(self, ids: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Answer tokens ids (R, T) long -> logits (R, T, V) of the token after each.

        Rows b * beams .. (b + 1) * beams - 1 read memory row b. With a cache (a new `KVCache()` at the first call),
        the T tokens continue those of the calls before, which are not given again.
        """
        return self.logits(self.hidden(ids, memory, cache))

    def hidden(self, ids: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """The decoder's states (R, T, d), of which `logits` makes those of `decode`. Arguments as there."""
        embedded = self.language_model.embed(ids)  # (R, T, d)
        return self.language_model.decoder(embedded, memory.hidden, memory.mask, cache)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor, among: range | None = None) -> Tensor:
        """States (..., d) -> logits (..., V), or (..., len(among)) of the ids `among` alone."""
        return self.language_model.logits(hidden, among)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        image_index: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V) that predict each of the labels (B, T) from those before it.

        pixel_values (I, 3, height, width), input_ids and attention_mask (B, L). `image_index` (B,) says which image
        each row asks about, so that an image is encoded once for all its rows; without it I = B, in order. Labels are
        `<s> ... </s>` padded with -100; cross-entropy with the logits is the training objective (section 3.2).
        """
        features = self.encode_image(pixel_values)
        if image_index is not None:
            features = features[image_index]  # (B, 1 + N, d)
        return self.decode(self.shift_right(labels), self.encode(features, input_ids, attention_mask))

    def shift_right(self, labels: Tensor) -> Tensor:
        """Labels (B, T) -> what the decoder is given to predict them: the start token, then all but the last."""
        text = self.config.text
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = text.decoder_start
        return shifted.masked_fill(shifted == IGNORED_LABEL, text.pad)


class Projector(nn.Module):
    """From the tower's feature map to visual tokens: positions added, a mean token put first, projected, normalised."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        dim = config.dims[-1]
        self.limit = config.positions
        self.column_embeddings = Table(config.positions, dim // 2)
        self.row_embeddings = Table(config.positions, dim - dim // 2)
        self.image_projection = nn.Linear(dim, config.projection_dim, bias=False)
        self.image_proj_norm = nn.LayerNorm(config.projection_dim)
        self.temporal: Tensor
        self.register_buffer("temporal", temporal_table(config.frames, dim).to(self.image_projection.weight.device))
        for table in (self.column_embeddings, self.row_embeddings, self.image_projection):
            if not table.weight.is_meta:
                nn.init.trunc_normal_(table.weight, std=0.02)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(I, C, H, W) -> visual tokens (I, 1 + H W, d): the mean of all cells, then the cells row by row."""
        height, width = feature_map.shape[2:]
        if max(height, width) > self.limit:
            raise ValueError(
                f"the image gives {height} x {width} cells, more than the {self.limit} x {self.limit} of the model"
            )
        columns = self.column_embeddings.weight[:width].expand(height, width, -1)
        rows = self.row_embeddings.weight[:height, None].expand(height, width, -1)
        places = torch.cat([columns, rows], dim=-1)  # (H, W, C): x in the first half of the channels
        x = (feature_map.permute(0, 2, 3, 1) + places).flatten(1, 2)  # (I, N, C)
        x = x + self.temporal[0]  # an image is the first frame of a film of one
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1)  # (I, 1 + N, C)
        return self.image_proj_norm(self.image_projection(x))  # type: ignore[no-any-return]


def temporal_table(frames: int, dim: int) -> Tensor:
    """The fixed temporal table (frames, dim): sines in the even channels, cosines in the odd ones."""
    steps = torch.arange(dim // 2, device="cpu").float()  # whatever device is being built for
    rates = torch.exp(steps * -(math.log(10000) / (dim // 2)))
    angles = torch.arange(frames, device="cpu").float()[:, None] * rates  # (frames, dim / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
