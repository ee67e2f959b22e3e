"""The steps of a round that are one piece: training the student, and judging what the round made."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_florence.data.store import Row
from open_florence.data_engine.audit.balance import image_weights
from open_florence.data_engine.audit.drift import drift
from open_florence.data_engine.audit.profile import Profile
from open_florence.data_engine.job import Job
from open_florence.data_engine.learning import as_classes, truth_of
from open_florence.data_engine.round_folder import MANIFEST, RoundFolder, now, rounds
from open_florence.data_engine.work import slices
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample

if TYPE_CHECKING:
    from open_florence.data_engine.audit.guards import Judgement

BLOCK = 512
"""Images that are read at a time."""


def train(job: Job) -> dict[str, Any]:
    """Trains the student on the labels of the round, never on an audited image, and says on what.

    Raises OpenFlorenceError when there is nothing to learn from.
    """
    student = job.recipe.student
    assert student is not None
    samples, excluded = training_samples(job)
    if not samples:
        why = f": {len(excluded)} images are left out, {next(iter(excluded.values()))}" if excluded else ""
        raise OpenFlorenceError(f"round {job.number} has no label to train on{why}; see open-florence engine status")
    weights = image_weights(samples, job.recipe.rare)
    if job.recipe.split is not None:
        job.recipe.split.refuse(samples)
    last = last_promoted(job.round.labels, before=job.number)
    start = last.checkpoint if last and last.checkpoint.is_dir() else None
    student.train(samples, weights, job.round.path / "train", job.round.checkpoint, start)
    return {"images": len(samples), "excluded": excluded}


def training_samples(job: Job) -> tuple[list[Sample], dict[str, str]]:
    """What the round's student may learn from, by id; and why other images may not be learnt from."""
    samples: list[Sample] = []
    excluded: dict[str, str] = {}
    for part in slices(job.round.images(), BLOCK):
        rows = list(job.store.images(ids=part))
        if job.recipe.split is not None:
            rows, reasons = job.recipe.split.exclude(rows)
            excluded |= reasons
        found, _ = job.samples(sorted(row.id for row in rows), opened=True)
        kept = job.kept(list(found), "enhance")
        samples += [
            replace(sample, annotations=tuple(c.annotation for c in kept[image]))
            for image, sample in found.items()
            if image in kept
        ]
    return samples, excluded


def close(job: Job, sources: Sequence[str], labels_step: str) -> dict[str, Any]:
    """Audits the round, promotes or stops it, and writes its manifest, which is returned."""
    started = time.monotonic()
    profile = _profile(job, sources, labels_step)
    profile.write(job.round.path / "profile.json")
    moved = drift(profile, _earlier_profiles(job))
    job.round.write("drift.json", moved.to_json())
    judgement = _judge(job, sources, labels_step)
    tag = job.round.name if judgement.promote else f"{job.round.name}-stopped"
    steps = {step: outcome for step in STEPS if (outcome := job.round.outcome(step)) is not None}
    steps["audit"] = {"seconds": round(time.monotonic() - started, 3), "date": now()}
    job.store.compact()
    if tag not in job.store.tags():
        job.store.tag(tag)
    manifest = {
        "round": job.number,
        "promoted": judgement.promote,
        "reasons": list(judgement.reasons),
        "warnings": [*judgement.warnings, *moved.warnings],
        "tag": tag,
        "labels": labels_step,
        "steps": steps,
        "date": now(),
    }
    job.round.write(MANIFEST, manifest)
    return manifest


def abandon(job: Job) -> None:
    """Closes a round that is not finished."""
    tag = f"{job.round.name}-stopped"
    if tag not in job.store.tags():
        job.store.tag(tag)
    reason = "it was abandoned before it was finished"
    record = {
        "round": job.number,
        "promoted": False,
        "abandoned": True,
        "reasons": [reason],
        "warnings": [],
        "tag": tag,
    }
    job.round.write(MANIFEST, {**record, "labels": None, "steps": {}, "date": now()})


def last_promoted(labels: Path, before: int | None = None) -> RoundFolder | None:
    """The last round that was promoted, of those with a lower number than `before` if that is given."""
    for one in reversed(rounds(labels)):
        manifest = one.manifest()
        if manifest and manifest["promoted"] and (before is None or one.number < before):
            return one
    return None


STEPS = ("annotate", "migrate", "filter", "elaborate", "enhance", "train", "reannotate", "merge", "audit")
"""A round's steps in their order."""


def _judge(job: Job, sources: Sequence[str], labels_step: str) -> Judgement:
    """Whether the round is promoted; its figures are written to audit.json, those of every source beside it."""
    from open_florence.data_engine.audit.figures import audit
    from open_florence.data_engine.audit.guards import judge
    from open_florence.data_engine.audit.report import AuditReport

    split = job.recipe.split
    if split is None:
        return judge(None, None, job.recipe.guard)
    images = sorted({sample.id for sample in split.samples} & set(job.round.images()))
    truth = [sample for sample in truth_of(job) if sample.id in images]
    after = audit(
        _labelled(job, images, job.store.rows(image=images, step=labels_step, round=job.number, status="kept")), truth
    )
    said = job.said(images, sources)
    by_source = {}
    for source in sources:
        own = []
        for sample in truth:
            answers = [c.annotation for c in said.candidates[sample.id] if c.annotation.source == source]
            own.append(replace(sample, annotations=as_classes(job, sample, answers)))
        by_source[source] = audit(own, truth).to_json()
    job.round.write("audit-sources.json", by_source)
    after.write(job.round.path / "audit.json")
    last = last_promoted(job.round.labels, before=job.number)
    place = last.path / "audit.json" if last else None
    before = AuditReport.read(place) if place and place.exists() else None
    return judge(before, after, job.recipe.guard)


def _labelled(job: Job, images: Collection[str], rows: Iterator[Row]) -> list[Sample]:
    said: dict[str, list[Annotation]] = {image: [] for image in images}
    for row in rows:
        said[row.image].append(row.annotation)
    return [Sample(image, "", (), tuple(annotations)) for image, annotations in said.items()]


def _profile(job: Job, sources: Sequence[str], labels_step: str) -> Profile:
    """The round's labels as counts."""
    profile = Profile()
    images = job.round.images()
    for done, part in enumerate(slices(images, BLOCK)):
        samples, _ = job.samples(part)
        kept = job.kept(part, labels_step)
        said = job.said(part, sources)
        for image, sample in samples.items():
            labels = [c.annotation for c in kept.get(image, ())]
            profile.add(sample.size, labels, [c.annotation for c in said.candidates[image]])
        job.show("audit", min((done + 1) * BLOCK, len(images)), len(images))
    return profile


def _earlier_profiles(job: Job) -> Mapping[str, Profile]:
    """Those of the first round and of the last, by name."""
    finished = [one for one in rounds(job.round.labels) if one.number < job.number]
    with_profile = [one for one in finished if (one.path / "profile.json").exists()]
    ends = {one.number: one for one in (*with_profile[:1], *with_profile[-1:])}
    return {f"round {number}": Profile.read(one.path / "profile.json") for number, one in ends.items()}
