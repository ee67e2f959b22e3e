"""What a person said of the claims in a review queue, and what that makes of them: human annotations.

A file of verdicts is what the review page saves, one JSON object a line:

    {"verdict": "accept", "item": "row#0"}
    {"verdict": "reject", "item": "row#1"}
    {"verdict": "fix", "item": "row#2", "label": "dog"}
    {"verdict": "missing", "image": "7c5e", "task": "<OD>", "region": {"kind": "box", "parts": [...], "label": "cat"}}
    {"verdict": "complete", "image": "7c5e", "task": "<OD>"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from open_florence.data.jsonl import line_of, write_whole
from open_florence.data_engine.decision import Decision
from open_florence.data_engine.review.item import ReviewItem
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region

SOURCE = "human@review"
"""The source of what a person said in a review."""
REJECTED = "rejected by a person"

_NEEDED = {
    "accept": {"item"},
    "reject": {"item"},
    "fix": {"item"},
    "missing": {"image", "task", "region"},
    "complete": {"image", "task"},
}
"""Verdict -> the fields it needs; a fix needs a label or a region besides."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing a person said."""

    verdict: str
    """Of an item: "accept", "reject" or "fix"; of a task in an image: "missing" (an object) or "complete"."""
    item: str = ""
    label: str = ""
    """The right class or text of a fix; "" where only the place was wrong."""
    image: str = ""
    task: str = ""
    region: Region | None = None
    """The object that was missing, or the right place of a fix, in pixels."""

    def to_json(self) -> dict[str, Any]:
        """One line of a file of verdicts."""
        record: dict[str, Any] = {"verdict": self.verdict}
        record |= {name: getattr(self, name) for name in ("item", "label", "image", "task") if getattr(self, name)}
        return record | ({"region": self.region.to_json()} if self.region else {})

    @classmethod
    def from_json(cls, record: Any) -> Verdict:
        """The inverse of `to_json`. Raises ValueError saying what is wrong."""
        if not isinstance(record, dict) or record.get("verdict") not in _NEEDED:
            raise ValueError(f"it is {record!r:.80}, not a verdict: {', '.join(_NEEDED)}")
        kind = record["verdict"]
        allowed = _NEEDED[kind] | ({"label", "region"} if kind == "fix" else set())
        if extra := record.keys() - allowed - {"verdict"}:
            raise ValueError(f"{kind!r} has no field {sorted(extra)[0]!r}")
        for name in allowed:
            if name in _NEEDED[kind] and name not in record:
                raise ValueError(f"{kind!r} lacks the field {name!r}")
            if name in record and name != "region" and not (isinstance(record[name], str) and record[name].strip()):
                raise ValueError(f"its {name!r} is {record[name]!r:.80}, not words")
        if kind == "fix" and not record.keys() & {"label", "region"}:
            raise ValueError("'fix' has neither a label nor a region")
        return cls(**{**record, "region": Region.from_json(record["region"]) if "region" in record else None})


def read_verdicts(path: str | Path) -> list[Verdict]:
    """The verdicts of a file, in its order.

    Raises OpenFlorenceError, naming the line, for what is no verdict and for a second verdict about one item.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise OpenFlorenceError(f"the verdicts {path} cannot be read: {error.strerror}") from None
    verdicts: list[Verdict] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            verdict = Verdict.from_json(json.loads(line))
            if verdict.item and first.setdefault(verdict.item, number) != number:
                raise ValueError(f"line {first[verdict.item]} judges of {verdict.item} already")
        except ValueError as error:
            raise OpenFlorenceError(f"{path}, line {number} is no verdict: {error}") from None
        verdicts.append(verdict)
    return verdicts


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Writes what `read_verdicts` reads."""
    write_whole(path, (line_of(verdict.to_json()) for verdict in verdicts))


@dataclass(slots=True)
class Judged:
    """What was said of the claims of one task in one image."""

    items: list[tuple[ReviewItem, Verdict]] = field(default_factory=list)
    missing: list[Region] = field(default_factory=list)
    complete: bool = False
    """Every claim of the task in the image was judged, and a person said that nothing is missing."""


def judged_tasks(queue: Sequence[ReviewItem], verdicts: Sequence[Verdict]) -> dict[tuple[str, str], Judged]:
    """(image, task) -> what was said, in the order of the queue.

    Raises OpenFlorenceError for a verdict about an item, or an image, that is not in the queue, or twice about one.
    """
    items, images = {item.id: item for item in queue}, {item.image for item in queue}
    of_item: dict[str, Verdict] = {}
    result: dict[tuple[str, str], Judged] = {}
    for verdict in verdicts:
        if verdict.item not in items if verdict.item else verdict.image not in images:
            asked = f"the item {verdict.item}" if verdict.item else f"the image {verdict.image}"
            raise OpenFlorenceError(f"there is no verdict to give on {asked}: it is not in this review queue")
        if verdict.item:
            if of_item.setdefault(verdict.item, verdict) is not verdict:
                raise OpenFlorenceError(f"there are two verdicts about the item {verdict.item}")
            continue
        judged = result.setdefault((verdict.image, verdict.task), Judged())
        if verdict.region is None:
            judged.complete = True
        else:
            judged.missing.append(verdict.region)
    for item in queue:
        if item.id in of_item:
            judged = result.setdefault((item.image, item.annotation.task), Judged())
            judged.items.append((item, of_item[item.id]))
            if item.says_nothing:
                judged.complete |= of_item[item.id].verdict == "accept"
                if of_item[item.id].verdict == "fix":
                    raise OpenFlorenceError(f"the item {item.id} says that nothing is here, which cannot be fixed")
    for judged in result.values():
        judged.complete &= bool(judged.items) and judged.items[0][0].siblings == len(judged.items)
    return result


def human_annotations(
    queue: Sequence[ReviewItem], verdicts: Sequence[Verdict], round: int = 0, source: str = SOURCE
) -> dict[str, list[Decision]]:
    """Image -> what a person made of its labels, as decisions about rows of the queue.

    Accepted, fixed and missing regions of a task become one kept annotation of `source`, its parents the rows they come
    from; it is `complete` where the whole of the task in the image was judged and confirmed. Rejected ones become a
    dropped decision for each row. A text is kept, replaced or dropped by itself. Raises as `judged_tasks`.
    """
    decisions: dict[str, list[Decision]] = {}
    for (image, task), judged in judged_tasks(queue, verdicts).items():
        decisions.setdefault(image, []).extend(_decisions(task, judged, round, source))
    return {image: made for image, made in decisions.items() if made}


@dataclass(slots=True)
class _Answer:
    """The regions of one question: a task, its query, and the text its regions ground."""

    regions: list[Region] = field(default_factory=list)
    parents: dict[str, None] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    """What was done -> how often."""

    def add(self, region: Region, what: str) -> None:
        self.regions.append(region)
        self.done[what] = self.done.get(what, 0) + 1

    @property
    def reason(self) -> str:
        """As "a person accepted 3 and added 1"."""
        *most, last = [f"{what} {number}" for what, number in self.done.items()] or ["says that nothing is here"]
        return "a person " + (", ".join(most) + " and " if most else "") + last


def _decisions(task: str, judged: Judged, round: int, source: str) -> Iterable[Decision]:
    answers: dict[tuple[str | Region | None, str], _Answer] = {}
    rejected: dict[str, list[ReviewItem]] = {}
    for item, verdict in judged.items:
        said = item.annotation
        if item.region is None and not item.says_nothing:
            yield _text_decision(item, verdict, round, source)
            continue
        answer = answers.setdefault((said.query, said.text), _Answer())
        answer.parents[item.row] = None
        if verdict.verdict == "reject":
            rejected.setdefault(item.row, []).append(item)
        elif item.region is not None:
            answer.add(_human_region(item.region, verdict), "accepted" if verdict.verdict == "accept" else "corrected")
    for region in judged.missing:
        answers.setdefault((None, ""), _Answer()).add(region, "added")
    for (query, text), answer in answers.items():
        if answer.regions or judged.complete:
            kept = Annotation(task, text, tuple(answer.regions), query, source, round, complete=judged.complete)
            yield Decision(kept, "kept", answer.reason, tuple(answer.parents))
    for row, items in rejected.items():
        gone = replace(items[0].annotation, regions=tuple(item.region for item in items if item.region))
        yield Decision(gone, "dropped", REJECTED, (row,))


def _human_region(region: Region, verdict: Verdict) -> Region:
    """The region as a person says it is: without scores, for nobody gave one."""
    place = verdict.region or region
    label = verdict.label or region.label
    span = region.span if label == region.label else None
    return replace(region, kind=place.kind, parts=place.parts, label=label, score=None, label_score=None, span=span)


def _text_decision(item: ReviewItem, verdict: Verdict, round: int, source: str) -> Decision:
    if verdict.verdict == "reject":
        return Decision(item.annotation, "dropped", REJECTED, (item.row,))
    said = Annotation(item.annotation.task, item.annotation.text, (), item.annotation.query, source, round)
    if verdict.verdict == "accept":
        return Decision(said, "kept", "a person accepted it", (item.row,))
    text = verdict.label or said.text
    return Decision(replace(said, text=text), "kept", "a person wrote it anew", (item.row,))
