"""The model as OpenVINO graphs, traced from the PyTorch modules: five parts, each a function of arrays.

| graph | given | gives |
|---|---|---|
| vision | pixels (1, 3, side, side) | image features (1, 1 + N, d) |
| encoder | features (B, 1 + N, d), ids (B, L), mask (B, S) | hidden (B, S, d) |
| memory | hidden (B, S, d) | per decoder layer, keys (B, H, D, S) and values (B, H, S, D) |
| decoder | ids (R, T), rows (R,), mask (B, S), what `memory` gave | states (R, T, d) |
| head | states (R, T, d) | logits (R, T, V) |

The decoder is stateful: the keys and values of what was said stay in the infer request that said it. At each call row i
first becomes what row rows[i] was, so beams change places without a call of their own, and B rows can become B x K.
Batches and lengths are free, except that the tower takes one image of the processor's size: with its shapes fixed it
is faster, and larger batches gain nothing on a CPU. Letters as in `model.florence`; H heads, D head width, P tokens
said before.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from open_florence.errors import OpenFlorenceError
from open_florence.model.bart import POSITION_OFFSET, CrossAttention, PositionedEmbedding, SelfAttention
from open_florence.model.davit import Block, ChannelAttention, WindowAttention
from open_florence.model.florence import Florence

GRAPHS = ("vision", "encoder", "memory", "decoder", "head")
MISSING = "the OpenVINO backend needs the extra `openvino`: pip install 'open-florence[openvino]'"


def convert(model: Florence, image_size: int) -> dict[str, Any]:
    """The five graphs, `openvino.Model`s by name, of a model in float32 on the CPU; `image_size` in pixels a side.

    They are traced: the tower runs once. Raises OpenFlorenceError where OpenVINO is not installed.
    """
    text = model.config.text
    heads, layers, width = text.decoder_heads, text.decoder_layers, text.d_model
    given = ["keys", "values"]
    crosses = [f"{kind}.{layer}" for layer in range(layers) for kind in given]
    pixels = torch.zeros(1, 3, image_size, image_size)
    visual, length = 4, 3  # any numbers: the graphs take all
    ids, mask = torch.full((2, length), text.pad), torch.ones(2, visual + length, dtype=torch.bool)
    hidden = torch.zeros(2, visual + length, width)
    value = torch.zeros(2, heads, visual + length, width // heads)
    cross = [value.transpose(2, 3), value] * layers
    own = [torch.zeros(4, heads, 5, width // heads) for _ in crosses]
    said = torch.full((4, 2), text.pad)
    decoder = _traced(
        _Decoder(model),
        (said, mask, *cross, *own),
        ["ids", "mask", *crosses, *(f"own_{name}" for name in crosses)],
        ["states", *(f"said_{name}" for name in crosses)],
    )
    vision = _traced(_Vision(model), (pixels,), ["pixels"], ["features"])
    vision.reshape([1, 3, image_size, image_size])
    return {
        "vision": vision,
        "encoder": _traced(_Encoder(model), (hidden[:, :visual], ids, mask), ["features", "ids", "mask"], ["hidden"]),
        "memory": _traced(_Memory(model), (hidden,), ["hidden"], crosses),
        "decoder": _stateful(decoder, {f"own_{name}": f"said_{name}" for name in crosses}, heads, width // heads),
        "head": _traced(_Head(model), (hidden,), ["states"], ["logits"]),
    }


class _Vision(nn.Module):
    """The tower, an image as one row of tokens (I, N, C) wherever it can be: of four axes OpenVINO would choose the
    order in memory anew at every operation, and spend a quarter of the time on changing it."""

    def __init__(self, model: Florence) -> None:
        super().__init__()
        self.tower: Any = model.vision_tower
        self.projector = model.projector

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[2:]
        x = pixels
        for number, (conv, pairs) in enumerate(zip(self.tower.convs, self.tower.blocks, strict=True)):
            if number:
                x = _as_map(conv.norm(x) if conv.prenorm else x, height, width)
            x = conv.conv(x)  # (I, C, H, W)
            height, width = x.shape[2:]
            x = x.flatten(2).transpose(1, 2)  # (I, N, C)
            x = x if conv.prenorm else conv.norm(x)
            for pair in pairs:
                x = _block(pair.spatial_block, x, height, width)
                x = _block(pair.channel_block, x, height, width)
        return self.projector(_as_map(x, height, width))  # type: ignore[no-any-return]


def _block(block: Block, x: Tensor, height: int, width: int) -> Tensor:
    read = _windows if isinstance(block.attn, WindowAttention) else _channels
    x = x + block.conv1(_as_map(x, height, width)).flatten(2).transpose(1, 2)
    x = x + read(block.attn, block.norm1(x), height, width)  # type: ignore[arg-type]
    x = x + block.conv2(_as_map(x, height, width)).flatten(2).transpose(1, 2)
    return x + _feed(block.ffn, block.norm2(x))


def _windows(attention: WindowAttention, x: Tensor, height: int, width: int) -> Tensor:
    """(I, N, C) -> the same shape, as `model.davit.WindowAttention`."""
    side, channels = attention.window, x.shape[2]
    bottom, right = -height % side, -width % side
    x = x.reshape(-1, height, width, channels)
    if bottom or right:
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
    rows, columns = (height + bottom) // side, (width + right) // side
    x = x.reshape(-1, rows, side, columns, side, channels).transpose(2, 3).reshape(-1, side * side, channels)
    query, key, value = (_heads(part, attention.heads) for part in attention.qkv(x).chunk(3, dim=-1))
    x = attention.proj(_merged(F.scaled_dot_product_attention(query, key, value)))
    x = x.reshape(-1, rows, columns, side, side, channels).transpose(2, 3)
    x = x.reshape(-1, height + bottom, width + right, channels)
    return x[:, :height, :width].reshape(-1, height * width, channels)


def _channels(attention: ChannelAttention, x: Tensor, height: int, width: int) -> Tensor:
    """(I, N, C) -> the same shape, as `model.davit.ChannelAttention`."""
    query, key, value = (_heads(part, attention.groups) for part in attention.qkv(x).chunk(3, dim=-1))
    weights = ((query * (height * width) ** -0.5).transpose(2, 3) @ key).softmax(-1)  # (I, G, D, D)
    return attention.proj(_merged(value @ weights.transpose(2, 3)))  # type: ignore[no-any-return]


def _as_map(x: Tensor, height: int, width: int) -> Tensor:
    """(I, N, C) -> (I, C, H, W)."""
    return x.reshape(-1, height, width, x.shape[2]).permute(0, 3, 1, 2)


def _feed(layer: Any, x: Tensor) -> Tensor:
    return layer.fc2(F.gelu(layer.fc1(x)))  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    """The embedding of the prompt, and the encoder's layers."""

    def __init__(self, model: Florence) -> None:
        super().__init__()
        self.shared: Any = model.language_model.shared
        self.encoder: Any = model.language_model.encoder

    def forward(self, features: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        x = torch.cat([features, self.shared(ids)], dim=1)  # (B, S, d)
        x = _positioned(self.encoder.embedding, x, torch.arange(x.shape[1]))
        for layer in self.encoder.layers:
            attention = layer.self_attn
            query, key, value = (_heads(part, attention.heads) for part in attention.qkv(x).chunk(3, dim=-1))
            seen = F.scaled_dot_product_attention(query, key, value, mask[:, None, None])
            x = layer.self_attn_layer_norm(x + attention.out(_merged(seen)))
            x = layer.final_layer_norm(x + _feed(layer.ffn, x))
        return x


class _Memory(nn.Module):
    """What the decoder's layers read of the encoder's answer, made once a question: keys lie as they are multiplied."""

    def __init__(self, model: Florence) -> None:
        super().__init__()
        layers: Any = model.language_model.decoder.layers
        self.layers = nn.ModuleList(layer.cross_attn for layer in layers)

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        made: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, CrossAttention)
            key, value = (_heads(part, layer.heads) for part in layer.kv(hidden).chunk(2, dim=-1))
            made += [key.transpose(2, 3), value]
        return tuple(made)


class _Decoder(nn.Module):
    """The embedding of what was said, and the decoder's layers, keys and values given and returned."""

    def __init__(self, model: Florence) -> None:
        super().__init__()
        self.shared: Any = model.language_model.shared
        self.decoder: Any = model.language_model.decoder

    def forward(self, ids: Tensor, mask: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """ids (R, T), mask (B, S), `given` each layer's keys and values of the memory, then its own (R, H, P, D)
        -> states (R, T, d) and its own (R, H, P + T, D)."""
        cross, own = given[: len(given) // 2], given[len(given) // 2 :]
        past, length = own[0].shape[2], ids.shape[1]
        positions = torch.arange(length) + past  # (T,)
        x = _positioned(self.decoder.embedding, self.shared(ids), positions)
        causal = (torch.arange(past + length) <= positions[:, None])[None, None]  # (1, 1, T, P + T)
        said: list[Tensor] = []
        for index, layer in enumerate(self.decoder.layers):
            pair = slice(2 * index, 2 * index + 2)
            seen, grown = _reading_itself(layer.self_attn, x, own[pair], causal)
            said += grown
            x = layer.self_attn_layer_norm(x + seen)
            x = layer.cross_attn_layer_norm(x + _reading_memory(layer.cross_attn, x, cross[pair], mask))
            x = layer.final_layer_norm(x + _feed(layer.ffn, x))
        return x, *said


class _Head(nn.Module):
    def __init__(self, model: Florence) -> None:
        super().__init__()
        language = model.language_model
        self.weight = (language.shared if language.lm_head is None else language.lm_head).weight

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(states, self.weight)


def _reading_itself(
    attention: SelfAttention, x: Tensor, own: Sequence[Tensor], causal: Tensor
) -> tuple[Tensor, list[Tensor]]:
    query, key, value = (_heads(part, attention.heads) for part in attention.qkv(x).chunk(3, dim=-1))
    key, value = torch.cat([own[0], key], dim=2), torch.cat([own[1], value], dim=2)
    return attention.out(_merged(F.scaled_dot_product_attention(query, key, value, causal))), [key, value]


def _reading_memory(attention: CrossAttention, x: Tensor, cross: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The R / B rows that share a memory row stand behind one another in the query, as in `model.bart`."""
    rows, length, width = x.shape
    key, value = cross
    query = attention.q(x).reshape(key.shape[0], -1, attention.heads, width // attention.heads).transpose(1, 2)
    scores = (query * (width // attention.heads) ** -0.5) @ key  # (B, H, R / B * T, S)
    seen = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1) @ value
    return attention.out(_merged(seen).reshape(rows, length, width))  # type: ignore[no-any-return]


def _positioned(embedding: PositionedEmbedding, x: Tensor, positions: Tensor) -> Tensor:
    return embedding.layernorm_embedding(x + embedding.embed_positions(positions + POSITION_OFFSET))  # type: ignore[no-any-return]


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, d) -> (B, H, L, D)."""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, d)."""
    return x.transpose(1, 2).flatten(2)


def _traced(module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> Any:
    """A graph with names for its ports. The front end is called by itself: `openvino.convert_model`, around it, takes
    several times as long and reports each use to its makers."""
    need_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    front = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about numbers that are constant indeed
        traced = torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced)  # has to outlive the conversion
        graph = front.convert(front.load(decoder))
    for ports, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    return graph


def _stateful(graph: Any, kept: dict[str, str], heads: int, width: int) -> Any:
    """The decoder with its own keys and values inside: outputs `kept[name]` of one call are inputs `name` of the next.

    Between them the rows are taken in the order `rows` says, a form that the CPU plug-in knows and does without a copy.
    """
    import openvino
    from openvino import opset13 as ops

    rows = ops.parameter([-1], openvino.Type.i32, name="rows")
    rows.output(0).get_tensor().set_names({"rows"})
    graph.add_parameters([rows])
    for name in kept:
        parameter = graph.input(name)
        parameter.get_node().set_partial_shape(openvino.PartialShape([-1, heads, -1, width]))
        readers = parameter.get_target_inputs()
        ordered = ops.gather(parameter, rows, 0)
        for reader in readers:
            reader.replace_source_output(ordered.output(0))
    graph.validate_nodes_and_infer_types()
    passes = openvino.passes.Manager()
    passes.register_pass(openvino.passes.MakeStateful(kept))
    passes.run_passes(graph)
    shape = ops.concat([ops.shape_of(rows), ops.constant(np.array([heads, 0, width]))], 0)
    empty = ops.broadcast(ops.constant(np.float32(0)), shape)  # (R, H, 0, D): before anything is said
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([empty])
    graph.validate_nodes_and_infer_types()
    return graph


def need_openvino() -> Any:
    """The module. Raises OpenFlorenceError where it is not installed."""
    try:
        import openvino
        import openvino.passes
    except ImportError as error:
        raise OpenFlorenceError(MISSING) from error
    return openvino


def compress(graphs: dict[str, Any]) -> dict[str, Any]:
    """Copies of the graphs with matrices, filters and tables in 8 bits, a scale and a zero point for each row of them.

    Raises OpenFlorenceError where NNCF is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # or it reports each use to its makers
    try:
        import nncf
    except ImportError as error:
        raise OpenFlorenceError(MISSING) from error
    nncf.set_log_level(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # it draws a bar for every graph
        warnings.simplefilter("ignore")
        return {name: nncf.compress_weights(graph.clone()) for name, graph in graphs.items()}


def keep_memory_in_bfloat16(graphs: Mapping[str, Any]) -> dict[str, Any]:
    """The graphs for a processor that computes in bfloat16: what `memory` gives and `decoder` reads is kept in it.

    As float32 it would be converted anew for every token.
    """
    openvino = need_openvino()
    from openvino.preprocess import PrePostProcessor

    memory, decoder = (PrePostProcessor(graphs[name].clone()) for name in ("memory", "decoder"))
    for port in graphs["memory"].outputs:
        memory.output(port.any_name).tensor().set_element_type(openvino.Type.bf16)
        decoder.input(port.any_name).tensor().set_element_type(openvino.Type.bf16)
    return {**graphs, "memory": memory.build(), "decoder": decoder.build()}
