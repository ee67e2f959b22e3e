"""A round's labels to a person and back: what is most worth judging as a page, and the verdicts into the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from open_florence.data.store import Row, Store
from open_florence.data_engine.audit.split import MANIFEST as SPLIT
from open_florence.data_engine.audit.split import AuditSplit
from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance import SOURCES
from open_florence.data_engine.job import LABELS, level_of
from open_florence.data_engine.review.item import read_queue, write_queue
from open_florence.data_engine.review.label_studio import read_label_studio_review, write_label_studio_review
from open_florence.data_engine.review.page import write_review
from open_florence.data_engine.review.queue import review_queue
from open_florence.data_engine.review.verdicts import human_annotations, read_verdicts
from open_florence.data_engine.round_folder import RoundFolder
from open_florence.data_engine.work import Locks, shard_id, slices
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample

QUEUE = "queue.jsonl"
MOST = 5000
"""Images among whose labels the queue is chosen: the first by id, which are as good as drawn at random."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a file of verdicts."""

    verdicts: int
    kept: int
    """Annotations that a person now stands behind."""
    dropped: int
    again: bool = False
    """The file was in the store already."""


def folder_of(labels: Path, chosen: RoundFolder) -> Path:
    """Where the review of a round lies."""
    return labels / "review" / chosen.name


def write_page(
    labels: Path, chosen: RoundFolder, count: int, *, whole_images: bool = False, classes: tuple[str, ...] = ()
) -> tuple[Path, int]:
    """The page of a finished round with `count` claims (images where `whole_images` is set), and how many there are.

    Images of the audit split are left out: their truth is known. Raises OpenFlorenceError where there is nothing.
    """
    queue = review_queue(_claimed(labels, chosen), count, whole_images=whole_images)
    if not queue:
        raise OpenFlorenceError(f"round {chosen.number} has no label to judge")
    page = write_review(folder_of(labels, chosen), queue, classes, title=f"Round {chosen.number}")
    return page, len(queue)


def write_label_studio(labels: Path, chosen: RoundFolder, out: Path, count: int) -> tuple[int, int]:
    """The same as tasks of Label Studio: how many claims there are, and how many it has no place for."""
    queue = review_queue(_claimed(labels, chosen), count, whole_images=True)
    write_queue(folder_of(labels, chosen) / QUEUE, queue)
    left_out = write_label_studio_review(out, queue)
    return len(queue), len(left_out)


def take_verdicts(labels: Path, chosen: RoundFolder, path: Path, on_error: Callable[[str], object]) -> Taken:
    """Commits what a person said about a round's labels: the next round takes it for the truth.

    `path` is what the page saved, or an export of Label Studio (.json). A later file about the same round takes the
    place of an earlier one, image by image and task by task. `on_error` is told what of an export cannot be read.
    Raises OpenFlorenceError for a file that is neither.
    """
    queue = read_queue(folder_of(labels, chosen) / QUEUE)
    exported = path.suffix == ".json"
    verdicts = read_label_studio_review(path, queue, on_error) if exported else read_verdicts(path)
    store = Store(labels / "store")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    with Locks(labels / "claims").wait("review"):
        earlier = store.notes(shard_id(chosen.number, "review", LABELS, 0)[:-6])
        rows = [
            Row(image, d.annotation, level_of(d.annotation), "review", d.status, d.reason, d.parents)
            for image, decisions in sorted(human_annotations(queue, verdicts, chosen.number).items())
            for d in decisions
        ]
        kept = sum(row.status == "kept" for row in rows)
        again = any(note["sha256"] == content for note in earlier.values())
        if not again:
            shard = shard_id(chosen.number, "review", LABELS, len(earlier))
            images = len({row.image for row in rows})
            store.commit(shard, rows, {"images": images, "verdicts": len(verdicts), "sha256": content})
    return Taken(len(verdicts), kept, len(rows) - kept, again)


def _claimed(labels: Path, chosen: RoundFolder) -> Iterator[tuple[Sample, list[Candidate]]]:
    """The images of a round with what every source said, and their labels with the ids of their rows.

    What enhancers added is left out: it follows from other labels, and is right where they are.
    """
    store, manifest = Store(labels / "store"), chosen.manifest() or {}
    split = AuditSplit.load(labels / "audit") if (labels / "audit" / SPLIT).exists() else None
    audited = {sample.id for sample in split.samples} if split else set()
    images = [image for image in chosen.images() if image not in audited]
    for part in slices(images[:MOST], 256):
        said: dict[str, list[Annotation]] = {}
        for row in store.rows(image=part, step=["annotate", "reannotate", "review"], at=manifest["tag"]):
            if row.status != "dropped":
                said.setdefault(row.image, []).append(row.annotation)
        kept: dict[str, list[Candidate]] = {}
        where = {"step": manifest["labels"], "round": chosen.number, "status": "kept"}
        for row in store.rows(image=part, at=manifest["tag"], **where):
            if row.annotation.source not in SOURCES:
                kept.setdefault(row.image, []).append(Candidate(row.id, row.annotation))
        for picture in store.images(ids=part):
            own = sorted(kept.get(picture.id, ()), key=lambda one: one.id)
            path = str(store.open(picture))
            yield Sample(picture.id, path, picture.size, tuple(said.get(picture.id, ()))), own
