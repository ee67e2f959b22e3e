"""The steps in which specialists annotate: who is asked, about which images, and what is written of the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from open_florence.data.store import Row
from open_florence.data_engine.answers import Answer, Failed
from open_florence.data_engine.child import Declared
from open_florence.data_engine.employed import Employed
from open_florence.data_engine.isolation import Runner
from open_florence.data_engine.job import Job, level_of
from open_florence.data_engine.round_folder import RoundFolder
from open_florence.data_engine.work import shard_id, slices
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation

Context = Callable[[Sequence[str]], Mapping[str, Sequence[Annotation]]]
"""Images -> what the specialist wants to find in their samples."""


@dataclass(frozen=True)
class Hired:
    """A specialist that can be loaded, and what it says of itself."""

    employed: Employed
    declared: Declared

    @property
    def source(self) -> str:
        """What its annotations call their source."""
        return self.declared.source


def hire(everybody: Sequence[Employed]) -> list[Hired]:
    """Loads each once, one after another, so that what is missing is known before anything is done.

    Those that need others' labels come after those that give them. Raises OpenFlorenceError in one sentence for the
    first that cannot be loaded, and for two that are one source.
    """
    hired = []
    for employed in everybody:
        with employed.start() as runner:
            hired.append(Hired(employed, runner.declared))
    sources = [one.source for one in hired]
    if twice := {source for source in sources if sources.count(source) > 1}:
        raise OpenFlorenceError(f"two specialists are the same source, {min(twice)}: they cannot be told apart")
    return _in_order(hired)


def annotate(job: Job, hired: Hired, step: str = "annotate") -> None:
    """Has a specialist annotate the images of the round that it has not seen."""
    images = unseen(job, hired.source)
    _ask(job, hired, step, images, lambda images: {})


def elaborate(job: Job, hired: Hired, context: Context) -> None:
    """Has a specialist that needs others' labels annotate all images of the round."""
    _ask(job, hired, "elaborate", job.round.images(), context)


def unseen(job: Job, source: str) -> list[str]:
    """The images of the round about which earlier rounds have no answer of the source, sorted.

    The same whoever asks and however far this round is: shards are cut from it.
    """
    seen: set[str] = set()
    for number in range(1, job.number):
        earlier = RoundFolder(job.round.labels, number)
        for step in ("annotate", "reannotate"):
            notes = job.store.notes(shard_id(number, step, source, 0)[:-6])
            if not notes:
                continue
            asked = [image for image in earlier.images() if image not in seen]
            parts = slices(asked, int(earlier.facts()["shard"]))
            for shard, note in notes.items():
                seen.update(image for image in parts[int(shard[-6:])] if image not in note["failed"])
    return [image for image in job.round.images() if image not in seen]


def _ask(job: Job, hired: Hired, step: str, images: Sequence[str], context: Context) -> None:
    """Shards of images through a specialist, which is loaded when the first is due."""
    source = hired.source
    notes = job.store.notes(job.prefix(step, source))
    proven = any(len(note["failed"]) < note["images"] for note in notes.values())
    runner: Runner | None = None

    def work(shard: str, part: Sequence[str]) -> tuple[list[Row], dict[str, Any]]:
        nonlocal runner
        if runner is None:
            runner = hired.employed.start(proven)
            if runner.source != source:
                raise OpenFlorenceError(f"{source} was loaded again and is {runner.source} now: run the same again")
        return _answers(job, runner, part, context(part), "reannotate" if step == "reannotate" else "annotate")

    try:
        job.run_shards(step, source, images, work)
    finally:
        if runner is not None:
            runner.close()


def _answers(
    job: Job, runner: Runner, images: Sequence[str], context: Mapping[str, Sequence[Annotation]], step: str
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a shard and its note, with the images that have no answer and why."""
    found, failed = job.samples(images, opened=True)
    samples = [replace(sample, annotations=tuple(context.get(image, ()))) for image, sample in found.items()]
    answers: list[Answer] = runner.annotate(samples) if samples else []
    rows: list[Row] = []
    for sample, answer in zip(samples, answers, strict=True):
        if isinstance(answer, Failed):
            failed[sample.id] = answer.reason
            continue
        for annotation in answer:
            said = replace(annotation, round=job.number)
            rows.append(Row(sample.id, said, level_of(said), step))
    return rows, {"failed": failed}


def _in_order(hired: Sequence[Hired]) -> list[Hired]:
    """Those that need nothing first, then each when those that answer what it needs have been asked."""
    order = [one for one in hired if not one.declared.needs]
    left = [one for one in hired if one.declared.needs]
    while left:
        ready = next((one for one in left if not _waits(one, left)), left[0])
        order.append(ready)
        left.remove(ready)
    return order


def _waits(one: Hired, others: Sequence[Hired]) -> bool:
    needs = set(one.declared.needs)
    return any(needs & set(other.declared.tasks) for other in others if other is not one)
