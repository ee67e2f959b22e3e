"""A model as ONNX files in the layout of the onnx-community repositories, which transformers.js loads.

    config.json  generation_config.json  preprocessor_config.json  tokenizer.json  tokenizer_config.json
    onnx/embed_tokens.onnx   input_ids -> inputs_embeds
    onnx/vision_encoder.onnx   pixel_values -> image_features
    onnx/encoder_model.onnx   inputs_embeds, attention_mask -> last_hidden_state
    onnx/decoder_model.onnx, onnx/decoder_with_past_model.onnx   the first step and those that follow
    onnx/decoder_model_merged.onnx   both: what transformers.js and `open_florence.edge` run

`_fp16` and `_quantized` before ".onnx" stand for float16 and int8, as there.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto, TensorProto, helper

from open_florence.export.graphs import IDS, SEEN, SEEN_KEPT, Axes, Graph, graphs
from open_florence.export.merge import merge_decoders
from open_florence.export.parity import Parity, compare
from open_florence.export.precision import CONVERSIONS, SUFFIXES
from open_florence.export.settings import write_settings
from open_florence.model.florence import Florence
from open_florence.processor import Processor

OPSET = 18
"""Of the ONNX operators: the oldest that PyTorch's exporter writes, so that older engines read the files too."""

LARGEST = 2_000_000_000
"""Bytes of weights a file may hold; where there are more, they stand in a second file beside it (protobuf's limit)."""

EXAMPLE = {"batch_size": 2, "sequence_length": 5, SEEN: 7, "decoder_sequence_length": 2}
"""Lengths of the free axes while a graph is traced, 3 for the others: 0 and 1 would be taken for fixed."""


DECODERS = ("decoder_model", "decoder_with_past_model")
"""The first step and those that follow: what `decoder_model_merged` is made of."""


def export_onnx(model: Florence, processor: Processor, folder: Path, dtypes: Sequence[str]) -> list[Parity]:
    """Writes all files into an empty folder, runs them, and says for each dtype how far they are from the model.

    `model` in float32 on the CPU, in evaluation mode; dtypes out of `precision.SUFFIXES`. Raises OSError.
    """
    (folder / "onnx").mkdir()
    large = _write_graphs(model, processor.image_size, folder / "onnx", dtypes)
    write_settings(model, processor, folder, large)
    return [compare(model, processor, folder, dtype) for dtype in dtypes]


def _write_graphs(model: Florence, image_size: int, folder: Path, dtypes: Sequence[str]) -> list[str]:
    """Writes every graph in every dtype; the names of files whose weights stand beside them."""
    parts = {graph.name: trace(graph) for graph in graphs(model, image_size)}
    large: list[str] = []
    for dtype in dtypes:
        decoders = {}
        for name, part in parts.items():
            converted = CONVERSIONS[dtype](part)
            large += _write(converted, folder / f"{name}{SUFFIXES[dtype]}.onnx")
            if name in DECODERS:
                decoders[name] = converted
        merged = merge_decoders(*(decoders[name] for name in DECODERS))
        large += _write(merged, folder / f"decoder_model_merged{SUFFIXES[dtype]}.onnx")
    return large


def trace(graph: Graph) -> ModelProto:
    """One part as an ONNX model, its weights inside, without notes on how and where it was made."""
    names: dict[str, Any] = {}
    shapes = [_free_axes(axes, names) for axes in graph.inputs.values()]
    # With gradients on, because the tower then takes the path that trains: plain operations on whole grids.
    with _quiet(), torch.enable_grad():
        program = torch.onnx.export(
            graph.module,
            tuple(_example(name, axes) for name, axes in graph.inputs.items()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=_as_arguments(graph, shapes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    found: ModelProto = program.model_proto
    _describe(found, graph)
    return found


def _free_axes(axes: Axes, names: dict[str, Any]) -> dict[int, Any]:
    """What of a tensor's shape is free; `names` keeps what is called the same the same."""
    own = {i: SEEN if axis == SEEN_KEPT else axis for i, axis in enumerate(axes)}
    return {i: names.setdefault(axis, torch.export.Dim(axis)) for i, axis in own.items() if isinstance(axis, str)}


def _as_arguments(graph: Graph, shapes: list[dict[int, Any]]) -> tuple[Any, ...]:
    """The shapes as the module's `forward` takes its arguments: those of the past are one argument, `*past`."""
    past = sum(name.startswith("past_key_values") for name in graph.inputs)
    return (*shapes[: len(shapes) - past], tuple(shapes[len(shapes) - past :])) if past else tuple(shapes)


def _example(name: str, axes: Axes) -> torch.Tensor:
    sizes = [axis if isinstance(axis, int) else EXAMPLE.get(SEEN if axis == SEEN_KEPT else axis, 3) for axis in axes]
    return torch.ones(sizes, dtype=torch.int64) if name in IDS else torch.zeros(sizes)


def _describe(model: ModelProto, graph: Graph) -> None:
    """Gives inputs and outputs their published axes, and takes out what the exporter notes of the source code."""
    model.producer_name, model.producer_version = "open-florence", ""
    found = model.graph
    for values, wanted in ((found.input, graph.inputs), (found.output, graph.outputs)):
        assert [value.name for value in values] == list(wanted)
        del values[:]
        for name, axes in wanted.items():
            kind = TensorProto.INT64 if name in IDS else TensorProto.FLOAT
            values.append(helper.make_tensor_value_info(name, kind, list(axes)))
    found.name = graph.name
    del found.value_info[:], model.metadata_props[:], found.metadata_props[:]
    for node in found.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in found.initializer:
        del tensor.metadata_props[:]


def _write(model: ModelProto, path: Path) -> list[str]:
    """Writes one model; its file's name where the weights did not fit into it, and stand in `<name>_data`."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= LARGEST:
        onnx.save_model(model, str(path))
        return []
    copy = ModelProto()  # saving so moves the weights out of what is saved
    copy.CopyFrom(model)
    onnx.save_model(copy, str(path), save_as_external_data=True, location=f"{path.name}_data")
    return [path.name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks: each is about its own inside or about libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
