"""Eight tasks about one image, 24 tokens each, from a file to annotations, against transformers.

    python benchmarks/speed/eight_tasks.py [--shape base|large|toy] [--dtype both|fp32|bf16] [--runs 2]

Against eight calls, as its examples show it, and against what one can write by hand around it: the image encoded once,
the eight questions in one batch.
"""

from pathlib import Path

import typer
from floor import cost, measure
from pair import EIGHT, Pair, dtypes, photo_files, tokens
from peer import exactly
from timing import Aim, Report, in_turns

LENGTH = 24
CALLS = {"fp32": Aim(7.0, 9.0), "bf16": Aim(5.0, 7.0)}
BY_HAND = {"fp32": Aim(1.9, 2.5), "bf16": Aim(1.3, 2.0)}


def compare(pair: Pair, report: Report, runs: int) -> None:
    """Two lines of the table."""
    (image,) = photo_files(pair.folder, 1)
    wanted = exactly(LENGTH)
    programs = {
        "ours": lambda: pair.ours.predict(image, EIGHT, generation=tokens(LENGTH)),
        "calls": lambda: [pair.theirs.answers([image], [task], wanted) for task in EIGHT],
        "by hand": lambda: pair.theirs.shared_answers(image, EIGHT, wanted),
    }
    times = in_turns(programs, runs)
    machine, parts, rows = measure(pair.dtype, report.threads), cost(report.shape), len(EIGHT)
    floor = parts.vision_seconds(machine) + parts.encoder_seconds(machine, rows)
    floor += (LENGTH - 2) * parts.step_seconds(machine, pair.dtype, rows)
    for name, workload, aims in (("calls", "8 tasks, 8 calls", CALLS), ("by hand", "8 tasks, image shared", BY_HAND)):
        report.add(workload, pair.dtype, times["ours"], times[name], aims[pair.dtype], floor)


def main(
    shape: str = "base",
    dtype: str = "both",
    runs: int = 2,
    threads: int = 1,
    backend: str = "torch",
    work: Path | None = None,
    out: Path | None = None,
) -> None:
    """`work` is a folder for the checkpoint, `out` a file that lines of JSON are added to."""
    report = Report("eight_tasks", shape, threads, out, backend)
    for kind in dtypes(dtype):
        compare(Pair.load(shape, kind, work, backend), report, runs)


if __name__ == "__main__":
    typer.run(main)
