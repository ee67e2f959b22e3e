"""What every tensor is called here and in the two published layouts: one table, read in both directions.

Microsoft's remote code wraps layers in `fn` modules and keeps its projection as a bare matrix; transformers' native
class flattens the wrappers. Both hold queries, keys and values of the language model apart, where we hold them in one
matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from open_florence.model.config import FlorenceConfig, Layout


@dataclass(frozen=True, slots=True)
class Link:
    """One tensor of ours and where its values stand in a published file."""

    ours: str
    theirs: tuple[str, ...]
    """One name, or those whose rows are stacked to make ours."""
    transposed: bool = False


# ours, native, Microsoft's; {attn} is window_attn or channel_attn
BLOCK = (
    ("conv1", "conv1", "conv1.fn.dw"),
    ("norm1", "norm1", "{attn}.norm"),
    ("attn.qkv", "{attn}.qkv", "{attn}.fn.qkv"),
    ("attn.proj", "{attn}.proj", "{attn}.fn.proj"),
    ("conv2", "conv2", "conv2.fn.dw"),
    ("norm2", "norm2", "ffn.norm"),
    ("ffn.fc1", "ffn.fc1", "ffn.fn.net.fc1"),
    ("ffn.fc2", "ffn.fc2", "ffn.fn.net.fc2"),
)
CONV = (("conv", "conv", "proj"), ("norm", "norm", "norm"))
PROJECTOR = (
    ("image_projection.weight", "image_projection.weight", "image_projection"),
    ("image_proj_norm.weight", "image_proj_norm.weight", "image_proj_norm.weight"),
    ("image_proj_norm.bias", "image_proj_norm.bias", "image_proj_norm.bias"),
    (
        "row_embeddings.weight",
        "image_position_embed.row_embeddings.weight",
        "image_pos_embed.row_embeddings.weight",
    ),
    (
        "column_embeddings.weight",
        "image_position_embed.column_embeddings.weight",
        "image_pos_embed.column_embeddings.weight",
    ),
    ("temporal", "visual_temporal_embed.pos_idx_to_embed", "visual_temporal_embed.pos_idx_to_embed"),
)

# ours, and what both layouts have in its place
LAYER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("self_attn.qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("self_attn.out", ("self_attn.out_proj",)),
    ("self_attn_layer_norm", ("self_attn_layer_norm",)),
    ("ffn.fc1", ("fc1",)),
    ("ffn.fc2", ("fc2",)),
    ("final_layer_norm", ("final_layer_norm",)),
)
CROSS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cross_attn.q", ("encoder_attn.q_proj",)),
    ("cross_attn.kv", ("encoder_attn.k_proj", "encoder_attn.v_proj")),
    ("cross_attn.out", ("encoder_attn.out_proj",)),
    ("cross_attn_layer_norm", ("encoder_attn_layer_norm",)),
)

SHARED = "language_model.shared.weight"
LM_HEAD = "language_model.lm_head.weight"
TEMPORAL = "projector.temporal"

LANGUAGE_PREFIX: dict[Layout, str] = {"native": "model.language_model.", "microsoft": "language_model.model."}
HEAD_NAME: dict[Layout, str] = {"native": "lm_head.weight", "microsoft": "language_model.lm_head.weight"}
LOGITS_BIAS = "language_model.final_logits_bias"
"""A buffer of zeros that only Microsoft's layout has."""


def links(config: FlorenceConfig, layout: Layout) -> list[Link]:
    """Every tensor of a model in the order the network runs, and its place in a file of that layout.

    The output layer is among them only where it is not the embedding table.
    """
    found = [*_tower(config, layout), *_projector(layout), *_language(config, layout)]
    if not config.text.tied:
        found.append(Link(LM_HEAD, (HEAD_NAME[layout],)))
    return found


def embedding_aliases(layout: Layout) -> tuple[str, ...]:
    """The names under which a file of that layout may keep the embedding table, the table's own first."""
    prefix = LANGUAGE_PREFIX[layout]
    parts = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    return tuple(f"{prefix}{part}.weight" for part in parts)


def _tower(config: FlorenceConfig, layout: Layout) -> Iterator[Link]:
    outer = "model." if layout == "native" else ""
    column = 1 if layout == "native" else 2
    for stage, depth in enumerate(config.vision.depths):
        place = f"vision_tower.convs.{stage}"
        for row in CONV:
            yield from _both((f"{place}.{row[0]}", (f"{outer}{place}.{row[column]}",)))
        for pair in range(depth):
            for kind, attn in (("spatial_block", "window_attn"), ("channel_block", "channel_attn")):
                place = f"vision_tower.blocks.{stage}.{pair}.{kind}"
                for row in BLOCK:
                    theirs = row[column].format(attn=attn)
                    yield from _both((f"{place}.{row[0]}", (f"{outer}{place}.{theirs}",)))


def _projector(layout: Layout) -> Iterator[Link]:
    for ours, native, microsoft in PROJECTOR:
        theirs = f"model.multi_modal_projector.{native}" if layout == "native" else microsoft
        yield Link(f"projector.{ours}", (theirs,), transposed=theirs == "image_projection")


def _language(config: FlorenceConfig, layout: Layout) -> Iterator[Link]:
    prefix = LANGUAGE_PREFIX[layout]
    yield Link(SHARED, (f"{prefix}shared.weight",))
    stacks = (("encoder", config.text.encoder_layers, LAYER), ("decoder", config.text.decoder_layers, LAYER + CROSS))
    for stack, count, rows in stacks:
        ours, theirs = f"language_model.{stack}", f"{prefix}{stack}"
        yield Link(f"{ours}.embedding.embed_positions.weight", (f"{theirs}.embed_positions.weight",))
        yield from _both((f"{ours}.embedding.layernorm_embedding", (f"{theirs}.layernorm_embedding",)))
        for layer in range(count):
            for name, parts in rows:
                spelt = tuple(f"{theirs}.layers.{layer}.{part}" for part in parts)
                yield from _both((f"{ours}.layers.{layer}.{name}", spelt))


def _both(row: tuple[str, tuple[str, ...]]) -> Iterator[Link]:
    """The weight and the bias of one module."""
    for end in ("weight", "bias"):
        yield Link(f"{row[0]}.{end}", tuple(f"{name}.{end}" for name in row[1]))
