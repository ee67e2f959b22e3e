"""What an audit says: precision and recall of labels by task, class and source, image by image so that two compare."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from open_florence.data.jsonl import write_whole
from open_florence.data_engine.review.verdict_figures import Proportion, proportion
from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.intervals import Tally


class Counts(NamedTuple):
    """Of the regions in one image."""

    right: int
    """Found regions that are a true one."""
    found: int
    true: int
    overlap: float
    """The sum of the IoU of the right ones."""


class TextCounts(NamedTuple):
    """Of the texts about one image."""

    exact: float
    """How many are word for word a true one."""
    agreement: float
    """The sum of how far each agrees with the true one it is nearest to, 0 to 1."""
    true: int
    """How many there should be."""


@dataclass(frozen=True)
class RegionRow:
    """How right the regions of a task are: of all classes and sources, of one class, or of one source."""

    task: str
    class_name: str
    """ "" for all classes."""
    source: str
    """ "" for all sources."""
    images: Mapping[str, Counts]
    """Image -> counts, where there is something to find or something was found."""

    @property
    def total(self) -> Counts:
        """Of all images."""
        found = list(self.images.values())
        return Counts(
            sum(c.right for c in found),
            sum(c.found for c in found),
            sum(c.true for c in found),
            sum(c.overlap for c in found),
        )

    @property
    def precision(self) -> Proportion | None:
        """The share of what was found that is right, with Wilson's interval; None where nothing was found."""
        return _share((image, counts.right, counts.found) for image, counts in self.images.items())

    @property
    def recall(self) -> Proportion | None:
        """The share of what is there that was found, with Wilson's interval; None where nothing is there."""
        return _share((image, counts.right, counts.true) for image, counts in self.images.items())

    @property
    def f1(self) -> Proportion | None:
        """2 x right / (found + true), with the bootstrap's interval over images."""
        return _ratio([(2 * c.right, c.found + c.true) for c in self.images.values()])

    @property
    def mean_iou(self) -> Proportion | None:
        """The mean overlap of the right ones, with the bootstrap's interval over images."""
        return _ratio([(c.overlap, c.right) for c in self.images.values()])


@dataclass(frozen=True)
class TextRow:
    """How right the texts of a task are, of all sources or one."""

    task: str
    source: str
    """ "" for all sources."""
    images: Mapping[str, TextCounts]

    @property
    def exact(self) -> Proportion | None:
        """The share that is word for word a true one, with the bootstrap's interval over images."""
        return _ratio([(c.exact, c.true) for c in self.images.values()])

    @property
    def agreement(self) -> Proportion | None:
        """The mean agreement, with the bootstrap's interval over images."""
        return _ratio([(c.agreement, c.true) for c in self.images.values()])


@dataclass(frozen=True)
class AuditReport:
    """All figures of one audit."""

    images: tuple[str, ...] = ()
    """Ids of the images that were audited."""
    regions: tuple[RegionRow, ...] = ()
    texts: tuple[TextRow, ...] = field(default=())

    def region_row(self, task: str, class_name: str = "", source: str = "") -> RegionRow | None:
        """The row of a task, of one of its classes, or of one source; None where there is none."""
        return next((r for r in self.regions if (r.task, r.class_name, r.source) == (task, class_name, source)), None)

    def text_row(self, task: str, source: str = "") -> TextRow | None:
        """The row of a task, or of one source; None where there is none."""
        return next((row for row in self.texts if (row.task, row.source) == (task, source)), None)

    @property
    def silent_classes(self) -> list[tuple[str, str]]:
        """(task, class) of every class that is there and never found, not even wrongly."""
        return [(r.task, r.class_name) for r in self.regions if r.class_name and r.total.true and not r.total.found]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings; the figures are written for people, the counts are what is read."""
        regions = [
            {"task": r.task, "class": r.class_name, "source": r.source}
            | {name: _plain(getattr(r, name)) for name in ("precision", "recall", "f1", "mean_iou")}
            | {"images": {image: list(counts) for image, counts in r.images.items()}}
            for r in self.regions
        ]
        texts = [
            {"task": r.task, "source": r.source}
            | {name: _plain(getattr(r, name)) for name in ("exact", "agreement")}
            | {"images": {image: list(counts) for image, counts in r.images.items()}}
            for r in self.texts
        ]
        return {"images": list(self.images), "regions": regions, "texts": texts}

    @classmethod
    def from_json(cls, record: Any) -> AuditReport:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        try:
            regions = tuple(
                RegionRow(r["task"], r["class"], r["source"], {i: Counts(*c) for i, c in r["images"].items()})
                for r in record["regions"]
            )
            texts = tuple(
                TextRow(r["task"], r["source"], {i: TextCounts(*c) for i, c in r["images"].items()})
                for r in record["texts"]
            )
            return cls(tuple(record["images"]), regions, texts)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no audit: {error!r:.80}") from None

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        write_whole(path, [json.dumps(self.to_json(), ensure_ascii=False).encode("utf-8", "backslashreplace"), b"\n"])

    @classmethod
    def read(cls, path: Path) -> AuditReport:
        """What `write` wrote. Raises OpenFlorenceError where that is not there or is damaged."""
        try:
            return cls.from_json(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise OpenFlorenceError(f"the audit {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise OpenFlorenceError(f"the audit {path} is damaged: {error}") from None

    def table(self) -> str:
        """Markdown, a row a line: percent with 95 % intervals, and how many regions there are and were found."""
        lines: list[str] = []
        if self.regions:
            lines += _heading(
                "task", "class", "source", "precision", "recall", "F1", "IoU of right ones", "there", "found"
            )
            for r in self.regions:
                shown = (r.precision, r.recall, r.f1, r.mean_iou)
                names = (r.task, r.class_name or "all", r.source or "all")
                lines.append(_line(*names, *map(_percent, shown), str(r.total.true), str(r.total.found)))
        if self.texts:
            lines += [*([""] if lines else []), *_heading("task", "source", "exact", "agreement", "texts")]
            for t in self.texts:
                count = sum(counts.true for counts in t.images.values())
                lines.append(_line(t.task, t.source or "all", _percent(t.exact), _percent(t.agreement), str(count)))
        return "\n".join(lines)


def _share(counts: Iterable[tuple[str, int, int]]) -> Proportion | None:
    """The share of (image, right ones, all)."""
    return proportion([(k < right, 1.0, image) for image, right, total in counts for k in range(total)])


def _ratio(pairs: Sequence[tuple[float, float]]) -> Proportion | None:
    """The ratio of the sums of (gained, possible), an entry an image; without an interval it is everything possible."""
    tally = Tally.of(pairs)
    if not tally.count:
        return None
    low, high = tally.interval() or (0.0, 1.0)
    return Proportion(tally.value, low, high, tally.count)


def _plain(figure: Proportion | None) -> dict[str, Any] | None:
    return None if figure is None else {name: getattr(figure, name) for name in ("value", "low", "high", "count")}


def _percent(figure: Proportion | None) -> str:
    return "-" if figure is None else f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})".replace("%", "")


def _heading(*names: str) -> list[str]:
    return [_line(*names), _line(*("---" for _ in names))]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
