"""The tables of `loop.py`'s runs: python benchmarks/engine/loop_table.py runs/loop/loop.jsonl

Means over seeds and half the width of the 95 % t interval of the mean; figures of one seed stand alone.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from noise import CLASSES

QUANTILES = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Of Student's t, 97.5 %, by the number of seeds."""

Record = dict[str, Any]

COLUMNS: dict[str, Callable[[Record], float]] = {
    "trained on: P": lambda r: r["trained_on"]["precision"],
    "R": lambda r: r["trained_on"]["recall"],
    "F1": lambda r: r["trained_on"]["f1"],
    "model on these images: F1": lambda r: r["student"]["f1"],
    "merged: P": lambda r: r["merged"]["precision"],
    "R ": lambda r: r["merged"]["recall"],
    "F1 ": lambda r: r["merged"]["f1"],
    "IoU": lambda r: r["merged"]["iou"],
    "recall, 4 rarest": lambda r: statistics.mean(r["merged"]["recalls"][name] for name in CLASSES[-4:]),
    "rarest": lambda r: r["merged"]["recalls"][CLASSES[-1]],
    "test AP50": lambda r: r["test"]["ap50"],
    "AP75": lambda r: r["test"]["ap75"],
    "AP50, 4 rarest": lambda r: statistics.mean(r["test"]["aps"][name] for name in CLASSES[-4:]),
    "rarest ": lambda r: r["test"]["aps"][CLASSES[-1]],
}


def interval(values: Sequence[float]) -> str:
    """Mean ± half width."""
    mean = f"{statistics.mean(values):.3f}".removeprefix("0")
    if len(values) < 2:
        return mean
    half = QUANTILES[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± " + f"{half:.3f}".removeprefix("0")


def difference(records: Sequence[Record], first: str, second: str, number: int) -> str:
    """AP50 of one arm less that of another, seed by seed."""
    of = {(r["arm"], r["seed"]): r["test"]["ap50"] for r in records if r["round"] == number}
    seeds = sorted({seed for arm, seed in of if arm == first} & {seed for arm, seed in of if arm == second})
    return interval([of[first, seed] - of[second, seed] for seed in seeds]) if seeds else "not run"


def main(file: Path) -> None:
    """Prints Markdown: a row for each arm and round."""
    records = [json.loads(line) for line in file.read_text().splitlines()]
    print("| arm | round | seeds | " + " | ".join(name.strip() for name in COLUMNS) + " |")
    print("|---|---:|---:|" + "---:|" * len(COLUMNS))
    for arm in dict.fromkeys(r["arm"] for r in records):
        for number in sorted({r["round"] for r in records if r["arm"] == arm}):
            own = [r for r in records if r["arm"] == arm and r["round"] == number]
            cells = [interval([column(r) for r in own]) for column in COLUMNS.values()]
            print(f"| {arm} | {number} | {len(own)} | " + " | ".join(cells) + " |")
    last = max(r["round"] for r in records)
    for other in ("raw", "perfect", "no re-annotation", "no filters", "no fusion", "no guard"):
        print(f"\nengine - {other}, AP50 after round {last}: {difference(records, 'engine', other, last)}")


if __name__ == "__main__":
    typer.run(main)
