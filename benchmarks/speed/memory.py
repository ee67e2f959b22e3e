"""The most memory that eight tasks about one image take, each side in a process of its own, against transformers.

    python benchmarks/speed/memory.py [--shape base|large|toy] [--dtype both|fp32|bf16]

It is the most that a process ever held: Python, PyTorch and the reading of the checkpoint are in it.
"""

import resource
import subprocess
import sys
from pathlib import Path

import torch
import typer
from checkpoint import checkpoint
from floor import cost
from pair import DTYPES, EIGHT, dtypes, photo_files, tokens
from peer import Peer, exactly
from timing import Report

from open_florence.inference.predictor import Predictor

LENGTH = 24
SIDES = ("ours", "8 calls", "image shared")


def answer(side: str, folder: Path, dtype: str, threads: int) -> int:
    """Loads a side and asks it; the most bytes that this process has held."""
    torch.set_num_threads(threads)
    (image,) = photo_files(folder, 1)
    if side == "ours":
        Predictor.from_pretrained(folder, dtype=DTYPES[dtype]).predict(image, EIGHT, generation=tokens(LENGTH))
    elif side == "8 calls":
        peer = Peer.load(folder, DTYPES[dtype])
        for task in EIGHT:
            peer.answers([image], [task], exactly(LENGTH))
    else:
        Peer.load(folder, DTYPES[dtype]).shared_answers(image, EIGHT, exactly(LENGTH))
    return peak()


def peak() -> int:
    """Bytes. What a process was before it became this program does not count where the system tells them apart."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def started(side: str, options: list[str]) -> int:
    """What `answer` says in a process of its own."""
    command = [sys.executable, __file__, "--side", side, *options]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(told.splitlines()[-1])


def compare(report: Report, dtype: str, options: list[str]) -> None:
    """Two lines of the table."""
    peaks = {side: started(side, options) for side in SIDES}
    weights = cost(report.shape).parameters * DTYPES[dtype].itemsize
    for side in SIDES[1:]:
        ratio = peaks[side] / peaks["ours"]
        figures = [f"{value / 2**20:,.0f}" for value in (peaks["ours"], peaks[side], weights)]
        print(f"| 8 tasks, {side} | {dtype} | {figures[0]} | {figures[1]} | {ratio:.2f} | {figures[2]} |", flush=True)
        told = {"ours_bytes": peaks["ours"], "transformers_bytes": peaks[side], "weights_bytes": weights}
        report.keep({"workload": f"8 tasks, {side}", "dtype": dtype, **told, "ratio": ratio})


def main(
    shape: str = "base",
    dtype: str = "both",
    threads: int = 1,
    work: Path | None = None,
    out: Path | None = None,
    side: str = "",
) -> None:
    """`work` is a folder for the checkpoint, `out` a file that lines of JSON are added to.

    `side` is what a process of this script's own is started with: it prints its peak and is done.
    """
    folder = checkpoint(shape, work)
    if side:
        print(answer(side, folder, dtype, threads))
        return
    report = Report("memory", shape, threads, out)
    print(
        "\n| workload | dtype | ours, MiB | transformers, MiB | ratio | weights, MiB |\n|---|---|---:|---:|---:|---:|"
    )
    for kind in dtypes(dtype):
        options = ["--shape", shape, "--dtype", kind, "--threads", str(threads)]
        compare(report, kind, options + (["--work", str(work)] if work else []))


if __name__ == "__main__":
    typer.run(main)
