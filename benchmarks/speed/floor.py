"""The machine's own limits, measured: multiplications a second, and bytes read a second; and the work of a model.

A time below which no program of this precision comes on this machine: every multiplication of the published network
at the highest rate that a matrix product reaches here, every weight of the decoder read once a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import transformers
from checkpoint import config_of, visual_tokens
from pair import DTYPES
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

PROMPT = 10
"""Tokens of a question, with <s> and </s>."""


@dataclass(frozen=True)
class Machine:
    """What it does at best, at the precision and with the threads that were measured."""

    flops: float
    """Floating-point operations a second of a matrix product, an addition and a multiplication being two."""
    bandwidth: float
    """Bytes a second that are read from memory."""


@dataclass(frozen=True)
class Cost:
    """What a shape costs, whoever computes it."""

    vision: float
    """Floating-point operations for an image."""
    encoder: float
    """For a question about it, `PROMPT` tokens long."""
    step: float
    """For one token of one answer, without attention."""
    parameters: int
    """All weights, the output layer's being the embedding table's."""
    weights: int
    """Those that a decoding step reads: the decoder's own and the output layer's."""

    def vision_seconds(self, machine: Machine, images: int = 1) -> float:
        """At the least, for so many images."""
        return images * self.vision / machine.flops

    def encoder_seconds(self, machine: Machine, questions: int = 1) -> float:
        """At the least, for so many questions."""
        return questions * self.encoder / machine.flops

    def step_seconds(self, machine: Machine, dtype: str, rows: int = 1) -> float:
        """At the least, for a token more of so many answers: what takes longer, reading or multiplying."""
        read = self.weights * DTYPES[dtype].itemsize / machine.bandwidth
        return max(read, rows * self.step / machine.flops)


_SEEN: dict[tuple[str, int], Machine] = {}


def measure(dtype: str, threads: int) -> Machine:
    """Takes about two seconds. `threads` are those that PyTorch is set to.

    The best that this process has seen so far: where the machine has other work too, one look may be a bad one.
    """
    best = _SEEN.get((dtype, threads), Machine(0, 0))
    now = Machine(_matrix_rate(DTYPES[dtype]), _read_rate(DTYPES[dtype]))
    _SEEN[dtype, threads] = Machine(max(best.flops, now.flops), max(best.bandwidth, now.bandwidth))
    return _SEEN[dtype, threads]


def _matrix_rate(dtype: torch.dtype) -> float:
    """The best of PyTorch's own product and oneDNN's, over four shapes."""
    best = 0.0
    for rows, inner, columns in ((2304, 512, 2048), (1024, 1024, 4096), (2048, 2048, 2048), (9216, 128, 512)):
        x, weight = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
        best = max([best, *(2 * rows * inner * columns / _shortest(way) for way in _products(x, weight))])
    return best


def _read_rate(dtype: torch.dtype) -> float:
    """The best of a sum and of a product with one row, of 256 MiB, which no cache holds."""
    numbers = torch.ones(2**28 // dtype.itemsize // 2048, 2048, dtype=dtype)
    ways = [numbers.sum, *_products(torch.ones(1, 2048, dtype=dtype), numbers)]
    return max(numbers.nbytes / _shortest(way) for way in ways)


def _products(x: Tensor, weight: Tensor) -> list[Callable[[], Tensor]]:
    """Ways to multiply a weight (m, n) with rows (k, n): PyTorch's own, and oneDNN's with weights laid out for it."""
    ways: list[Callable[[], Tensor]] = [lambda: torch.nn.functional.linear(x, weight)]
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))
    return ways


def _shortest(run: Callable[[], object], times: int = 7) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    took = []
    with torch.inference_mode():
        run()
        for _ in range(times):
            begun = time.perf_counter()
            run()
            took.append(time.perf_counter() - begun)
    return min(took)


@cache
def cost(shape: str) -> Cost:
    """Counted on transformers' network, without computing anything."""
    config = config_of(shape)
    with torch.device("meta"):
        model = transformers.Florence2ForConditionalGeneration(transformers.Florence2Config(**config.to_json("native")))
        model = model.eval()
        with FlopCounterMode(display=False) as vision:
            model.get_image_features(torch.empty(1, 3, config.image_size, config.image_size))
        with FlopCounterMode(display=False) as encoder:
            length = visual_tokens(config) + PROMPT
            model.get_encoder()(inputs_embeds=torch.empty(1, length, config.text.d_model))
    text = config.text
    layer = 6 * text.d_model**2 + 2 * text.d_model * text.decoder_ffn  # of the memory, keys and values are read once
    weights = text.decoder_layers * layer + text.vocab_size * text.d_model
    parameters = sum(one.numel() for one in model.model.parameters())
    return Cost(vision.get_total_flops(), encoder.get_total_flops(), 2.0 * weights, parameters, weights)
