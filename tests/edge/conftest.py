"""An export of the shipped checkpoint; and a model so small that thousands of its tokens take a moment.

The small one has weights that make its answers differ, where plainly random ones repeat one token for ever: an output
layer of its own and layer norms with random signs break the echo, attention to the question counts for more, and a
longer row of the end token ends answers at many lengths.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch

from open_florence.export.graphs import IDS, Graph, graphs
from open_florence.export.merge import merge_decoders
from open_florence.inference.pretrained import load_model
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


EXAMPLE = {"batch_size": 2, "sequence_length": 5, "encoder_sequence_length": 7, "encoder_sequence_length_out": 7}
"""Lengths of free axes while a graph is traced; 3 for the others."""


def trace(graph: Graph, path: Path) -> None:
    """One part as an ONNX file, by PyTorch's older exporter: `open_florence.export` takes ten times as long."""
    shapes = [
        [EXAMPLE.get(axis, 3) if isinstance(axis, str) else axis for axis in axes] for axes in graph.inputs.values()
    ]
    names = [*graph.inputs, *graph.outputs]
    axes = [*graph.inputs.values(), *graph.outputs.values()]
    with warnings.catch_warnings(), torch.enable_grad():  # with gradients the tower takes its plain path
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module,
            tuple(
                torch.ones(shape, dtype=torch.long) if name in IDS else torch.zeros(shape)
                for name, shape in zip(graph.inputs, shapes, strict=True)
            ),
            path,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={
                name: {place: axis for place, axis in enumerate(free) if isinstance(axis, str)}
                for name, free in zip(names, axes, strict=True)
            },
            opset_version=17,
            dynamo=False,
        )


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as ONNX files."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "onnx").mkdir()
    model, processor = load_model("tiny")
    for graph in graphs(model, processor.image_size):
        trace(graph, folder / "onnx" / f"{graph.name}.onnx")
    first, following = (folder / "onnx" / f"{name}.onnx" for name in ("decoder_model", "decoder_with_past_model"))
    onnx.save_model(
        merge_decoders(onnx.load_model(first), onnx.load_model(following)),
        folder / "onnx" / "decoder_model_merged.onnx",
    )
    first.unlink()
    following.unlink()
    processor.save(folder)
    (folder / "config.json").write_text(json.dumps(model.config.to_json("microsoft")))
    return folder
