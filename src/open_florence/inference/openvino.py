"""The model on OpenVINO: what `Predictor` and `generate` use of a `Florence`, answered by compiled graphs.

Tensors in and out are PyTorch's, on the CPU and in float32 whatever the graphs compute in. The graphs are those of
`openvino_graphs`, made of a checkpoint when it is loaded, or read from a folder that `open-florence export` wrote.
Letters as there.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from open_florence.errors import OpenFlorenceError
from open_florence.inference.openvino_graphs import (
    GRAPHS,
    compress,
    convert,
    keep_memory_in_bfloat16,
    need_openvino,
)
from open_florence.inference.pretrained import WEIGHTS, load_model
from open_florence.model.checkpoint import CheckpointError, read_config
from open_florence.model.config import FlorenceConfig
from open_florence.model.florence import Memory
from open_florence.processor import Processor

FOLDER = "openvino"
"""Where the graphs stand inside an exported folder."""

SUFFIXES = {"float32": "", "float16": "_fp16", "int8": "_int8"}
"""What follows a graph's name in that of its file, by the number format of the weights in it."""

DTYPES = ("auto", "float32", "bfloat16", "int8")
"""What can be asked for: the format that is computed in, auto the fastest here; int8 is that of the weights alone."""


BACKENDS = ("torch", "openvino")
"""Engines that a checkpoint can be computed with."""


class OpenVinoFlorence:
    """A compiled model; the methods are those of `Florence`, and so are the numbers."""

    def __init__(self, config: FlorenceConfig, graphs: Mapping[str, Any], bfloat16: bool = False) -> None:
        """`graphs` as `openvino_graphs.convert` makes them. Computes in bfloat16 on request, with as many threads as
        PyTorch has at this moment."""
        openvino = need_openvino()
        self.config = config
        self.device = torch.device("cpu")
        kind = openvino.Type.bf16 if bfloat16 else openvino.Type.f32
        settings = {
            "INFERENCE_PRECISION_HINT": kind,
            "KV_CACHE_PRECISION": kind,  # 8 bits unless said otherwise
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # 8-bit weights do not make 8-bit activations
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # other processes may want the same core
        }
        graphs = keep_memory_in_bfloat16(graphs) if bfloat16 else graphs
        core = openvino.Core()
        self._graphs = {name: _Graph(core.compile_model(graphs[name], "CPU", settings)) for name in GRAPHS}
        self._some_rows: dict[range, Tensor] = {}

    def eval(self) -> OpenVinoFlorence:
        """Itself: it can do nothing else than infer."""
        return self

    def new_cache(self) -> OpenVinoCache:
        """An empty cache for `decode`, to be used by one request."""
        return OpenVinoCache(self._graphs["memory"], self._graphs["decoder"])

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels (I, 3, side, side) -> image features (I, 1 + N, d), an image at a time."""
        images = [pixel_values[number : number + 1].float() for number in range(len(pixel_values))]
        return torch.cat([self._graphs["vision"](pixels=image) for image in images])

    def encode(self, image_features: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Memory:
        """image_features (B, 1 + N, d); input_ids (B, L) long; attention_mask (B, L), 0 where padded -> Memory."""
        seen = attention_mask.new_ones(image_features.shape[:2], dtype=torch.bool)
        mask = torch.cat([seen, attention_mask.bool()], dim=1)  # (B, S)
        return Memory(self._graphs["encoder"](features=image_features, ids=input_ids, mask=mask), mask)

    def decode(self, ids: Tensor, memory: Memory, cache: OpenVinoCache | None = None) -> Tensor:
        """Answer tokens ids (R, T) long -> logits (R, T, V) of the token after each. As `Florence.decode`."""
        return self.logits(self.hidden(ids, memory, cache))

    def hidden(self, ids: Tensor, memory: Memory, cache: OpenVinoCache | None = None) -> Tensor:
        """The decoder's states (R, T, d), of which `logits` makes those of `decode`."""
        cache = cache or self.new_cache()
        end, limit = cache.length + ids.shape[1], self.config.text.max_positions
        if end > limit:
            raise ValueError(f"a sequence of {end} tokens does not fit this model's {limit} positions")
        return cache.step(ids, memory)

    def logits(self, hidden: Tensor, among: range | None = None) -> Tensor:
        """States (..., d) -> logits (..., V), or (..., len(among)) of the ids `among` alone."""
        if among is not None:
            return F.linear(hidden, self._rows_of_head(among))
        return self._graphs["head"](states=hidden.reshape(-1, 1, hidden.shape[-1])).view(*hidden.shape[:-1], -1)

    def _rows_of_head(self, among: range) -> Tensor:
        """(len(among), d): the output layer's weights for some ids, read off its answers to the unit vectors."""
        if among not in self._some_rows:
            every = self.logits(torch.eye(self.config.text.d_model))  # (d, V)
            self._some_rows[among] = every[:, among.start : among.stop].T.contiguous()
        return self._some_rows[among]


class OpenVinoCache:
    """One request's own part of the decoder: what it has said so far, and the keys and values of what it is about.

    Infer requests hold both. They are taken from the graphs' stock at the first step and go back when the cache is
    thrown away.
    """

    def __init__(self, memory: _Graph, decoder: _Graph) -> None:
        self.length = 0
        """Positions held so far: the position of the next token."""
        self._graphs = memory, decoder
        self._request: Any = None
        self._mask: Tensor | None = None  # the request reads it where it is
        self._rows: Tensor | None = None

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was; rows (R,) long. It happens within the next step."""
        self._rows = rows if self._rows is None else self._rows[rows]

    def step(self, ids: Tensor, memory: Memory) -> Tensor:
        """Reads tokens (R, T), which continue those before -> the decoder's states (R, T, d)."""
        if self._request is None:
            self._begin(memory)
        rows = torch.arange(len(ids)) if self._rows is None else self._rows
        said = self._request.infer({"ids": _array(ids), "rows": _array(rows.int())}, share_inputs=True)
        self._rows = None
        self.length += ids.shape[1]
        return torch.from_numpy(said["states"])

    def _begin(self, memory: Memory) -> None:
        openvino = need_openvino()
        (reading, read), (saying, said) = ((graph, graph.take()) for graph in self._graphs)
        weakref.finalize(self, reading.give, read)
        weakref.finalize(self, saying.give, said)
        read.infer({"hidden": _array(memory.hidden)}, share_inputs=True, share_outputs=True)
        said.reset_state()
        for port in reading.compiled.outputs:
            said.set_tensor(port.any_name, read.get_tensor(port))  # both requests use the same memory
        self._mask, self._request = memory.mask, said
        said.set_tensor("mask", openvino.Tensor(_array(memory.mask), shared_memory=True))


class _Graph:
    """A compiled graph, and its infer requests that nobody is using: each serves one caller at a time."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._idle: list[Any] = []

    def take(self) -> Any:
        """A request for the caller alone."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.compiled.create_infer_request()

    def give(self, request: Any) -> None:
        """Takes a request back."""
        self._idle.append(request)

    def __call__(self, **given: Tensor) -> Tensor:
        """The graph's first output for inputs by name."""
        request = self.take()
        try:
            found = request.infer({name: _array(tensor) for name, tensor in given.items()}, share_inputs=True)
            return torch.from_numpy(found[0])
        finally:
            self.give(request)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds OpenVINO graphs, and no weights that PyTorch would read."""
    folder = Path(folder).expanduser()
    return bool(_formats(folder)) and not any(any(folder.glob(kind)) for kinds in WEIGHTS for kind in kinds)


def choose_backend(name_or_folder: str | Path, backend: str | None = None) -> str:
    """The backend asked for; if none is, that which the folder is made for. Raises OpenFlorenceError for another."""
    if backend is None:
        return "openvino" if is_export(name_or_folder) else "torch"
    if backend not in BACKENDS:
        raise OpenFlorenceError(f"a backend is one of {', '.join(BACKENDS)}, not {backend!r}")
    return backend


def load_openvino(
    folder: Path, dtype: torch.dtype | str | None = None, device: torch.device | str | None = None
) -> tuple[OpenVinoFlorence, Processor]:
    """A checkpoint, which is converted first, or an exported folder -> a compiled model and its processor.

    `dtype` is one of `DTYPES`, float32 unless given. The weights are those of the widest format that the folder has;
    for int8 they are compressed where it has none in int8. Raises OpenFlorenceError where OpenVINO is not installed,
    for another device than the CPU, bfloat16 on a processor without it, and what `load_model` refuses.
    """
    kind = check_request(dtype, device)
    graphs: dict[str, Any]
    if not (folder / FOLDER).is_dir():
        model, processor = load_model(folder)
        config, graphs = model.config, convert(model, processor.image_size)
        found = "float32"
    else:
        found = _weights_for(folder, kind)
        config, processor, graphs = *_settings(folder), read_graphs(folder, found)
    if kind == "int8" and found != "int8":
        graphs = compress(graphs)
    return OpenVinoFlorence(config, graphs, kind == "bfloat16"), processor


def check_request(dtype: torch.dtype | str | None, device: torch.device | str | None) -> str:
    """The name of the dtype, never auto.

    Raises OpenFlorenceError for what OpenVINO cannot give here, or where it is not installed.
    """
    openvino = need_openvino()
    kind = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if kind not in DTYPES:
        raise OpenFlorenceError(f"with OpenVINO the dtype is one of {', '.join(DTYPES)}, not {dtype}")
    if device is not None and str(device) != "cpu":
        raise OpenFlorenceError(f"the OpenVINO backend runs on the CPU, not on {device}")
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if kind == "bfloat16" and not able:
        raise OpenFlorenceError("this processor does not compute in bfloat16: ask for float32")
    return ("bfloat16" if able else "float32") if kind == "auto" else kind


def read_graphs(folder: Path, weights: str) -> dict[str, Any]:
    """The graphs of an exported folder whose weights are of that format. Raises OpenFlorenceError naming the file."""
    core, graphs = need_openvino().Core(), {}
    for name in GRAPHS:
        path = folder / FOLDER / f"{name}{SUFFIXES[weights]}.xml"
        try:
            graphs[name] = core.read_model(path)
        except RuntimeError as error:
            raise OpenFlorenceError(f"{path} or its .bin is missing, damaged, or of another OpenVINO") from error
    return graphs


def _weights_for(folder: Path, kind: str) -> str:
    """The format among those in a folder that serves a dtype best. Raises OpenFlorenceError where there is none."""
    there = _formats(folder)
    if not there:
        raise OpenFlorenceError(f"{folder / FOLDER} holds no OpenVINO model")
    return "int8" if kind == "int8" and "int8" in there else there[0]


def _formats(folder: Path) -> list[str]:
    """The number formats of the weights that a folder has graphs with."""
    return [weights for weights, suffix in SUFFIXES.items() if (folder / FOLDER / f"vision{suffix}.xml").is_file()]


def _settings(folder: Path) -> tuple[FlorenceConfig, Processor]:
    try:
        config = read_config(folder)
    except CheckpointError as error:
        raise OpenFlorenceError(str(error)) from error
    processor = Processor.from_folder(folder)
    return replace(config, image_size=processor.image_size), processor
