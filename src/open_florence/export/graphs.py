"""The parts of a Florence-2 as functions of tensors alone, each with the names and axes of its ONNX file.

Names, axes and order are those of the onnx-community repositories, which transformers.js reads. The decoder comes
twice: `decoder_model` for the first tokens of an answer, which also reads the memory, and `decoder_with_past_model` for
those that follow, which is given the keys and values of before. Letters: B rows, L prompt tokens, S memory length
(visual and prompt tokens), T new answer tokens, P answer tokens before them, H heads, D head width, d model width, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from open_florence.model.bart import POSITION_OFFSET
from open_florence.model.config import FlorenceConfig
from open_florence.model.florence import Florence

Axes = tuple[int | str, ...]
"""The length of each axis, or its published name where it is free."""

BATCH, TEXT, SEEN, SAID, BEFORE = (
    "batch_size",
    "sequence_length",
    "encoder_sequence_length",
    "decoder_sequence_length",
    "past_decoder_sequence_length",
)
SEEN_KEPT = "encoder_sequence_length_out"
"""What the published files call S in the keys and values that are kept of the memory."""

IDS = ("input_ids", "attention_mask", "encoder_attention_mask")
"""Inputs of whole numbers (int64); all others are float32."""

MASKED = -10000.0
"""Added to a score to hide a key: float16 holds it, and its exponential is 0 in every format."""


@dataclass(frozen=True, slots=True)
class Graph:
    """One file to be written."""

    name: str
    """Its name without ending: "encoder_model"."""
    module: nn.Module
    """Takes the inputs in their order, gives the outputs in theirs."""
    inputs: dict[str, Axes]
    outputs: dict[str, Axes]


def graphs(model: Florence, image_size: int) -> list[Graph]:
    """The five parts of a model whose images are `image_size` pixels a side; `merge.merge_decoders` makes the sixth."""
    d, vocabulary = model.config.text.d_model, model.config.text.vocab_size
    language = model.language_model
    cells = _visual_tokens(model, image_size)
    embedded: dict[str, Axes] = {"inputs_embeds": (BATCH, SAID, d)}
    mask: dict[str, Axes] = {"encoder_attention_mask": (BATCH, SEEN)}
    logits: dict[str, Axes] = {"logits": (BATCH, SAID, vocabulary)}
    first_kept = cache_axes(model.config, "present", SAID)
    next_kept = cache_axes(model.config, "present", f"{BEFORE} + 1", memory=False)
    return [
        Graph("embed_tokens", language.shared, {"input_ids": (BATCH, TEXT)}, {"inputs_embeds": (BATCH, TEXT, d)}),
        Graph(
            "vision_encoder",
            _Vision(model),
            {"pixel_values": (BATCH, 3, image_size, image_size)},
            {"image_features": (BATCH, cells, d)},
        ),
        Graph(
            "encoder_model",
            _Encoder(model),
            {"attention_mask": (BATCH, SEEN), "inputs_embeds": (BATCH, SEEN, d)},
            {"last_hidden_state": (BATCH, SEEN, d)},
        ),
        Graph(
            "decoder_model",
            _FirstStep(model),
            mask | {"encoder_hidden_states": (BATCH, SEEN, d)} | embedded,
            logits | first_kept,
        ),
        Graph(
            "decoder_with_past_model",
            _NextStep(model),
            mask | embedded | cache_axes(model.config, "past_key_values", BEFORE),
            logits | next_kept,
        ),
    ]


def cache_axes(config: FlorenceConfig, prefix: str, length: int | str, memory: bool = True) -> dict[str, Axes]:
    """Names and axes (B, H, length, D) of the keys and values of every decoder layer, those of the memory too or not.

    `prefix` is "past_key_values" for inputs and "present" for outputs.
    """
    heads = config.text.decoder_heads
    width = config.text.d_model // heads
    lengths = {"decoder": length, "encoder": SEEN_KEPT} if memory else {"decoder": length}
    return {
        f"{prefix}.{layer}.{side}.{kind}": (BATCH, heads, positions, width)
        for layer in range(config.text.decoder_layers)
        for side, positions in lengths.items()
        for kind in ("key", "value")
    }


def _visual_tokens(model: Florence, image_size: int) -> int:
    """How many tokens an image becomes: one, and one for each cell of the tower's last grid."""
    side, vision = image_size, model.config.vision
    for size, stride, padding in zip(vision.patch_sizes, vision.patch_strides, vision.patch_paddings, strict=True):
        side = (side + 2 * padding - size) // stride + 1
    return 1 + side * side


class _Vision(nn.Module):
    def __init__(self, model: Florence) -> None:
        super().__init__()
        self.vision_tower, self.projector = model.vision_tower, model.projector
        self.eval()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels (B, 3, height, width) -> (B, 1 + N, d)."""
        return cast(Tensor, self.projector(self.vision_tower(pixel_values)))


class _Encoder(nn.Module):
    """BART's encoder, out of its layers' own linear maps and norms."""

    def __init__(self, model: Florence) -> None:
        super().__init__()
        self.encoder = model.language_model.encoder
        self.eval()

    def forward(self, attention_mask: Tensor, inputs_embeds: Tensor) -> Tensor:
        """attention_mask (B, S), 0 where padded; inputs_embeds (B, S, d) -> (B, S, d)."""
        hidden = _hiding(attention_mask)
        x = _placed(self.encoder.embedding, inputs_embeds, 0)
        for layer in _layers(self.encoder):
            query, key, value = _split(layer.self_attn.qkv(x), 3, layer.self_attn.heads)
            x = layer.self_attn_layer_norm(x + layer.self_attn.out(_attend(query, key, value, hidden)))
            x = layer.final_layer_norm(x + layer.ffn(x))
        return x


class _Decoder(nn.Module):
    """What both steps of BART's decoder share."""

    def __init__(self, model: Florence) -> None:
        super().__init__()
        self.decoder = model.language_model.decoder
        head = model.language_model.lm_head
        self.head = model.language_model.shared if head is None else head
        self.eval()

    def step(
        self, inputs_embeds: Tensor, hidden: Tensor, past: list[Tensor], memory: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The logits (B, T, V) and the keys and values (B, H, P + T, D) of each layer, in turn.

        inputs_embeds (B, T, d); `hidden` (B, 1, 1, S) is added to the scores of the memory; `past` holds per layer its
        keys and values (B, H, P, D), and is empty at the beginning; `memory` the same of the memory (B, H, S, D).
        """
        before = past[0].shape[2] if past else 0
        after = before + inputs_embeds.shape[1]
        ahead = torch.arange(after)[None] > torch.arange(before, after)[:, None]  # (T, P + T)
        future = ahead * MASKED
        x = _placed(self.decoder.embedding, inputs_embeds, before)
        kept: list[Tensor] = []
        for i, layer in enumerate(_layers(self.decoder)):
            query, key, value = _split(layer.self_attn.qkv(x), 3, layer.self_attn.heads)
            if past:
                key, value = (torch.cat([past[2 * i + j], new], dim=2) for j, new in enumerate((key, value)))
            kept += [key, value]
            x = layer.self_attn_layer_norm(x + layer.self_attn.out(_attend(query, key, value, future)))
            (query,) = _split(layer.cross_attn.q(x), 1, layer.cross_attn.heads)
            seen = _attend(query, memory[2 * i], memory[2 * i + 1], hidden)
            x = layer.cross_attn_layer_norm(x + layer.cross_attn.out(seen))
            x = layer.final_layer_norm(x + layer.ffn(x))
        return F.linear(x, self.head.weight), kept


class _FirstStep(_Decoder):
    """The first tokens of an answer; gives the keys and values of the memory too."""

    def forward(self, encoder_attention_mask: Tensor, encoder_hidden_states: Tensor, inputs_embeds: Tensor) -> Any:
        """(B, S), (B, S, d), (B, T, d) -> logits and, per layer, its keys and values, then those of the memory."""
        memory: list[Tensor] = []
        for layer in _layers(self.decoder):
            memory += _split(layer.cross_attn.kv(encoder_hidden_states), 2, layer.cross_attn.heads)
        logits, own = self.step(inputs_embeds, _hiding(encoder_attention_mask), [], memory)
        return logits, *_interleaved(own, memory)


class _NextStep(_Decoder):
    """The tokens that follow."""

    def forward(self, encoder_attention_mask: Tensor, inputs_embeds: Tensor, *past: Tensor) -> Any:
        """(B, S), (B, T, d), the keys and values as the first step gave them -> logits, the answer's own, longer."""
        own = [tensor for i, tensor in enumerate(past) if i % 4 < 2]
        memory = [tensor for i, tensor in enumerate(past) if i % 4 >= 2]
        logits, kept = self.step(inputs_embeds, _hiding(encoder_attention_mask), own, memory)
        return logits, *kept


def _layers(stack: nn.Module) -> Iterator[Any]:
    """The layers of BART's encoder or decoder, whose parts nn.Module types as Tensor or Module."""
    return iter(cast(Any, stack).layers)


def _interleaved(own: list[Tensor], memory: list[Tensor]) -> Iterator[Tensor]:
    for i in range(0, len(own), 2):
        yield from (*own[i : i + 2], *memory[i : i + 2])


def _placed(embedding: Any, embedded: Tensor, before: int) -> Tensor:
    """Embeddings (B, L, d) of tokens at positions `before` and after, their positions added, normalised."""
    positions = torch.arange(before, before + embedded.shape[1]) + POSITION_OFFSET  # (L,)
    return cast(
        Tensor, embedding.layernorm_embedding(embedded + F.embedding(positions, embedding.embed_positions.weight))
    )


def _hiding(mask: Tensor) -> Tensor:
    """mask (B, S), 0 where padded -> what is added to scores (B, 1, 1, S)."""
    return ((mask == 0) * MASKED)[:, None, None]


def _split(projected: Tensor, count: int, heads: int) -> list[Tensor]:
    """(B, L, count * d) -> `count` tensors (B, H, L, D)."""
    batch, length, _ = projected.shape
    return [part.view(batch, length, heads, -1).transpose(1, 2) for part in projected.chunk(count, dim=2)]


def _attend(query: Tensor, key: Tensor, value: Tensor, added: Tensor) -> Tensor:
    """query (B, H, T, D), key and value (B, H, S, D), `added` to the scores (B, H, T, S) -> (B, T, H D)."""
    weights = ((query * float(query.shape[-1]) ** -0.5) @ key.transpose(2, 3) + added).softmax(-1)
    seen: Tensor = weights @ value  # (B, H, T, D)
    return seen.transpose(1, 2).flatten(2)
