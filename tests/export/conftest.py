"""Random weights in Microsoft's layout, with an output layer of their own, exported once by the command."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from open_florence.cli import run
from open_florence.inference.pretrained import load_model, save_model
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tokenizer import Tokenizer

IMAGE_SIZE = 24
LAYERS, HEADS, WIDTH = 2, 2, 16
CELLS = 10  # 24 / 4 / 2 = 3 a side, which the window of 2 does not divide, and the mean


def random_model(vocabulary: int, tied: bool = True) -> Florence:
    """A model whose answers differ: norms carry random signs, which breaks the echo of a tied embedding."""
    vision = VisionConfig(
        dims=(8, 16),
        depths=(1, 1),
        heads=(1, 2),
        groups=(1, 2),
        projection_dim=HEADS * WIDTH,
        window=2,
        patch_sizes=(7, 3),
        patch_strides=(4, 2),
        patch_paddings=(3, 1),
        patch_prenorm=(False, True),
    )
    text = TextConfig(vocabulary, HEADS * WIDTH, 1, LAYERS, HEADS, HEADS, 48, 48, max_positions=64, tied=tied)
    torch.manual_seed(3)
    model = Florence(FlorenceConfig(vision, text, image_size=IMAGE_SIZE)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(0, 1 if name.endswith("weight") else 0.1)
            elif "embed" in name or "shared" in name or "lm_head" in name:
                parameter.normal_(0, 0.5)
            else:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return model


@pytest.fixture(scope="session")
def tied() -> Florence:
    """A random model whose output layer is its embedding."""
    return random_model(120)


@dataclass
class Exported:
    """A model as its folder gives it, and the folder of its export."""

    model: Florence
    processor: Processor
    folder: Path
    said: str
    """What the command printed."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    tokenizer = Tokenizer.train(["a red square on a green field"] * 3, vocab_size=270)
    processor = Processor(tokenizer, image_size=IMAGE_SIZE, image_seq_length=CELLS)
    save_model(random_model(len(tokenizer), tied=False), processor, folder, "microsoft")
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint: Path) -> Exported:
    folder, said = checkpoint.parent / "new" / "onnx", io.StringIO()
    dtypes = [word for dtype in ("float32", "float16", "int8") for word in ("--dtype", dtype)]
    with contextlib.redirect_stdout(said):
        assert run(["export", str(checkpoint), str(folder), *dtypes]) == 0
    model, processor = load_model(checkpoint)
    return Exported(model, processor, folder, said.getvalue())
