"""Number formats of exported weights, by ONNX Runtime's own converters; inputs and outputs stay float32 in all."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import onnx
from onnx import ModelProto

SUFFIXES = {"float32": "", "float16": "_fp16", "int8": "_quantized"}
"""What stands before ".onnx" in the names of files, by dtype, as transformers.js looks for them."""


def _as_it_is(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _half(model: ModelProto) -> ModelProto:
    """Weights and arithmetic in float16."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    found: ModelProto = convert_float_to_float16(_as_it_is(model), keep_io_types=True, disable_shape_infer=True)
    _sort(found)
    return found


def _sort(model: ModelProto) -> None:
    """Puts each node after those it reads, as ONNX asks; the converter leaves its own at the end."""
    nodes = list(model.graph.node)
    maker = {name: i for i, node in enumerate(nodes) for name in node.output}
    order = TopologicalSorter(
        {i: {maker[name] for name in node.input if name in maker} for i, node in enumerate(nodes)}
    )
    ordered = [nodes[i] for i in order.static_order()]
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def _quantized(model: ModelProto) -> ModelProto:
    """Matrices in int8, a scale for each column; what they are multiplied with is rounded as it comes (dynamic)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # which advise a preparation that changes nothing here
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            quantize_dynamic(
                _as_it_is(model),
                path,
                op_types_to_quantize=["MatMul", "Gather"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            return onnx.load_model(str(path))
    finally:
        logging.disable(logging.NOTSET)


CONVERSIONS: dict[str, Callable[[ModelProto], ModelProto]] = {
    "float32": _as_it_is,
    "float16": _half,
    "int8": _quantized,
}
"""By dtype: a float32 model -> one in that format. What is given stays as it is."""
