"""Small models whose weights make every part matter."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence

SMALL = FlorenceConfig(
    VisionConfig((16, 32, 32, 64), (1, 1, 2, 1), (1, 2, 2, 4), (2, 4, 4, 8), projection_dim=48, window=4),
    TextConfig(140, 48, 2, 3, encoder_heads=4, decoder_heads=4, encoder_ffn=96, decoder_ffn=64, max_positions=64),
    image_size=96,
)


@pytest.fixture
def config() -> FlorenceConfig:
    return SMALL


@pytest.fixture
def make_model() -> Callable[..., Florence]:
    """A model in evaluation mode; `tied` and the seed may be chosen."""

    def make(config: FlorenceConfig = SMALL, tied: bool = True, seed: int = 0) -> Florence:
        torch.manual_seed(seed)
        model = Florence(replace(config, text=replace(config.text, tied=tied))).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():  # fresh weights are too small to tell right from wrong
                tower = name.startswith("vision_tower")  # whose are larger from the start
                parameter.mul_(1.0 if tower else 3.0).add_((0.05 if tower else 0.1) * torch.randn(parameter.shape))
        return model

    return make


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    """Pixels (3, 3, 96, 96); prompts (3, 7) of lengths 7, 4, 5 with their mask; labels (3, 6), one row shorter."""
    draw = torch.Generator().manual_seed(7)
    pixels = torch.randn(3, 3, 96, 96, generator=draw)
    input_ids = torch.randint(3, 140, (3, 7), generator=draw)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 5 + [0] * 2])
    labels = torch.randint(3, 140, (3, 6), generator=draw)
    labels[1, 4:] = -100
    return pixels, torch.where(mask == 1, input_ids, 1), mask, labels
