"""Both steps of the decoder in one file, as transformers.js wants them: an `If` over `use_cache_branch`.

The two branches read one set of weights. Keys and values of the memory do not change, so the branch of later steps
gives empty ones in their place, as the published files do: whoever decodes keeps those of the first step.
"""

from __future__ import annotations

import hashlib

import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

CONDITION = "use_cache_branch"

LARGE = 1024
"""Bytes from which on a weight is shared; smaller ones are mostly shapes, and stay in their branch."""


def merge_decoders(first: ModelProto, following: ModelProto) -> ModelProto:
    """One model of `decoder_model` and `decoder_with_past_model`, which are used up.

    Its inputs are those of both and `use_cache_branch`, its outputs those of the first.
    """
    weights = _Weights()
    branches = [_branch(first, "first", weights), _branch(following, "next", weights)]
    _add_missing(branches[1], following, first)
    inputs = {value.name: value for model in (first, following) for value in model.graph.input}
    condition = helper.make_tensor_value_info(CONDITION, TensorProto.BOOL, [1])
    order = sorted(inputs.values(), key=lambda value: value.name.startswith("past_key_values"))  # the rest goes before
    outputs = [_after_merge(value, first, following) for value in first.graph.output]
    node = helper.make_node(
        "If",
        [CONDITION],
        [value.name for value in outputs],
        name="step",
        then_branch=branches[1],
        else_branch=branches[0],
    )
    graph = helper.make_graph([node], "decoder_model_merged", [*order, condition], outputs, list(weights.shared))
    merged = helper.make_model(graph, opset_imports=_opsets(first, following), producer_name="open-florence")
    merged.ir_version = max(first.ir_version, following.ir_version)
    return merged


class _Weights:
    """The weights of both branches, each content once."""

    def __init__(self) -> None:
        self.shared: list[TensorProto] = []
        self._names: dict[bytes, str] = {}

    def name(self, tensor: TensorProto) -> str:
        """What the tensor is called in the whole file."""
        content = tensor.raw_data or tensor.SerializeToString()
        key = hashlib.sha256(f"{tensor.data_type} {list(tensor.dims)}".encode() + content).digest()
        if key not in self._names:
            self._names[key] = f"weight.{len(self.shared)}"
            self.shared.append(TensorProto())
            self.shared[-1].CopyFrom(tensor)
            self.shared[-1].name = self._names[key]
        return self._names[key]


def _branch(model: ModelProto, prefix: str, weights: _Weights) -> GraphProto:
    """The graph without inputs: they, and the large weights, are found outside. What is inside gets the prefix."""
    graph = model.graph
    names = {value.name: value.name for value in graph.input} | {"": ""}
    own: list[TensorProto] = []
    for tensor in graph.initializer:
        if tensor.ByteSize() >= LARGE:
            names[tensor.name] = weights.name(tensor)
        else:
            own.append(tensor)
    nodes = []
    for node in graph.node:
        node.input[:] = [names.get(name, f"{prefix}/{name}") for name in node.input]
        node.output[:] = [name and f"{prefix}/{name}" for name in node.output]
        node.name = f"{prefix}/{node.name}"
        nodes.append(node)
    for tensor in own:
        tensor.name = f"{prefix}/{tensor.name}"
    outputs = [_renamed(value, f"{prefix}/{value.name}") for value in graph.output]
    return helper.make_graph(nodes, prefix, [], outputs, own)


def _add_missing(branch: GraphProto, following: ModelProto, first: ModelProto) -> None:
    """Lets the branch of later steps give all that the first gives, in its order: what it lacks is empty."""
    found = {value.name: output for value, output in zip(following.graph.output, branch.output, strict=True)}
    outputs = []
    for value in first.graph.output:
        if value.name not in found:
            kind = value.type.tensor_type.elem_type
            _, heads, _, width = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
            name = f"{branch.name}/{value.name}"
            empty = helper.make_tensor(name, kind, [0, heads, 1, width], [])
            branch.node.append(helper.make_node("Constant", [], [name], value=empty))
            found[value.name] = helper.make_tensor_value_info(name, kind, [0, heads, 1, width])
        outputs.append(found[value.name])
    del branch.output[:]
    branch.output.extend(outputs)


def _after_merge(value: ValueInfoProto, first: ModelProto, following: ModelProto) -> ValueInfoProto:
    """An output's axes: those of later steps where they give it, for theirs are the longer ones."""
    later = {other.name: other for other in following.graph.output}
    found: ValueInfoProto = later.get(value.name, value)
    return found


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _opsets(*models: ModelProto) -> list[onnx.OperatorSetIdProto]:
    """The operator sets of all models, each domain once, in its latest version."""
    latest: dict[str, int] = {}
    for model in models:
        for opset in model.opset_import:
            latest[opset.domain] = max(latest.get(opset.domain, 0), opset.version)
    return [helper.make_opsetid(domain, version) for domain, version in latest.items()]
