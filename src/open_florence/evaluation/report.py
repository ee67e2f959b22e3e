"""What an evaluation says: rows of a table, printed by rich, written as Markdown or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.intervals import Interval

CLASS_METRICS = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class Row:
    """One number."""

    key: str
    """Its name in `Report.metrics`, as "od_ap50"."""
    name: str
    """Its name in the table."""
    value: float
    """NaN when there was nothing to judge."""
    count: int
    """How many things were judged: the n of the table."""
    interval: Interval | None = None
    """95 % bootstrap interval over images."""
    note: str = ""


@dataclass(frozen=True)
class ClassRow:
    """Detection quality of one class ("all": the mean over classes)."""

    label: str
    count: int
    """True regions."""
    scored: dict[str, float]
    """AP, AP50, AP75, AP90, AR with the model's scores."""
    unscored: dict[str, float]
    """The same with every score 1.0."""
    scored_intervals: dict[str, Interval | None] = field(default_factory=dict)
    unscored_intervals: dict[str, Interval | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The table of one evaluation. `Console().print(report)` shows it, `metrics` is its numbers by key."""

    data: str
    """What was evaluated on, as it was asked for."""
    model: str
    """The source that the answers name; "" when there were none."""
    images: int
    seconds: float
    rows: tuple[Row, ...]
    classes: tuple[ClassRow, ...] = ()
    """Detection per class."""
    per_class: bool = False
    """Whether the printed table shows the classes too; the files always do."""
    problems: tuple[str, ...] = ()
    """What could not be read, a sentence each, and was left out."""

    @property
    def metrics(self) -> dict[str, float]:
        """Key to value of every row that has one; of classes, "od_ap50/RBC" and so on."""
        found = {row.key: row.value for row in self.rows}
        for row in self.classes:
            found |= {f"od_{name.lower()}/{row.label}": row.scored[name] for name in CLASS_METRICS}
        return {key: value for key, value in found.items() if not math.isnan(value)}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for title, header, lines in self._tables(self.per_class):
            table = Table(title=title, title_justify="left")
            for index, name in enumerate(header):
                table.add_column(name, justify="left" if index == 0 or name == "note" else "right")
            for line in lines:
                table.add_row(*line)
            yield table

    def markdown(self) -> str:
        """The table as GitHub Markdown."""
        parts = []
        for title, header, lines in self._tables(per_class=True):
            grid = [header, ["---" if index == 0 else "---:" for index in range(len(header))], *lines]
            parts.append("\n".join([f"**{title}**", "", *("| " + " | ".join(line) + " |" for line in grid)]))
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> dict[str, object]:
        """A dict of plain values; NaN becomes None."""
        record = asdict(self)
        del record["per_class"]
        return {key: _without_nan(value) for key, value in record.items()}

    def save(self, path: str | Path) -> None:
        """Write a file in the format its name ends in. Raises OpenFlorenceError for an ending other than .md, .json."""
        path = Path(path)
        if path.suffix == ".md":
            text = self.markdown()
        elif path.suffix == ".json":
            text = json.dumps(self.to_json(), indent=2) + "\n"
        else:
            raise OpenFlorenceError(f"a report is written as .md or .json, not as {path.name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _tables(self, per_class: bool) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """(title, header, lines) of each table."""
        speed = f"{self.images / self.seconds:.1f} images/s" if self.seconds > 0 else ""
        left_out = f"{len(self.problems)} records left out" if self.problems else ""
        title = ", ".join(part for part in (self.model, self.data, f"{self.images} images", speed, left_out) if part)
        if self.rows:
            lines = [[r.name, _number(r.value), _bounds(r.interval), str(r.count), r.note] for r in self.rows]
            yield title, ["metric", "value", "95 % interval", "n", "note"], lines
        if self.classes and per_class:
            header = ["class", "n", *CLASS_METRICS, *(f"{name} without scores" for name in CLASS_METRICS)]
            lines = [
                [
                    row.label,
                    str(row.count),
                    *(_cell(row.scored[name], row.scored_intervals.get(name)) for name in CLASS_METRICS),
                    *(_cell(row.unscored[name], row.unscored_intervals.get(name)) for name in CLASS_METRICS),
                ]
                for row in self.classes
            ]
            yield f"Detection per class ({title})", header, lines


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _bounds(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _cell(value: float, interval: Interval | None) -> str:
    return f"{_number(value)} ({_bounds(interval)})" if interval else _number(value)


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
