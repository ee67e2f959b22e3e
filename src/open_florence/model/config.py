"""The numbers that make a Florence-2: every size of the image tower, the projector and the language model.

`FlorenceConfig.from_json` reads the config.json of both published layouts (Microsoft's remote code and transformers'
native class) and `to_json` writes either. Class defaults of the published code differ from every published file, so a
size that the file does not give is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Layout = Literal["native", "microsoft"]
LAYOUTS: tuple[Layout, ...] = ("native", "microsoft")

PADDED_ROWS = 64
"""The published converter grows the vocabulary to a multiple of this, after adding the image placeholder."""


class ConfigError(ValueError):
    """A config.json that lacks a size, or asks for something no Florence-2 has; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The image tower (DaViT, arXiv 2204.03645) and the projector; one entry per stage where a field is a tuple."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    """Pairs of blocks: one spatial and one channel block each."""
    heads: tuple[int, ...]
    groups: tuple[int, ...]
    projection_dim: int
    window: int = 12
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    patch_strides: tuple[int, ...] = (4, 2, 2, 2)
    patch_paddings: tuple[int, ...] = (3, 1, 1, 1)
    patch_prenorm: tuple[bool, ...] = (False, True, True, True)
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    """Stochastic depth of the last block in training; it rises linearly from 0 at the first."""
    positions: int = 50
    """Rows, and columns, that the learned 2-D position table covers."""
    frames: int = 100
    """Rows of the fixed temporal table; an image uses the first."""


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The language model (BART, arXiv 1910.13461): post-norm encoder and decoder over one shared vocabulary."""

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn: int
    decoder_ffn: int
    max_positions: int = 1024
    """Tokens a sequence may have; the table has two rows more."""
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    init_std: float = 0.02
    bos: int = 0
    pad: int = 1
    eos: int = 2
    decoder_start: int = 2
    tied: bool = True
    """Whether the output layer is the embedding table; some fine-tunes carry one of their own."""


@dataclass(frozen=True, slots=True)
class FlorenceConfig:
    """A whole Florence-2."""

    vision: VisionConfig
    text: TextConfig
    image_size: int = 768
    """Pixels a side that the processor resizes to; the network itself takes any size its position table covers."""
    image_token_id: int | None = None
    """The placeholder that native checkpoints add to the vocabulary; the model here never reads or writes it."""

    def __post_init__(self) -> None:
        if self.vision.projection_dim != self.text.d_model:
            raise ConfigError(
                f"the projector makes {self.vision.projection_dim} channels but the language model has "
                f"d_model {self.text.d_model}"
            )

    @property
    def used_vocab(self) -> int:
        """How many ids, from 0, a model may answer with.

        A native checkpoint's vocabulary ends with the image placeholder and rows that only pad the table; their logits
        mean nothing, and a decoder must never choose them.
        """
        image, size = self.image_token_id, self.text.vocab_size
        return image if image is not None and 0 < size - image <= PADDED_ROWS else size

    def with_vocabulary(self, size: int, image_token_id: int | None = None) -> FlorenceConfig:
        """The same model over another vocabulary."""
        return replace(self, text=replace(self.text, vocab_size=size), image_token_id=image_token_id)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FlorenceConfig:
        """Read the content of a config.json of either layout. Raises ConfigError naming what is missing or unknown."""
        vision, text = record.get("vision_config"), record.get("text_config")
        if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
            raise ConfigError("this config.json has no vision_config and text_config, so it is not a Florence-2's")
        known = ("davit", "florence_vision", "")  # the original writes "" when it saves what it loaded
        if (kind := vision.get("model_type", "")) not in known:
            raise ConfigError(f"the vision_config is of type {kind!r}, and Florence-2's is davit or florence_vision")
        tied = record.get("tie_word_embeddings", text.get("tie_word_embeddings", True))
        image = record.get("image_token_id")
        return cls(
            _vision_from_json(vision),
            _text_from_json(text, bool(tied)),
            image_size=int(record.get("image_size", 768)),
            image_token_id=None if image is None else int(image),
        )

    def to_json(self, layout: Layout) -> dict[str, Any]:
        """The content of a config.json that the published code of that layout reads."""
        if layout not in LAYOUTS:
            raise ConfigError(f"a layout is one of {', '.join(LAYOUTS)}, not {layout!r}")
        native = layout == "native"
        record: dict[str, Any] = {
            "architectures": ["Florence2ForConditionalGeneration"],
            "model_type": "florence2",
            "is_encoder_decoder": True,
            "tie_word_embeddings": self.text.tied,
            "bos_token_id": self.text.bos,
            "pad_token_id": self.text.pad,
            "eos_token_id": self.text.eos,
            "image_size": self.image_size,
            "vision_config": _vision_to_json(self.vision, native),
            "text_config": _text_to_json(self.text, native),
        }
        if self.image_token_id is not None:
            record["image_token_id"] = self.image_token_id
        if not native:
            record |= {
                "auto_map": {
                    "AutoConfig": "configuration_florence2.Florence2Config",
                    "AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration",
                },
                "projection_dim": self.vision.projection_dim,
                "vocab_size": self.text.vocab_size,
                "ignore_index": -100,
            }
        return record

    def generation_json(self) -> dict[str, Any]:
        """The content of a generation_config.json with the published settings, for the published code to read."""
        return _generation_json(self.text)


def _get(record: Mapping[str, Any], part: str, *names: str) -> Any:
    for name in names:
        if record.get(name) is not None:
            return record[name]
    raise ConfigError(f"the {part} of this config.json gives no {names[0]}")


def _vision_from_json(record: Mapping[str, Any]) -> VisionConfig:
    def ints(*names: str) -> tuple[int, ...]:
        return tuple(int(v) for v in _get(record, "vision_config", *names))

    _refuse_other(record, "vision_config", {"qkv_bias": True, "activation_function": "gelu", "in_channels": 3})
    table = record.get("image_pos_embed") or {}
    frames = record.get("visual_temporal_embedding") or {}
    _refuse_other(table, "image_pos_embed", {"type": "learned_abs_2d"})
    _refuse_other(frames, "visual_temporal_embedding", {"type": "COSINE"})
    sources = record.get("image_feature_source")
    if sources is not None and list(sources) != ["spatial_avg_pool", "temporal_avg_pool"]:
        raise ConfigError(f"image_feature_source {sources} is none that a published Florence-2 uses")
    positions = [table.get("max_pos_embeddings"), record.get("max_position_embeddings")]
    positions += [record.get("max_pos_embeddings"), 50]
    return VisionConfig(
        dims=ints("embed_dim", "dim_embed"),
        depths=ints("depths"),
        heads=ints("num_heads"),
        groups=ints("num_groups"),
        projection_dim=int(_get(record, "vision_config", "projection_dim")),
        window=int(_get(record, "vision_config", "window_size")),
        patch_sizes=ints("patch_size"),
        patch_strides=ints("patch_stride"),
        patch_paddings=ints("patch_padding"),
        patch_prenorm=tuple(bool(v) for v in _get(record, "vision_config", "patch_prenorm")),
        mlp_ratio=float(record.get("mlp_ratio", 4.0)),
        drop_path=float(record.get("drop_path_rate", 0.1)),
        positions=int(next(value for value in positions if value is not None)),
        frames=int(frames.get("max_temporal_embeddings", record.get("max_temporal_embeddings", 100))),
    )


def _text_from_json(record: Mapping[str, Any], tied: bool) -> TextConfig:
    def size(name: str) -> int:
        return int(_get(record, "text_config", name))

    _refuse_other(
        record,
        "text_config",
        {
            "activation_function": "gelu",
            "scale_embedding": False,
            "normalize_before": False,
            "add_final_layer_norm": False,
        },
    )
    return TextConfig(
        vocab_size=size("vocab_size"),
        d_model=size("d_model"),
        encoder_layers=size("encoder_layers"),
        decoder_layers=size("decoder_layers"),
        encoder_heads=size("encoder_attention_heads"),
        decoder_heads=size("decoder_attention_heads"),
        encoder_ffn=size("encoder_ffn_dim"),
        decoder_ffn=size("decoder_ffn_dim"),
        max_positions=size("max_position_embeddings"),
        dropout=float(record.get("dropout", 0.1)),
        attention_dropout=float(record.get("attention_dropout", 0.1)),
        activation_dropout=float(record.get("activation_dropout", 0.1)),
        init_std=float(record.get("init_std", 0.02)),
        bos=int(record.get("bos_token_id", 0)),
        pad=int(record.get("pad_token_id", 1)),
        eos=int(record.get("eos_token_id", 2)),
        decoder_start=int(record.get("decoder_start_token_id", 2)),
        tied=tied,
    )


def _refuse_other(record: Mapping[str, Any], part: str, only: Mapping[str, Any]) -> None:
    """The fields that every published checkpoint sets alike, and the network here hard-wires."""
    for name, value in only.items():
        if record.get(name, value) != value:
            raise ConfigError(f"the {part} asks for {name} {record[name]!r}, and Florence-2 has {value!r}")


def _vision_to_json(config: VisionConfig, native: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "model_type": "florence_vision" if native else "davit",
        "embed_dim" if native else "dim_embed": list(config.dims),
        "depths": list(config.depths),
        "num_heads": list(config.heads),
        "num_groups": list(config.groups),
        "projection_dim": config.projection_dim,
        "window_size": config.window,
        "patch_size": list(config.patch_sizes),
        "patch_stride": list(config.patch_strides),
        "patch_padding": list(config.patch_paddings),
        "patch_prenorm": list(config.patch_prenorm),
        "mlp_ratio": config.mlp_ratio,
        "drop_path_rate": config.drop_path,
    }
    if native:
        record |= {"max_position_embeddings": config.positions, "max_temporal_embeddings": config.frames}
        return record | {"in_channels": 3, "qkv_bias": True, "activation_function": "gelu"}
    return record | {
        "enable_checkpoint": False,
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": config.positions},
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": config.frames},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    }


def _text_to_json(config: TextConfig, native: bool) -> dict[str, Any]:
    return {
        "model_type": "bart" if native else "florence2_language",
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "num_hidden_layers": config.encoder_layers,
        "encoder_attention_heads": config.encoder_heads,
        "decoder_attention_heads": config.decoder_heads,
        "encoder_ffn_dim": config.encoder_ffn,
        "decoder_ffn_dim": config.decoder_ffn,
        "max_position_embeddings": config.max_positions,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "activation_function": "gelu",
        "scale_embedding": False,
        "init_std": config.init_std,
        "bos_token_id": config.bos,
        "pad_token_id": config.pad,
        "eos_token_id": config.eos,
        "decoder_start_token_id": config.decoder_start,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tied,
    } | ({} if native else _generation_json(config))


def _generation_json(config: TextConfig) -> dict[str, Any]:
    return {
        "bos_token_id": config.bos,
        "pad_token_id": config.pad,
        "eos_token_id": config.eos,
        "decoder_start_token_id": config.decoder_start,
        "forced_bos_token_id": config.bos,
        "forced_eos_token_id": config.eos,
        "num_beams": 3,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
    }


PRESETS: dict[str, FlorenceConfig] = {
    "base": FlorenceConfig(
        VisionConfig((128, 256, 512, 1024), (1, 1, 9, 1), (4, 8, 16, 32), (4, 8, 16, 32), projection_dim=768),
        TextConfig(51289, 768, 6, 6, encoder_heads=12, decoder_heads=12, encoder_ffn=3072, decoder_ffn=3072),
    ),
    "large": FlorenceConfig(
        VisionConfig((256, 512, 1024, 2048), (1, 1, 9, 1), (8, 16, 32, 64), (8, 16, 32, 64), projection_dim=1024),
        TextConfig(51289, 1024, 12, 12, encoder_heads=16, decoder_heads=16, encoder_ffn=4096, decoder_ffn=4096),
    ),
    "tiny": FlorenceConfig(
        VisionConfig(
            dims=(32, 64, 128, 192),
            depths=(1, 1, 2, 1),
            heads=(1, 2, 4, 6),
            groups=(1, 2, 4, 6),
            projection_dim=128,
            window=10,
            patch_strides=(4, 2, 2, 1),
        ),
        # 0.02 is made for a width of 768; the same share of 1 / sqrt(width) is 0.05 here.
        TextConfig(2048, 128, 2, 3, encoder_heads=4, decoder_heads=4, encoder_ffn=512, decoder_ffn=512, init_std=0.05),
        image_size=160,
    ),
}
"""The published shapes with the original vocabulary, and ours; tiny's vocabulary is set by its tokenizer."""
