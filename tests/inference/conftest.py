"""A model so small that transformers' `generate` answers in milliseconds, with weights that make its answers differ.

Plainly random weights repeat one token for ever. Here layer norms carry random signs, which breaks the echo of the tied
embedding, positions weigh more than usual, and the end token's row is longer, so that answers end at many lengths.
"""

import logging
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers import Florence2Config, Florence2ForConditionalGeneration

from open_florence.model.checkpoint import read_weights
from open_florence.model.florence import Florence, Memory

VOCABULARY = 120
IMAGE_TOKEN = VOCABULARY - 1
POSITIONS = 64
VISUAL = 5  # of a 64-pixel image: the mean token and 2 x 2 cells


@dataclass
class Pair:
    """transformers' model and ours with the same weights, and a batch of questions of four lengths."""

    theirs: Florence2ForConditionalGeneration
    ours: Florence
    pixels: Tensor  # (4, 3, 64, 64)
    input_ids: Tensor  # (4, L), padded on the right
    attention_mask: Tensor
    vocabulary: int = VOCABULARY
    image_token: int = IMAGE_TOKEN
    positions: int = POSITIONS
    visual: int = VISUAL

    def memory(self, rows: slice = slice(None)) -> Memory:
        """Ours, of some of the questions without the padding that none of them needs."""
        length = int(self.attention_mask[rows].sum(1).max())
        with torch.inference_mode():
            features = self.ours.encode_image(self.pixels[rows])
            return self.ours.encode(features, self.input_ids[rows, :length], self.attention_mask[rows, :length])


def _reference() -> Florence2ForConditionalGeneration:
    config = Florence2Config(
        vision_config={
            "embed_dim": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "num_groups": [1, 1, 2, 2],
            "window_size": 3,
            "projection_dim": 32,
            "patch_size": [7, 3, 3, 3],
            "patch_stride": [4, 2, 2, 2],
            "patch_padding": [3, 1, 1, 1],
            "patch_prenorm": [False, True, True, True],
        },
        text_config={
            "model_type": "bart",
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": POSITIONS,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
        },
        image_token_id=IMAGE_TOKEN,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    model = Florence2ForConditionalGeneration(config).eval()
    model.generation_config.forced_bos_token_id = 0
    model.generation_config.forced_eos_token_id = 2
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and parameter.dim() == 1:
                parameter.normal_(0, 1 if name.endswith("weight") else 0.1)
            else:
                parameter.normal_(0, 0.8 if "embed_positions" in name else 0.5 if "shared" in name else 0.15)
        model.model.language_model.shared.weight[2] *= 3
    return model


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(4)
    theirs = _reference()
    folder = tmp_path_factory.mktemp("reference")
    theirs.save_pretrained(folder)
    config, state = read_weights(folder)
    ours = Florence(config).eval()
    ours.load_state_dict(state)
    pixels = torch.randn(4, 3, 64, 64)
    questions = [[0, *torch.randint(3, 100, (count,)).tolist(), 2] for count in (3, 6, 4, 5)]
    length = max(map(len, questions))
    input_ids = torch.tensor([row + [1] * (length - len(row)) for row in questions])
    return Pair(theirs, ours, pixels, input_ids, (input_ids != 1).long())
