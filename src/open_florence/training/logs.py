"""What a run says of itself: a line on the screen, a line of JSON, and TensorBoard's curves where it is installed.

Figures are gathered over the steps between two lines, weighted as the loss is. What has been gathered is part of a
run's state, so a resumed run writes the same lines as one that was never stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MAIN = ("loss", "images/s", "learning rate")
"""Figures that stand in the line on the screen itself; losses by task and other means follow below it."""


class Meters:
    """Means and counts since the last line of the log."""

    def __init__(self) -> None:
        self.sums: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        """Name -> (sum of weight times value, sum of weights)."""
        self.counts: defaultdict[str, int] = defaultdict(int)

    def add(self, figures: Mapping[str, float], weight: float) -> None:
        """Takes a batch's figures in."""
        for name, value in figures.items():
            weighted, weights = self.sums[name]
            self.sums[name] = weighted + weight * value, weights + weight

    def count(self, name: str, number: int) -> None:
        """Adds to a count."""
        self.counts[name] += number

    def means(self) -> dict[str, float]:
        """The weighted mean of every figure that had a weight."""
        return {name: weighted / weights for name, (weighted, weights) in self.sums.items() if weights}

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Starts over with the sum of some meters' states."""
        self.sums.clear()
        self.counts.clear()
        for state in states:
            for name, (weighted, weights) in state["sums"].items():
                self.sums[name] = self.sums[name][0] + weighted, self.sums[name][1] + weights
            for name, number in state["counts"].items():
                self.counts[name] += number


class RunLog:
    """`folder`/log.jsonl, TensorBoard's files beside it, and the screen."""

    def __init__(self, folder: Path, steps: int, first: int) -> None:
        """`steps` of the whole run, `first` of them done: what an earlier process logged after them is dropped."""
        self.steps, self.first, self.started = steps, first, time.perf_counter()
        path = folder / "log.jsonl"
        _keep_until(path, first)
        self.lines = path.open("a", encoding="utf-8")
        self.board = _board(folder, first)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """A line of JSON, and a point of every curve."""
        self.lines.write(json.dumps({"step": step, **figures}) + "\n")
        self.lines.flush()
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name.replace("<", "").replace(">", ""), value, step)

    def show(self, step: int, figures: Mapping[str, float]) -> None:
        """The step, how fast it goes and how long it will take; below it the losses by task."""
        seconds = (time.perf_counter() - self.started) / max(step - self.first, 1) * (self.steps - step)
        line = [f"step {step}/{self.steps}"]
        line += [f"{name} {figures[name]:.4g}" for name in MAIN if name in figures]
        print("  ".join([*line, f"{duration(seconds)} left"]), flush=True)
        if rest := [f"{name} {value:.4g}" for name, value in figures.items() if name not in MAIN]:
            print("    " + "  ".join(rest), flush=True)

    def sync(self) -> None:
        """Puts what was written on the disk: a saved state never knows of lines that a power cut could take back."""
        os.fsync(self.lines.fileno())
        if self.board is not None:
            self.board.flush()

    def close(self) -> None:
        """Closes the files."""
        self.lines.close()
        if self.board is not None:
            self.board.close()


def duration(seconds: float) -> str:
    """A time a person can read: "8 s", "12 min", "3 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _keep_until(path: Path, step: int) -> None:
    """Cuts a log behind the last line of a step that is part of the run, at the latest where a line is broken."""
    if not path.exists():
        return
    end = 0
    with path.open("rb+") as log:
        for line in log:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or record["step"] > step:
                break
            end += len(line)
        log.truncate(end)


def _board(folder: Path, first: int) -> Any | None:
    """TensorBoard's writer, which hides the points after `first` of an earlier process; None without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=first + 1)
