"""Images and texts in one space: the tower and the encoder of a Florence-2, each pooled, projected and normalised.

The two-tower model of UniCL (Yang et al., arXiv 2204.03610) and CLIP (Radford et al., arXiv 2103.00020) out of
Florence-2's own parts, named as `Florence` names them, so that what is learnt here goes over by name. Letters: I
images, B texts, L tokens, C channels of the tower, d width of the language model, E width of the space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from open_florence.model.bart import Bart
from open_florence.model.checkpoint import CheckpointError, read_json, read_tensors
from open_florence.model.config import ConfigError, FlorenceConfig, TextConfig
from open_florence.model.davit import DaViT
from open_florence.model.florence import Florence

MODEL_TYPE = "open_florence_dual_encoder"
"""What config.json says of a folder that holds a `DualEncoder`: no published code reads it."""

FIRST_SCALE = 1 / 0.07
LARGEST_SCALE = 100.0
"""The cosine's factor before the softmax: where CLIP starts it, and where CLIP stops it."""


class DualEncoder(nn.Module):
    """The cosine of `encode_image` and `encode_text` says how well a text fits an image.

    Images: the tower, a norm, the mean of all cells, a projection. Texts: the encoder of BART, reading the text alone,
    the mean of its tokens, a projection. Built with random weights over `config`, of which the projector and the
    decoder are not used.
    """

    def __init__(self, config: FlorenceConfig, embedding_dim: int = 512) -> None:
        super().__init__()
        self.config, self.embedding_dim = config, embedding_dim
        self.vision_tower = DaViT(config.vision)
        self.language_model = TextEncoder(config.text)
        channels, width = config.vision.dims[-1], config.text.d_model
        self.image_norm = nn.LayerNorm(channels)
        self.image_projection = nn.Linear(channels, embedding_dim, bias=False)
        self.text_projection = nn.Linear(width, embedding_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor([math.log(FIRST_SCALE)]))
        for layer in (self.image_projection, self.text_projection):
            if not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    @classmethod
    def from_florence(cls, model: Florence, embedding_dim: int = 512) -> DualEncoder:
        """Around the tower and the encoder of a Florence, not copies of them: what is trained here is trained there."""
        found = cls(model.config, embedding_dim)
        found.vision_tower = model.vision_tower
        found.language_model.shared = model.language_model.shared
        found.language_model.encoder = model.language_model.encoder
        return found.to(model.projector.image_projection.weight.device)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels (I, 3, height, width) -> unit vectors (I, E), float32."""
        grid = self.vision_tower(pixel_values.to(self.image_projection.weight.dtype))  # (I, C, H, W)
        pooled = self.image_norm(grid.permute(0, 2, 3, 1)).mean((1, 2))  # (I, C)
        return F.normalize(self.image_projection(pooled).float(), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids (B, L) long; attention_mask (B, L), 0 where padded -> unit vectors (B, E), float32."""
        hidden = self.language_model(input_ids, attention_mask.bool())  # (B, L, d)
        seen = attention_mask[:, :, None].to(hidden.dtype)  # (B, L, 1)
        pooled = (hidden * seen).sum(1) / seen.sum(1)  # (B, d)
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by before a softmax, (1,); training keeps it at `LARGEST_SCALE` or below."""
        return self.logit_scale.float().exp()


class TextEncoder(nn.Module):
    """The embedding table and the encoder of a BART, without its decoder."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        bart = Bart(replace(config, decoder_layers=0))
        self.shared, self.encoder = bart.shared, bart.encoder

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """input_ids (B, L) long; mask (B, L) bool, False where padded -> hidden (B, L, d)."""
        return self.encoder(self.shared(input_ids), mask)  # type: ignore[no-any-return]


def is_dual_encoder(folder: str | Path) -> bool:
    """Whether a folder's config.json is that of a `DualEncoder`. Raises CheckpointError for one that is not JSON."""
    path = Path(folder) / "config.json"
    return path.is_file() and read_json(path).get("model_type") == MODEL_TYPE


def read_dual_encoder(folder: str | Path, dtype: torch.dtype = torch.float32) -> DualEncoder:
    """The model that `write_dual_encoder` wrote, in evaluation mode.

    Raises CheckpointError, naming the folder, for a configuration or tensors that are not those of one.
    """
    folder = Path(folder)
    record = read_json(folder / "config.json")
    if not is_dual_encoder(folder) or not isinstance(record.get("florence"), dict):
        raise CheckpointError(f"{folder} holds no model that gives embeddings of images and texts")
    try:
        config, dim = FlorenceConfig.from_json(record["florence"]), int(record["embedding_dim"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be used: {error}") from error
    with torch.device("meta"):
        model = DualEncoder(config, dim)
    state = read_tensors(folder)
    for name, expected in model.state_dict().items():
        if name not in state or state[name].shape != expected.shape:
            found = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
            raise CheckpointError(f"in the weights of {folder}, {name} {found}, and {tuple(expected.shape)} is wanted")
    model.load_state_dict({name: state[name].to(dtype) for name in model.state_dict()}, assign=True)
    return model.eval()


def write_dual_encoder(folder: str | Path, config: FlorenceConfig, state: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors, under our own names: no published layout has this model."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "model_type": MODEL_TYPE,
        "embedding_dim": state["image_projection.weight"].shape[0],
        "florence": config.to_json("native"),
    }
    (folder / "config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    path = folder / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that only their owner can read
