"""The steps that decide about what was said: filter, enhance and merge, image by image.

Each writes what it decided as rows. Those kept by "enhance" are what a round trains on; those kept by "merge" are its
labels. Both hold everything that is known of an image: whatever was kept before and still stands, and what was added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from open_florence.data.store import Row
from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance import apply_enhancers, current
from open_florence.data_engine.filters import apply_filters
from open_florence.data_engine.fusion.clusters import SAME
from open_florence.data_engine.job import LABELS, Job
from open_florence.data_engine.learning import BOXES, migrated, pending, settlement, withhold
from open_florence.data_engine.settle import Settlement
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import overlap

REGION_TEXTS = "<DENSE_REGION_CAPTION>"
Work = tuple[list[Row], dict[str, Any]]


def migrate(job: Job, sources: Sequence[str]) -> None:
    """Gives what earlier rounds wrote the names that classes have now."""
    left = pending(job)
    if not left:
        return

    def work(shard: str, images: Sequence[str]) -> Work:
        said = job.said(images, sources)
        rows: list[Row] = []
        for image in images:
            for row in job.rows(image, migrated(said.candidates[image], left), "migrate"):
                rows.append(replace(row, status="candidate") if row.status == "kept" else row)
        return rows, {}

    job.run_shards("migrate", LABELS, job.round.images(), work)


def filter(job: Job, sources: Sequence[str]) -> None:
    """Filters and fuses what the sources said; the first source is trusted most."""
    rules: Settlement | None = None

    def work(shard: str, images: Sequence[str]) -> Work:
        nonlocal rules
        rules = rules or settlement(job, sources)
        samples, _ = job.samples(images)
        said = job.said(images, sources)
        rows: list[Row] = []
        for image, sample in samples.items():
            candidates, held = withhold(job, image, said.candidates[image])
            rows += job.rows(image, [*rules(sample, candidates, said.rejected[image]), *held], "filter")
        return rows, {}

    job.store.compact()  # what is said of an image lies in many shards
    job.run_shards("filter", LABELS, job.round.images(), work)


def context(job: Job, needs: Sequence[str], sources: Sequence[str]) -> Any:
    """Images -> their kept labels of the tasks `needs`, and what `sources` said about them in this round."""

    def found(images: Sequence[str]) -> Mapping[str, Sequence[Annotation]]:
        kept = job.kept(images, "filter", task=list(needs))
        for image, told in job.told(images, sources).items():
            kept.setdefault(image, []).extend(one for one in told if one.annotation.task in needs)
        return {image: [c.annotation for c in candidates] for image, candidates in kept.items()}

    return found


def enhance(job: Job, elaborators: Sequence[str]) -> None:
    """Adds what follows from the kept labels, and what the sources `elaborators` said of them."""
    recipe = job.recipe
    rules = Settlement((), None, recipe.choices, elaborators)

    def work(shard: str, images: Sequence[str]) -> Work:
        samples, _ = job.samples(images)
        kept = job.kept(images, "filter")
        said = job.told(images, elaborators)
        rows: list[Row] = []
        for image, sample in samples.items():
            own = {c.id for c in said.get(image, ())}
            pool = [*kept.get(image, ()), *said.get(image, ())]
            filtered = [d for d in apply_filters(recipe.filters, sample, pool) if own & set(d.parents)] if own else []
            left = [Candidate(d.parents[0], d.annotation) for d in filtered if d.status == "kept"]
            decisions = [d for d in filtered if d.status == "dropped"]
            decisions += rules(sample, [*kept.get(image, ()), *left])
            _add(job, shard, sample, decisions, rows, "enhance")
        return rows, {}

    job.run_shards("enhance", LABELS, job.round.images(), work)


def merge(job: Job, sources: Sequence[str], elaborators: Sequence[str]) -> None:
    """Decides again, with what the new student says; `sources` holds it too."""
    rules: Settlement | None = None

    def work(shard: str, images: Sequence[str]) -> Work:
        nonlocal rules
        rules = rules or settlement(job, sources)
        samples, _ = job.samples(images)
        said = job.said(images, sources)
        elaborated = job.kept(images, "enhance", source=list(elaborators))
        rows: list[Row] = []
        for image, sample in samples.items():
            candidates, _ = withhold(job, image, said.candidates[image])
            decisions = rules(sample, candidates, said.rejected[image])
            decisions += [d for c in elaborated.get(image, ()) for d in _still(c, decisions)]
            _add(job, shard, sample, decisions, rows, "merge")
        return rows, {}

    job.store.compact()  # as in `filter`
    job.run_shards("merge", LABELS, job.round.images(), work)


def _still(candidate: Candidate, decisions: Sequence[Decision]) -> list[Decision]:
    """What was said about boxes is kept as long as boxes are kept there: the answer about one, the regions of several.

    Where nobody looked for boxes, everything is kept.
    """
    annotation = candidate.annotation
    if not any(d.annotation.task == BOXES for d in decisions):
        return [Decision(annotation, "kept", "", (candidate.id,))]
    boxes = [r for d in decisions if d.status == "kept" and d.annotation.task == BOXES for r in d.annotation.regions]

    def stands(region: Region) -> bool:
        return any(overlap(region, box) >= SAME for box in boxes)

    def dropped(what: Annotation) -> Decision:
        return Decision(what, "dropped", "no box: what it speaks of was not kept", (candidate.id,))

    if isinstance(annotation.query, Region) and not stands(annotation.query):
        return [dropped(annotation)]
    gone = tuple(r for r in annotation.regions if not stands(r)) if annotation.task == REGION_TEXTS else ()
    if not gone:
        return [Decision(annotation, "kept", "", (candidate.id,))]
    left = replace(annotation, regions=tuple(r for r in annotation.regions if r not in gone))
    kept = [Decision(left, "kept", "", (candidate.id,))] if left.regions else []
    return [*kept, dropped(replace(annotation, regions=gone))]


def _add(job: Job, shard: str, sample: Sample, decisions: Sequence[Decision], rows: list[Row], step: str) -> None:
    """Puts decisions, and what follows from the kept ones, at the end of the rows of a shard.

    What is kept and for which an addition stands instead is dropped: a label is there once.
    """
    first = len(rows)
    rows += job.rows(sample.id, decisions, step)
    places = [place for place in range(first, len(rows)) if rows[place].status == "kept"]
    kept = [Candidate(f"{shard}#{place}", rows[place].annotation) for place in places]
    additions = apply_enhancers(job.recipe.enhancers, sample, kept)
    for place, candidate in zip(places, kept, strict=True):
        if len(current([candidate], additions)) == len(additions):
            rows[place] = replace(rows[place], status="dropped", reason="another answer stands for it")
    rows += job.rows(sample.id, additions, step)
