"""The four files of an ONNX export, opened with onnxruntime: NumPy arrays in, NumPy arrays out.

The layout is that of onnx-community's Florence-2 checkpoints, which transformers.js reads as well.

Letters: I images, B questions, R rows being decoded, N visual tokens, L prompt tokens, S = N + L, T answer tokens,
V vocabulary, H heads, D head width, d width of the model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_florence.edge.rules import Floats, Ints
from open_florence.errors import OpenFlorenceError
from open_florence.model.config import TextConfig

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_LOUD = 3
"""onnxruntime's level for errors: what it warns of (a graph it could not improve) is nothing a user can act on."""


class Part:
    """One ONNX file."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """`threads` is how many work on one step; all cores unless given."""
        self.path, self.threads = path, threads
        self._lock = threading.Lock()
        self._session: Any = None

    @property
    def session(self) -> Any:
        """The opened file. Raises OpenFlorenceError without onnxruntime, and where it cannot open it."""
        with self._lock:
            if self._session is None:
                self._session = self._open()
            return self._session

    def _open(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise OpenFlorenceError("an ONNX export needs onnxruntime: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOUD
        options.intra_op_num_threads = self.threads or 0
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # a waiting thread leaves its core free
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library has a class for each kind of failure, and no common one
            raise OpenFlorenceError(f"onnxruntime cannot open {self.path}: {_first_line(error)}") from error

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The names of its inputs and the type of each."""
        return {given.name: _DTYPES.get(given.type, np.float32) for given in self.session.get_inputs()}

    def __call__(self, wanted: Sequence[str], given: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs called `wanted`; of `given`, what the file has no input for is left out.

        Raises OpenFlorenceError, naming the file, where names or shapes are not those of the layout.
        """
        feed = {name: given[name].astype(kind, copy=False) for name, kind in self.inputs.items() if name in given}
        try:
            return self.session.run(wanted, feed)  # type: ignore[no-any-return]
        except Exception as error:  # as above
            raise OpenFlorenceError(
                f"{self.path} cannot be run as a part of Florence-2: {_first_line(error)}"
            ) from error


@dataclass(frozen=True, slots=True)
class Memory:
    """What the encoder made of images and prompts."""

    hidden: Floats
    """(B, S, d): the image's tokens, then the prompt's."""
    mask: Ints
    """(B, S): 0 where the prompt is padded."""

    def rows(self, rows: Ints) -> Memory:
        """Some of the questions, each as often as it is named; rows (any number,)."""
        return Memory(self.hidden[rows], self.mask[rows])


class Network:
    """A Florence-2 as its four ONNX files."""

    def __init__(self, parts: Iterable[Part], text: TextConfig) -> None:
        """`parts` in the order of `folder.PARTS`."""
        self.vision, self.embedding, self.encoder, self.decoder = parts
        self.text = text

    def open_ahead(self) -> None:
        """Begins to open all files but the first in a thread of its own, so that they are there when the image is."""

        def open_all() -> None:
            with suppress(OpenFlorenceError):  # told when the file is needed, where it is tried again
                for part in (self.embedding, self.encoder, self.decoder):
                    _ = part.session

        threading.Thread(target=open_all, name="open ONNX files", daemon=True).start()

    def encode_image(self, pixels: Floats) -> Floats:
        """Normalised pixels (I, 3, height, width) -> image features (I, N, d)."""
        return self.vision(["image_features"], {"pixel_values": pixels})[0]

    def embed(self, ids: Ints) -> Floats:
        """(B, L) -> (B, L, d)."""
        return self.embedding(["inputs_embeds"], {"input_ids": ids})[0]

    def encode(self, features: Floats, input_ids: Ints, attention_mask: Ints) -> Memory:
        """features (B, N, d); input_ids and attention_mask (B, L) -> the memory of B questions."""
        embedded = np.concatenate([features, self.embed(input_ids)], 1)  # (B, S, d)
        seen = np.ones(features.shape[:2], np.int64)
        mask = np.concatenate([seen, attention_mask], 1)  # (B, S)
        given = {"inputs_embeds": embedded, "attention_mask": mask}
        return Memory(self.encoder(["last_hidden_state"], given)[0], mask)


class Decoding:
    """Answers to the questions of a memory, R rows being written: the decoder and the keys and values it keeps."""

    def __init__(self, network: Network, memory: Memory) -> None:
        self.network, self.memory = network, memory
        text = network.text
        layers = [f"{layer}.{side}" for layer in range(text.decoder_layers) for side in ("decoder", "encoder")]
        names = [f"{layer}.{kind}" for layer in layers for kind in ("key", "value")]
        nothing = np.zeros(
            (len(memory.hidden), text.decoder_heads, 0, text.d_model // text.decoder_heads), np.float32
        )  # (R, H, 0, D)
        self.begun = False
        self._past: dict[str, NDArray[Any]] = dict.fromkeys(names, nothing)  # each (R, H, T, D), or (R, H, S, D)

    def __call__(self, tokens: Ints) -> Floats:
        """The next tokens of every row (R, n) -> logits (R, V) of the token after them."""
        return self.logits(tokens)[:, -1]

    def logits(self, tokens: Ints) -> Floats:
        """The next tokens of every row (R, n) -> logits (R, n, V), after each of them."""
        given: dict[str, NDArray[Any]] = {f"past_key_values.{name}": held for name, held in self._past.items()}
        given["inputs_embeds"] = self.network.embed(tokens)
        given["encoder_hidden_states"], given["encoder_attention_mask"] = self.memory.hidden, self.memory.mask
        given["use_cache_branch"] = np.array([self.begun])
        # what is kept of the memory is made in the first step and stays
        names = [name for name in self._past if not self.begun or ".decoder." in name]
        logits, *held = self.network.decoder(["logits", *(f"present.{name}" for name in names)], given)
        self._past |= dict(zip(names, held, strict=True))
        self.begun = True
        return logits.astype(np.float32, copy=False)

    def select(self, rows: Ints) -> None:
        """Row i becomes what row rows[i] was, its question too; rows (any number,)."""
        self.memory = self.memory.rows(rows)
        self._past = {name: held[rows] for name, held in self._past.items()}

    def reorder(self, rows: Ints) -> None:
        """The same, where rows change places within one question only: what is kept of the memory is left alone."""
        self._past |= {name: held[rows] for name, held in self._past.items() if ".decoder." in name}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
