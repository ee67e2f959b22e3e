"""The report: an annotated folder as pages a person can look through, in any browser, without a network.

The annotations are read twice, first to count, then to write, and never held: a report of 50,000 images takes the
memory of one page. Every page stands alone (no script, font or picture from elsewhere; its only script is allowed by
its hash), and thumbnails carry their sample's content hash, so writing the report again makes only those that are new.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from open_florence.data import read
from open_florence.data.jsonl import write_whole
from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.report.cards import Card, make_card
from open_florence.report.colours import Palette
from open_florence.report.marks import region_label, task_name
from open_florence.schema import Sample
from open_florence.tasks import TASKS

if TYPE_CHECKING:
    import jinja2

PAGE = 100
"""Images a page."""

THUMBNAIL = 960
"""Pixels of a thumbnail's longer side, at most."""

MOST_LISTED = 500
"""Failed files, and lines that are no samples, that are listed."""

MOST_LABELS = 300
"""Labels that the filter suggests, the most frequent ones."""


@dataclass(slots=True)
class Summary:
    """What the head of every page says; counted in one pass."""

    images: int = 0
    answers: int = 0
    regions: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def add(self, sample: Sample) -> None:
        """Counts one sample."""
        self.images += 1
        if len(self.folders) < 2:
            self.folders.add(Path(sample.path).parent.name)
        for annotation in sample.annotations:
            self.answers += 1
            self.regions += len(annotation.regions)
            self.tasks[annotation.task] += 1
            self.labels.update(region_label(annotation, region) for region in annotation.regions)
            if annotation.source and len(self.sources) < 2:
                self.sources.add(annotation.source)
        if len(self.labels) > 50 * MOST_LABELS:  # keep memory bounded where every label is another sentence
            self.labels = Counter(dict(self.labels.most_common(10 * MOST_LABELS)))

    def add_problem(self, sentence: str) -> None:
        """Counts a line that is no sample."""
        self.problem_count += 1
        if len(self.problems) < MOST_LISTED:
            self.problems.append(sentence)


def write_report(folder: str | Path) -> Path:
    """Writes `folder`/report/index.html from `folder`/annotations.jsonl and returns its path.

    Shows run.json in the head and failed.jsonl as a list, where they exist. An image that is no longer where it was is
    replaced by a sentence. Raises OpenFlorenceError where the folder has no annotations or cannot be written to, or
    the extra `draw` is missing.
    """
    folder = Path(folder)
    source = folder / "annotations.jsonl"
    if not source.is_file():
        raise OpenFlorenceError(f"there is no annotations.jsonl in {folder}, so there is nothing to report")
    template = _template()
    summary = Summary()
    for sample in read(source, on_error=summary.add_problem):
        summary.add(sample)
    names = ["index.html", *(f"page-{number}.html" for number in range(2, -(-summary.images // PAGE) + 1))]
    report = folder / "report"
    head = _head(folder, summary)
    cards = _cards(read(source, on_error=lambda problem: None), report)
    for number, name in enumerate(names, 1):
        shown = list(islice(cards, PAGE))
        text = template.render(**head, cards=shown, page=number, pages=len(names), names=names)
        write_whole(report / name, [text.encode("utf-8", "replace")])
    for old in report.glob("page-*.html"):
        if old.name not in names:
            old.unlink()
    return report / "index.html"


def _cards(samples: Iterable[Sample], report: Path) -> Iterator[Card]:
    palette = Palette()
    for sample in samples:
        picture, missing = _thumbnail(sample, report)
        yield make_card(sample, picture, missing, palette)


def _thumbnail(sample: Sample, report: Path) -> tuple[str | None, str]:
    """The thumbnail's address relative to the page, made if need be; or None and why there is none."""
    if len(sample.size) != 2:
        return None, ""
    name = sample.id if re.fullmatch(r"[0-9A-Za-z_-]{4,128}", sample.id) else _digest(sample.id + sample.path)
    address = f"images/{name[:2]}/{name}.jpg"
    target = report / address
    if target.is_file():
        return address, ""
    if not Path(sample.path).is_file():
        return None, f"The image is no longer at {sample.path}."
    try:
        image = open_image(sample.path)
    except OpenFlorenceError as error:
        return None, f"The image cannot be read any more: {error}."
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    unfinished = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(unfinished, "JPEG", quality=88, subsampling=0 if max(image.size) < 480 else 2)
        os.replace(unfinished, target)
    except OSError as error:
        raise OpenFlorenceError(f"{target} cannot be written: {error.strerror or error}") from error
    return address, ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _head(folder: Path, summary: Summary) -> dict[str, Any]:
    """The template's variables that are the same on every page."""
    run = _read_run(folder / "run.json")
    failed, failed_count = _read_failed(folder / "failed.jsonl")
    model = str(run.get("model") or next(iter(summary.sources), ""))
    date = str(run.get("date") or "")
    # The images' folder is what a person knows them by; where they are of several, the folder of the annotations.
    (name,) = summary.folders if len(summary.folders) == 1 else {""}
    name = name or folder.resolve().name
    numbers = [(summary.images, "image"), (summary.answers, "answer"), (summary.regions, "region")]
    return {
        "title": f"{name}: annotations",
        "heading": name,
        "details": [part for part in (f"Annotated by {model}" if model else "", _day(date)) if part],
        "numbers": [(f"{number:,}", noun if number == 1 else noun + "s") for number, noun in numbers],
        "tasks": [(task, task_name(task)) for task in _ordered_tasks(summary)],
        "labels": [label for label, _ in summary.labels.most_common(MOST_LABELS) if label],
        "several_sources": len(summary.sources) > 1,
        "problems": summary.problems,
        "problem_count": summary.problem_count,
        "failed": failed,
        "failed_count": failed_count,
    }


def _ordered_tasks(summary: Summary) -> list[str]:
    """The tasks there are answers to: those of `TASKS` in its order, then others, most answered first."""
    known = [task for task in TASKS if task in summary.tasks]
    return list(dict.fromkeys([*known, *(task for task, _ in summary.tasks.most_common(40))]))


def _read_run(path: Path) -> dict[str, Any]:
    """run.json; empty where there is none, or none that can be read: the pages do not depend on it."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def _read_failed(path: Path) -> tuple[list[tuple[str, str]], int]:
    """The first failed files as (path, reason), and how many there are."""
    failed: list[tuple[str, str]] = []
    count = 0
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    count += 1
                    if len(failed) < MOST_LISTED:
                        failed.append(_failure(line))
    return failed, count


def _failure(line: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
        return str(record["path"]), str(record["reason"])
    except (ValueError, KeyError, TypeError):
        return line.strip(), "this line of failed.jsonl cannot be read"


def _day(date: str) -> str:
    """An ISO date as "21 November 2026"; anything else as it is."""
    try:
        day = datetime.fromisoformat(date.replace("Z", "+00:00"))
    except ValueError:
        return date
    return f"{day.day} {day:%B %Y}"


def _template() -> jinja2.Template:
    try:
        import jinja2
    except ImportError as error:
        raise OpenFlorenceError("the report needs the extra `draw`: pip install 'open-florence[draw]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["csp_hash"] = _csp_hash
    return environment.get_template("page.html")


def _csp_hash(script: str) -> str:
    """The script's name in a content security policy: no other script runs on the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
