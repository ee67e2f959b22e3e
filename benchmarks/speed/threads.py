"""Idle threads that sleep against idle threads that spin: our decoding with two threads, beside a busy neighbour.

    python benchmarks/speed/threads.py [--shape base|large|toy] [--dtype bf16|fp32] [--threads 2]

OpenMP's threads wait for their next piece of work; OMP_WAIT_POLICY says how. Waiting that spins takes a core from
whoever has work, and as soon as another program has some, threads wait for one that is not running. Each line is a
process of its own; the neighbour burns one core.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import typer
from checkpoint import VOCABULARY, checkpoint, config_of, visual_tokens
from pair import DTYPES, tokens
from timing import Report, Time, in_turns

from open_florence.inference.generate import generate
from open_florence.inference.predictor import Predictor
from open_florence.model.florence import Memory

SHORT, LONG = 4, 28
"""Tokens of the answers."""
CASES = (("PASSIVE", False), ("ACTIVE", False), ("PASSIVE", True), ("ACTIVE", True))
"""How threads wait, and whether there is a neighbour."""


def step(shape: str, folder: Path, dtype: str, threads: int, runs: int) -> Time:
    """One token more of one answer, in seconds."""
    torch.set_num_threads(threads)
    config = config_of(shape)
    model = Predictor.from_pretrained(folder, dtype=DTYPES[dtype]).model
    seen = visual_tokens(config) + 10
    hidden = torch.randn(1, seen, config.text.d_model, dtype=DTYPES[dtype])
    memory = Memory(hidden, torch.ones(1, seen, dtype=torch.bool))

    def write(count: int) -> object:
        return generate(model, memory, tokens(count, vocabulary=VOCABULARY))

    times = in_turns({"short": lambda: write(SHORT), "long": lambda: write(LONG)}, runs)
    return times["long"].per(LONG - SHORT, less=times["short"])


def measured(command: list[str], policy: str, neighbour: bool) -> Time:
    """The same in another process, with threads that wait so."""
    burning = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if neighbour else None
    try:
        environment = {**os.environ, "OMP_WAIT_POLICY": policy}
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    finally:
        if burning is not None:
            burning.kill()
            burning.wait()
    return Time(*json.loads(told.splitlines()[-1]))


def main(
    shape: str = "base",
    dtype: str = "bf16",
    runs: int = 5,
    threads: int = 2,
    work: Path | None = None,
    out: Path | None = None,
    alone: bool = False,
) -> None:
    """`work` is a folder for the checkpoint, `out` a file that lines of JSON are added to.

    `alone` is what a process of this script's own is started with: it prints its time and is done.
    """
    folder = checkpoint(shape, work)
    if alone:
        took = step(shape, folder, dtype, threads, runs)
        print(json.dumps([took.best, took.median]))
        return
    report = Report("threads", shape, threads, out)
    options = ["--shape", shape, "--dtype", dtype, "--runs", str(runs), *(["--work", str(work)] if work else [])]
    command = [sys.executable, __file__, "--alone", *options]
    print("\n| a step, greedy | neighbour | best, ms | median, ms |\n|---|---|---:|---:|")
    cases = [(threads, *case) for case in CASES] + [(1, "PASSIVE", True)]
    for count, policy, neighbour in cases:
        took = measured([*command, "--threads", str(count)], policy, neighbour)
        name = f"{count} thread{'s' * (count > 1)}, {policy.lower()}"
        busy = "busy" if neighbour else "none"
        print(f"| {name} | {busy} | {1000 * took.best:.2f} | {1000 * took.median:.2f} |", flush=True)
        report.keep({"workload": name, "neighbour": busy, "dtype": dtype, "best": took.best, "median": took.median})


if __name__ == "__main__":
    typer.run(main)
