"""One more token: greedy, with three beams, and for four images at once, against transformers.

    python benchmarks/speed/decode_step.py [--shape base|large|toy] [--dtype both|fp32|bf16] [--runs 7]

Both sides are given what their encoder made and write answers of two lengths; the difference, divided by the tokens
between, is a step: the network, the rules about what may be said, the choice, the beams' new order.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from floor import cost, measure
from pair import EIGHT, Pair, dtypes, tokens
from peer import BEAMS, GREEDY, exactly
from timing import Aim, Report, in_turns
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from open_florence.generation import Generation
from open_florence.inference.generate import generate

SHORT, LONG = 4, 28
"""Tokens of the answers."""


@dataclass(frozen=True)
class Way:
    """How is decoded, and how much faster it is to be."""

    name: str
    images: int
    ours: dict[str, Any]
    theirs: dict[str, Any]
    aims: dict[str, Aim]

    @property
    def rows(self) -> int:
        """Answers that are being written."""
        return self.images * int(self.theirs["num_beams"])


PUBLISHED = {"num_beams": 3, "no_repeat_ngram_size": 3}
WAYS = [
    Way("step, greedy", 1, {}, GREEDY, {"fp32": Aim(2.3, 2.7), "bf16": Aim(3.0, 4.0)}),
    Way("step, 3 beams", 1, PUBLISHED, BEAMS, {"fp32": Aim(3.3, 5.0), "bf16": Aim(3.2, 5.0)}),
    Way("step, 4 images, greedy", 4, {}, GREEDY, {}),
]


def compare(pair: Pair, report: Report, way: Way, runs: int) -> None:
    """One line of the table."""
    with torch.inference_mode():
        # One image serves: what it shows changes no time.
        features = pair.ours.model.encode_image(pair.pixels(1)).expand(way.images, -1, -1)
        memory = pair.memory(features, EIGHT[:1] * way.images)
    seen = memory.mask.long()
    model, vocabulary = pair.ours.model, len(pair.ours.processor.tokenizer)

    def ours(count: int) -> Generation:
        return generate(model, memory, tokens(count, vocabulary=vocabulary, **way.ours))

    def theirs(count: int) -> Tensor:
        encoded = BaseModelOutput(memory.hidden)  # `generate` writes into it
        return pair.theirs.model.generate(encoder_outputs=encoded, attention_mask=seen, **way.theirs, **exactly(count))

    if len(ours(LONG).ids[0]) != LONG or theirs(LONG).shape[1] != 1 + LONG:  # 1: the start token
        raise ValueError("an answer is not as long as it was to be")
    programs = {
        "ours, short": lambda: ours(SHORT),
        "theirs, short": lambda: theirs(SHORT),
        "ours, long": lambda: ours(LONG),
        "theirs, long": lambda: theirs(LONG),
    }
    times = in_turns(programs, runs)
    steps = [times[f"{side}, long"].per(LONG - SHORT, less=times[f"{side}, short"]) for side in ("ours", "theirs")]
    floor = cost(report.shape).step_seconds(measure(pair.dtype, report.threads), pair.dtype, way.rows)
    report.add(way.name, pair.dtype, *steps, way.aims.get(pair.dtype), floor)


def main(
    shape: str = "base",
    dtype: str = "both",
    runs: int = 7,
    threads: int = 1,
    backend: str = "torch",
    work: Path | None = None,
    out: Path | None = None,
) -> None:
    """`work` is a folder for the checkpoint, `out` a file that lines of JSON are added to."""
    report = Report("decode_step", shape, threads, out, backend)
    for kind in dtypes(dtype):
        pair = Pair.load(shape, kind, work, backend)
        for way in WAYS:
            compare(pair, report, way, runs)


if __name__ == "__main__":
    typer.run(main)
