"""A model so small that thousands of its tokens take a moment, with weights that make its answers differ.

Plainly random weights repeat one token for ever. An output layer of its own and layer norms with random signs break the
echo, attention to the question counts for more, and a longer row of the end token ends answers at many lengths.
"""

from dataclasses import dataclass

import pytest
import torch

from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence, Memory

VOCABULARY = 120
POSITIONS = 64


@dataclass
class Toy:
    """A random model, and a memory of four questions of different lengths."""

    model: Florence
    memory: Memory
    positions: int = POSITIONS
    vocabulary: int = VOCABULARY


def toy_config(vocabulary: int = VOCABULARY, positions: int = POSITIONS) -> FlorenceConfig:
    """Two layers of everything, images of 64 pixels."""
    vision = VisionConfig(
        dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), groups=(1, 1, 2, 2), projection_dim=32, window=3
    )
    text = TextConfig(vocabulary, 32, 2, 2, 2, 2, encoder_ffn=64, decoder_ffn=64, max_positions=positions, tied=False)
    return FlorenceConfig(vision, text, image_size=64)


def lively(model: Florence) -> Florence:
    """The model with weights under which its answers differ."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and parameter.dim() == 1:
                parameter.normal_(0, 1 if name.endswith("weight") else 0.1)
            else:
                spread = {"position": 0.8, "shared": 0.5, "lm_head": 0.5, "cross": 0.4}
                parameter.normal_(0, next((std for part, std in spread.items() if part in name), 0.15))
        model.language_model.get_parameter("lm_head.weight")[2] *= 2
    return model.eval()


@pytest.fixture(scope="session")
def toy() -> Toy:
    torch.manual_seed(6)
    model = lively(Florence(toy_config()))
    questions = [[0, *torch.randint(3, 100, (count,)).tolist(), 2] for count in (3, 6, 4, 5)]
    length = max(map(len, questions))
    input_ids = torch.tensor([row + [1] * (length - len(row)) for row in questions])
    with torch.inference_mode():
        features = model.encode_image(torch.randn(4, 3, 64, 64))
        return Toy(model, model.encode(features, input_ids, input_ids != 1))
