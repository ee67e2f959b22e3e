"""One caption of 24 tokens, from a file to an annotation, against transformers.

    python benchmarks/speed/caption.py [--shape base|large|toy] [--dtype both|fp32|bf16] [--runs 3]

Loading the model is not counted; `../cold_start.py` counts it.
"""

from pathlib import Path

import typer
from floor import cost, measure
from pair import Pair, dtypes, photo_files, tokens
from peer import exactly
from timing import Aim, Report, in_turns

LENGTH = 24
AIMS = {"fp32": Aim(2.0, 2.5), "bf16": Aim(1.5, 2.0)}


def compare(pair: Pair, report: Report, runs: int) -> None:
    """One line of the table."""
    (image,) = photo_files(pair.folder, 1)
    programs = {
        "ours": lambda: pair.ours.predict(image, "<CAPTION>", generation=tokens(LENGTH)),
        "theirs": lambda: pair.theirs.answers([image], ["<CAPTION>"], exactly(LENGTH)),
    }
    times = in_turns(programs, runs)
    machine, parts = measure(pair.dtype, report.threads), cost(report.shape)
    steps = LENGTH - 2  # the first token and the last are known beforehand
    floor = parts.vision_seconds(machine) + parts.encoder_seconds(machine)
    floor += steps * parts.step_seconds(machine, pair.dtype)
    report.add(f"a caption of {LENGTH} tokens", pair.dtype, times["ours"], times["theirs"], AIMS[pair.dtype], floor)


def main(
    shape: str = "base",
    dtype: str = "both",
    runs: int = 3,
    threads: int = 1,
    backend: str = "torch",
    work: Path | None = None,
    out: Path | None = None,
) -> None:
    """`work` is a folder for the checkpoint, `out` a file that lines of JSON are added to."""
    report = Report("caption", shape, threads, out, backend)
    for kind in dtypes(dtype):
        compare(Pair.load(shape, kind, work, backend), report, runs)


if __name__ == "__main__":
    typer.run(main)
