"""What every step of a round works with: the store, the round's folder, the recipe; how rows are read and written."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from open_florence.data.store import Row, Store
from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.recipe import Recipe
from open_florence.data_engine.review.verdicts import SOURCE as REVIEW
from open_florence.data_engine.round_folder import RoundFolder
from open_florence.data_engine.work import Locks, shard_id, share, slices
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample

Shown = Callable[[str, int, int], object]
"""Told how far a step is: its name, how much is done, and of how much."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Job:
    """One round being worked on by one process."""

    store: Store
    locks: Locks
    round: RoundFolder
    recipe: Recipe
    show: Shown = _nothing
    say: Callable[[str], object] = _nothing

    @property
    def number(self) -> int:
        """Of the round."""
        return self.round.number

    def prefix(self, step: str, what: str) -> str:
        """What the ids of a step's shards begin with."""
        return shard_id(self.number, step, what, 0)[:-6]

    def shards(self, step: str, what: str, images: Sequence[str]) -> list[str]:
        """The shards, of a step that is about all images of the round, that hold these.

        What is asked of the store by its shard is found without a look at what lies beside it.
        """
        order, size = self._images, int(self.round.facts()["shard"])
        return [shard_id(self.number, step, what, k) for k in sorted({bisect_left(order, i) // size for i in images})]

    def run_shards(
        self,
        step: str,
        what: str,
        images: Sequence[str],
        work: Callable[[str, Sequence[str]], tuple[list[Row], dict[str, Any]]],
    ) -> None:
        """Does a step for images, a shard at a time, together with whoever else works on this round.

        `work(shard, images)` gives the rows of a shard and its note.
        """
        size = int(self.round.facts()["shard"])
        parts = {shard_id(self.number, step, what, k): part for k, part in enumerate(slices(images, size))}
        name = step if what == LABELS else f"{step} {what}"
        if not parts:
            return

        def one(shard: str) -> None:
            started = time.monotonic()
            rows, note = work(shard, parts[shard])
            seconds = round(time.monotonic() - started, 3)
            self.store.commit(shard, rows, {"images": len(parts[shard]), "seconds": seconds, **note})

        share(
            list(parts),
            self.locks,
            lambda: self.store.notes(self.prefix(step, what)),
            lambda shard: next(self.store.rows(shard=shard), None) is not None,
            one,
            lambda done: self.show(name, min(done * size, len(images)), len(images)),
        )

    def samples(self, images: Sequence[str], opened: bool = False) -> tuple[dict[str, Sample], dict[str, str]]:
        """The images as samples without annotations, by id; with `opened` their paths are files, or there is a reason.

        Paths and addresses as the store has them otherwise.
        """
        samples: dict[str, Sample] = {}
        reasons: dict[str, str] = {}
        for row in self.store.images(ids=images):
            try:
                path = str(self.store.open(row)) if opened else row.path
                samples[row.id] = Sample(row.id, path, row.size)
            except OpenFlorenceError as error:
                reasons[row.id] = str(error)
        return {image: samples[image] for image in images if image in samples}, reasons

    def said(self, images: Sequence[str], sources: Collection[str]) -> Said:
        """What these sources, and people in reviews, said about the images, in its latest form."""
        steps = ("annotate", "reannotate", "migrate", "review")
        rows = sorted(self.store.rows(image=images, step=steps), key=lambda row: (row.step == "review", row.id))
        replaced = {parent for row in rows if row.step == "migrate" for parent in row.parents}
        replaced |= _said_anew([row for row in rows if row.step == "review"])
        said = Said()
        for row in rows:
            if row.id in replaced:
                continue
            if row.step == "review" and row.status == "dropped":
                said.rejected[row.image].append(row.annotation)
            elif row.status != "dropped" and row.annotation.source in {*sources, REVIEW}:
                said.candidates[row.image].append(Candidate(row.id, row.annotation))
        return said

    def kept(self, images: Sequence[str], step: str, **where: Any) -> dict[str, list[Candidate]]:
        """What a step that is about everything kept of images of this round."""
        shards = self.shards(step, LABELS, images)
        return _by_image(self.store.rows(shard=shards, image=images, status="kept", **where))

    def told(self, images: Sequence[str], sources: Sequence[str]) -> dict[str, list[Candidate]]:
        """What these sources, which annotate labels, said about images of this round."""
        shards = [shard for source in sources for shard in self.shards("elaborate", source, images)]
        return _by_image(self.store.rows(shard=shards, image=images))

    def rows(self, image: str, decisions: Iterable[Decision], step: str) -> list[Row]:
        """Decisions about an image as rows of this round."""
        return [
            Row(
                image,
                replace(decision.annotation, round=self.number),
                level_of(decision.annotation),
                step,
                decision.status,
                decision.reason,
                decision.parents,
            )
            for decision in decisions
        ]

    @cached_property
    def _images(self) -> list[str]:
        return self.round.images()


LABELS = "labels"
"""What steps that are about everything call their shards."""


@dataclass
class Said:
    """What was said about some images."""

    candidates: dict[str, list[Candidate]] = field(default_factory=lambda: defaultdict(list))
    rejected: dict[str, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    """What a person said is wrong."""


def level_of(annotation: Annotation) -> str:
    """The level of the store at which an annotation is."""
    if any(region.span is not None for region in annotation.regions):
        return "text-phrase-region"
    return "region-text" if annotation.regions or isinstance(annotation.query, Region) else "text"


def _by_image(rows: Iterable[Row]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.id):
        found[row.image].append(Candidate(row.id, row.annotation))
    return found


def _said_anew(reviews: Sequence[Row]) -> set[str]:
    """The rows of reviews, sorted by id, that a later file of verdicts about the same round says again."""
    last: dict[tuple[str, str, str], str] = {}
    shards = {row.id: row.id.partition("#")[0] for row in reviews}
    for row in reviews:
        last[row.image, row.annotation.task, shards[row.id][:3]] = shards[row.id]
    return {row.id for row in reviews if last[row.image, row.annotation.task, row.id[:3]] != shards[row.id]}
