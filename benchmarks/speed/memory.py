"""The most memory that eight tasks about one image take, each side in a process of its own, against transformers.

    python benchmarks/speed/memory.py [--shape base|large|toy] [--dtype both|fp32|bf16]

It is the most that a process ever held: Python, PyTorch and the reading of the checkpoint are in it.
"""

import json
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


def answer(side: str, folder: Path, dtype: str, threads: int) -> None:
    """Loads a side and asks it; prints the most bytes that this process has held."""
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
    print(json.dumps(peak()))


def peak() -> int:
    """Bytes. What a process was before it became this program does not count where the system tells them apart."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(
    shape: str = "base",
    dtype: str = "both",
    threads: int = 1,
    work: Path | None = None,
    out: Path | None = None,
    side: str = "",
) -> None:
    """`side` is what one of the processes is started with: it prints its peak and is done."""
    folder = checkpoint(shape, work)
    if side:
        answer(side, folder, dtype, threads)
        return
    report = Report("memory", shape, threads, out)
    mib = 2**20
    print(
        "\n| workload | dtype | ours, MiB | transformers, MiB | ratio | weights, MiB |\n|---|---|---:|---:|---:|---:|"
    )
    for kind in dtypes(dtype):
        options = [
            "--shape",
            shape,
            "--dtype",
            kind,
            "--threads",
            str(threads),
            *(["--work", str(work)] if work else []),
        ]
        peaks = {}
        for name in SIDES:
            command = [sys.executable, __file__, "--side", name, *options]
            told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            peaks[name] = int(told.splitlines()[-1])
        weights = cost(shape).parameters * DTYPES[kind].itemsize
        for name in SIDES[1:]:
            ratio = peaks[name] / peaks["ours"]
            figures = f"{peaks['ours'] / mib:,.0f} | {peaks[name] / mib:,.0f} | {ratio:.2f} | {weights / mib:,.0f}"
            print(f"| 8 tasks, {name} | {kind} | {figures} |", flush=True)
            told_bytes = {"ours_bytes": peaks["ours"], "transformers_bytes": peaks[name], "weights_bytes": weights}
            report.keep({"workload": f"8 tasks, {name}", "dtype": kind, **told_bytes, "ratio": ratio})


if __name__ == "__main__":
    typer.run(main)
