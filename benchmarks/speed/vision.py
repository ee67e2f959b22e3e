"""The image tower and the projector: from pixels to visual tokens, against transformers.

    python benchmarks/speed/vision.py [--shape base|large|toy] [--dtype both|fp32|bf16] [--batch 1]

Resizing the image is not counted here; `caption.py` counts it.
"""

from pathlib import Path

import typer
from floor import cost, measure
from pair import DTYPES, Pair, dtypes
from timing import Aim, Report, in_turns

AIMS = {"fp32": Aim(2.0, 2.5), "bf16": Aim(1.35, 1.8)}


def compare(pair: Pair, report: Report, batch: int, runs: int) -> None:
    """One line of the table."""
    pixels = pair.pixels(batch).to(DTYPES[pair.dtype])
    programs = {
        "ours": lambda: pair.ours.model.encode_image(pixels),
        "theirs": lambda: pair.theirs.model.get_image_features(pixels),
    }
    times = in_turns(programs, runs)
    floor = cost(report.shape).vision_seconds(measure(pair.dtype, report.threads), batch)
    aim = AIMS[pair.dtype] if batch == 1 else None
    report.add(f"vision, {batch} at a time", pair.dtype, times["ours"], times["theirs"], aim, floor)


def main(
    shape: str = "base",
    dtype: str = "both",
    batch: int = 1,
    runs: int = 5,
    threads: int = 1,
    backend: str = "torch",
    work: Path | None = None,
    out: Path | None = None,
) -> None:
    """`batch` images at a time; `work` is a folder for the checkpoint, `out` a file that lines of JSON are added to."""
    report = Report("vision", shape, threads, out, backend)
    for kind in dtypes(dtype):
        compare(Pair.load(shape, kind, work, backend), report, batch, runs)


if __name__ == "__main__":
    typer.run(main)
