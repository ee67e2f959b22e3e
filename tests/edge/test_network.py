"""One ONNX file: how its inputs are fed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from open_florence.edge.network import Part
from open_florence.errors import OpenFlorenceError


@pytest.fixture
def doubler(tmp_path: Path) -> Part:
    """A file that doubles halves, as published float16 files may ask for."""
    value, double = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n"]) for name in ("value", "double"))
    graph = helper.make_graph([helper.make_node("Add", ["value", "value"], ["double"])], "doubler", [value], [double])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, tmp_path / "doubler.onnx")
    return Part(tmp_path / "doubler.onnx", threads=1)


def test_inputs_take_the_files_own_type_and_others_are_left_out(doubler: Part) -> None:
    given = {"value": np.array([1.5, 2], np.float32), "other": np.zeros(3, np.int64)}
    (found,) = doubler(["double"], given)
    assert found.dtype == np.float16
    assert found.tolist() == [3, 4]


def test_a_file_without_the_output_is_named(doubler: Part) -> None:
    with pytest.raises(OpenFlorenceError, match=r"doubler\.onnx cannot be run"):
        doubler(["triple"], {"value": np.zeros(2, np.float32)})
