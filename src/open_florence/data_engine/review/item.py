"""One claim for a person to judge, and a queue of them as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from open_florence.data.jsonl import line_of, write_whole
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Size
from open_florence.selection import region_score

CLASS_TASKS = {"<OD>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_SEGMENTATION>"}
"""Tasks whose regions are labelled with a class; the labels of others are words of their own."""
CLASS_TEXTS = {"<REGION_TO_CATEGORY>", "<CLASSIFICATION>"}
"""Tasks whose text is a class."""


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One claim to judge."""

    id: str
    """The row's id, "#" and the region's number in it; the row's id alone for a text, or for "nothing is here"."""
    image: str
    path: str
    size: Size
    row: str
    annotation: Annotation
    """The row's annotation with this region alone, or without regions."""
    sources: tuple[str, ...]
    """Who says the same."""
    disagreement: float
    """The share of the sources asked that say otherwise."""
    siblings: int
    """Claims of the same task in the same image, this one included, in the queue or not."""
    chance: float = 1.0
    """How likely it was to be in the queue: 1 where it was chosen."""
    why: str = ""
    context: tuple[Region, ...] = ()
    """The other regions of its task in the image that are not in the queue."""

    @property
    def region(self) -> Region | None:
        """The region to judge; None where the text is."""
        return self.annotation.regions[0] if self.annotation.regions else None

    @property
    def label(self) -> str:
        """What is claimed: the region's label, or the text."""
        return self.annotation.text if self.region is None else self.region.label

    @property
    def says_nothing(self) -> bool:
        """Whether it claims that there is nothing for its task to find."""
        return self.region is None and not self.annotation.text

    @property
    def class_name(self) -> str:
        """The class it is counted under; "" where its label is free words."""
        tasks = CLASS_TEXTS if self.region is None else CLASS_TASKS
        return self.label if self.annotation.task in tasks else ""

    @property
    def score(self) -> float | None:
        """How sure its source is, 0 to 1."""
        region = self.region
        if region is None or (region.score is None and region.label_score is None):
            return self.annotation.score
        return region_score(region)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain lists, numbers and strings."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        record["annotation"] = self.annotation.to_json()
        record["context"] = [region.to_json() for region in self.context]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ReviewItem:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
        return cls(
            **{
                **record,
                "size": tuple(float(side) for side in record["size"]),
                "annotation": Annotation.from_json(record["annotation"]),
                "sources": tuple(record["sources"]),
                "context": tuple(Region.from_json(region) for region in record["context"]),
            }
        )


def write_queue(path: Path, queue: Sequence[ReviewItem]) -> None:
    """Writes one item a line; figures and human annotations need it beside the verdicts."""
    write_whole(path, (line_of(item.to_json()) for item in queue))


def read_queue(path: Path) -> list[ReviewItem]:
    """What `write_queue` wrote. Raises OpenFlorenceError naming the file and the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise OpenFlorenceError(f"the review queue {path} cannot be read: {error.strerror}") from None
    queue = []
    for number, line in enumerate(lines, 1):
        try:
            queue.append(ReviewItem.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise OpenFlorenceError(f"{path}, line {number} is no item of a review queue: {error}") from None
    return queue
