"""Times of two programs taken in turns, and the table of them, beside what was aimed at and what is possible."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers


@dataclass(frozen=True)
class Time:
    """Of several runs, in seconds."""

    best: float
    """The shortest: what else the machine does can only make a run longer, so ratios are of these."""
    median: float

    @classmethod
    def of(cls, runs: list[float]) -> Time:
        """The figures of some runs."""
        return cls(min(runs), statistics.median(runs))

    def per(self, count: int, less: Time | None = None) -> Time:
        """Divided by a count, another time that is part of it taken off before."""
        less = less or Time(0, 0)
        return Time((self.best - less.best) / count, (self.median - less.median) / count)


def in_turns(programs: Mapping[str, Callable[[], object]], runs: int, warm: bool = True) -> dict[str, Time]:
    """Runs each once, then each again, and so on, so that all have the machine at its worst and best.

    One round more, the first, does not count: it is when weights are laid out and memory is asked for. `warm` False is
    for programs that have run before.
    """
    took: dict[str, list[float]] = {name: [] for name in programs}
    with torch.inference_mode():
        for round_ in range(-warm, runs):
            for name, program in programs.items():
                begun = time.perf_counter()
                program()
                if round_ >= 0:
                    took[name].append(time.perf_counter() - begun)
    return {name: Time.of(seconds) for name, seconds in took.items()}


@dataclass(frozen=True)
class Aim:
    """How many times faster than transformers: what was promised, and what is hoped for."""

    target: float
    stretch: float


class Report:
    """The lines of one script; each is printed as soon as it is known, and kept in a file if one is given."""

    def __init__(self, script: str, shape: str, threads: int, out: Path | None = None, backend: str = "torch") -> None:
        """Sets PyTorch's threads, and prints what is measured on what; `backend` is ours."""
        torch.set_num_threads(threads)
        self.script, self.shape, self.threads, self.out, self.backend = script, shape, threads, out, backend
        self.machine = machine()
        print(
            f"\n{script}: {shape}, ours on {backend}, {threads} thread{'s' * (threads > 1)}, {self.machine['cpu']}, "
            f"torch {torch.__version__}, transformers {transformers.__version__}, commit {self.machine['commit']}"
        )
        self._headed = False

    def add(
        self, workload: str, dtype: str, ours: Time, peer: Time, aim: Aim | None = None, floor: float | None = None
    ) -> None:
        """One comparison; `floor` in seconds. Ratios are of the best runs, medians stand in brackets."""
        if not self._headed:
            print(
                "\n| workload | dtype | ours, ms | transformers, ms | ratio | target | stretch | met | share of floor |"
            )
            print("|---|---|---:|---:|---:|---:|---:|---|---:|")
            self._headed = True
        ratio = peer.best / ours.best
        goals = f"{aim.target:g} | {aim.stretch:g} | {_met(ratio, aim)}" if aim else " | | "
        share = "" if floor is None else f"{floor / ours.best:.0%}"
        print(f"| {workload} | {dtype} | {_ms(ours)} | {_ms(peer)} | {ratio:.2f} | {goals} | {share} |", flush=True)
        figures = {"ours": asdict(ours), "transformers": asdict(peer), "ratio": ratio, "floor": floor}
        self.keep({"workload": workload, "dtype": dtype, **figures, **(asdict(aim) if aim else {})})

    def keep(self, figures: Mapping[str, object]) -> None:
        """Adds a line to the file: seconds, and the machine."""
        told = {"script": self.script, "shape": self.shape, "threads": self.threads, "backend": self.backend}
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**told, **figures, "machine": self.machine}) + "\n")


def machine() -> dict[str, str]:
    """What it was measured on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        cpu = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"cpu": cpu, "commit": commit, "python": platform.python_version(), **versions}


def _ms(value: Time) -> str:
    digits = 0 if value.best > 1 else 1 if value.best > 0.1 else 2
    return f"{1000 * value.best:,.{digits}f} ({1000 * value.median:,.{digits}f})"


def _met(ratio: float, aim: Aim) -> str:
    return "stretch" if ratio >= aim.stretch else "target" if ratio >= aim.target else "no"
