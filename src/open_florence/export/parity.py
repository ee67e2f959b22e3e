"""Written files against the model they were made of: the same image and prompts through ONNX Runtime and PyTorch.

Errors are relative: the largest difference of two arrays over the largest value of the model's. Letters: B prompts, L
prompt tokens, S memory length, T answer tokens, V vocabulary, d width of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from open_florence.export.precision import SUFFIXES
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tasks import TASKS

Array = NDArray[Any]

STEPS = 12
"""Answer tokens that are compared."""

TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "int8": 0.5}
"""The largest relative error a file may have, by dtype; of int8 it only catches what is broken."""

PROMPTS = ("<CAPTION>", "<OD>", "<DETAILED_CAPTION>", "<OCR>")
"""Tasks asked of the image, their prompts of different lengths so that some are padded."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the files of one dtype are from the model: relative errors, and how many tokens are the same."""

    dtype: str
    image_features: float
    encoder_states: float
    logits: float
    """Of every step of `STEPS` greedy ones, the cache of each being what the files gave at the step before."""
    same_tokens: int
    """How often both found the same token likeliest, the model's own answers being continued."""
    tokens: int

    @property
    def error(self) -> float:
        """The largest of the three."""
        return max(self.image_features, self.encoder_states, self.logits)

    @property
    def tolerance(self) -> float:
        """The largest error allowed."""
        return TOLERANCES[self.dtype]

    @property
    def good(self) -> bool:
        """Whether the files may be used; an error that is no number is none that is allowed."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.dtype}: image features {self.image_features:.1e}, encoder states {self.encoder_states:.1e}, "
            f"logits {self.logits:.1e} off (relative, {self.tolerance:g} allowed); "
            f"{self.same_tokens} of {self.tokens} tokens the same"
        )


def compare(model: Florence, processor: Processor, folder: Path, dtype: str) -> Parity:
    """Runs the files of one dtype in `folder` / "onnx" beside the model, float32 on the CPU."""
    pixels, ids, mask = questions(processor)
    wanted = answers(model, pixels, ids, mask)
    return judge(dtype, _Files(folder, dtype).answers(pixels, ids, mask, wanted.tokens), wanted)


def questions(processor: Processor) -> tuple[Array, Array, Array]:
    """What is asked of both: pixels (1, 3, size, size), ids and mask (B, L)."""
    return (
        processor.pixels([drawn(processor.image_size)]),
        *processor.prompts([TASKS[name].prompt for name in PROMPTS]),
    )


def judge(dtype: str, found: Answers, wanted: Answers) -> Parity:
    """How far what the files of one dtype answered is from what the model did."""
    return Parity(
        dtype,
        relative_error(found.features, wanted.features),
        relative_error(found.states, wanted.states),
        max(relative_error(some, other) for some, other in zip(found.logits, wanted.logits, strict=True)),
        int((found.tokens == wanted.tokens).sum()),
        wanted.tokens.size,
    )


def relative_error(found: Array, wanted: Array) -> float:
    """The largest difference over the largest value wanted; NaN where there is one."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def drawn(size: int) -> Image.Image:
    """A picture with something in every part of it, `size` pixels a side: a slope of colours, discs and letters."""
    slope = np.linspace(0, 255, size, dtype=np.uint8)  # (size,)
    levels = np.stack(np.broadcast_arrays(slope[None], slope[:, None], slope[::-1, None]), axis=-1)
    image = Image.fromarray(np.ascontiguousarray(levels))
    draw = ImageDraw.Draw(image)
    for index, colour in enumerate(("red", "green", "blue", "white", "black")):
        x, y, radius = size * (2 * index + 1) / 10, size * (0.3 + 0.4 * (index % 2)), size / 12
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    draw.text((size / 3, size / 2), "open florence", fill="white")
    return image


@dataclass(frozen=True, slots=True)
class Answers:
    """What a question led to, step by step."""

    features: Array
    """(1, 1 + N, d)."""
    states: Array
    """(B, S, d)."""
    logits: list[Array]
    """(B, 1, V) each."""
    tokens: Array
    """(B, T): the likeliest after each step."""


def answers(model: Any, pixels: Array, ids: Array, mask: Array, said: Array | None = None) -> Answers:
    """The greedy answers of a `Florence`, or what has its methods, of `STEPS` tokens, without a constraint.

    With `said` (B, T) each step is given these tokens, whatever its own would be.
    """
    cache, logits = model.new_cache(), []
    with torch.inference_mode():
        features = model.encode_image(torch.from_numpy(pixels))
        shared = features.expand(len(ids), -1, -1)
        memory = model.encode(shared, torch.from_numpy(ids), torch.from_numpy(mask))
        given = torch.full((len(ids), 1), model.config.text.decoder_start)
        for step in range(STEPS):
            logits.append(model.decode(given, memory, cache))  # (B, 1, V)
            given = logits[-1].argmax(-1) if said is None else torch.from_numpy(said[:, step : step + 1])
    arrays = [step.numpy() for step in logits]
    tokens = np.concatenate([step.argmax(-1) for step in arrays], axis=1)
    return Answers(features.numpy(), memory.hidden.numpy(), arrays, tokens)


class _Files:
    """The files of one dtype, run as transformers.js runs them."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, dtype

    def answers(self, pixels: Array, ids: Array, mask: Array, said: Array) -> Answers:
        """What the files make of the same; they are given the model's tokens, `said` (B, T), whatever theirs are."""
        (features,) = self._session("vision_encoder").run(None, {"pixel_values": pixels})
        embed = self._session("embed_tokens")
        (prompt,) = embed.run(None, {"input_ids": ids})
        seen = np.concatenate([features.repeat(len(ids), axis=0), prompt], axis=1)  # (B, S, d)
        mask = np.concatenate([np.ones((len(ids), features.shape[1]), np.int64), mask], axis=1)
        (states,) = self._session("encoder_model").run(None, {"inputs_embeds": seen, "attention_mask": mask})
        start = np.full((len(ids), 1), self._start(), np.int64)
        decoder = self._session("decoder_model_merged")
        memory = {"encoder_attention_mask": mask, "encoder_hidden_states": states}
        kept = _nothing_kept(decoder, len(ids))
        logits = []
        for step, token in enumerate(np.split(np.concatenate([start, said[:, :-1]], axis=1), said.shape[1], axis=1)):
            (embedded,) = embed.run(None, {"input_ids": token})
            given = memory | {"inputs_embeds": embedded, "use_cache_branch": np.array([step > 0])} | kept
            outputs = dict(zip((out.name for out in decoder.get_outputs()), decoder.run(None, given), strict=True))
            logits.append(outputs.pop("logits"))
            for name, value in outputs.items():
                if step == 0 or ".decoder." in name:  # what was kept of the memory stays
                    kept[name.replace("present", "past_key_values")] = value
        return Answers(features, states, logits, np.concatenate([step.argmax(-1) for step in logits], axis=1))

    def _start(self) -> int:
        from open_florence.model.checkpoint import read_config

        return read_config(self.folder).text.decoder_start

    def _session(self, name: str) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = self.folder / "onnx" / f"{name}{SUFFIXES[self.dtype]}.onnx"
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _nothing_kept(decoder: Any, rows: int) -> dict[str, Array]:
    """Keys and values (B, H, 0, D) of every layer: what the first step is given."""
    shapes = {put.name: put.shape for put in decoder.get_inputs() if put.name.startswith("past_key_values")}
    return {name: np.zeros((rows, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}
