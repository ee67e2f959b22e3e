"""What a round learns from what the sources said, before it decides: whom to believe, and what they differ about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.filters import apply_filters
from open_florence.data_engine.filters.region_filters import inside_ontology, score
from open_florence.data_engine.filters.thresholds import fit_thresholds
from open_florence.data_engine.fusion import Fusion, is_human, learn
from open_florence.data_engine.fusion.clusters import SAME
from open_florence.data_engine.fusion.reliability import Reliability
from open_florence.data_engine.job import Job
from open_florence.data_engine.ontology.migrations import Migration, migrate_candidate
from open_florence.data_engine.ontology.stability import unstable_labels
from open_florence.data_engine.partition import Filter
from open_florence.data_engine.round_folder import rounds
from open_florence.data_engine.settle import Settlement
from open_florence.data_engine.work import slices
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import overlap, region_score

BOXES = "<OD>"
AUDITED = "kept for the audit: what people said about this image is the truth it is measured with"


def settlement(job: Job, sources: Sequence[str]) -> Settlement:
    """The rules by which this round decides between the sources, the first of which is trusted most.

    The same for the same candidates, whatever the order they came in. What was learnt is written beside the round.
    """
    recipe, filters = job.recipe, filters_of(job, sources)
    images = job.round.images()[: recipe.fit_images]
    audited = {sample.id: sample for sample in truth_of(job)} if recipe.learn_from_audit else {}
    if audited:
        images = sorted({*images, *(audited.keys() & set(job.round.images()))})
    found = dict(_filtered(job, images, sources, filters))
    said = list(found.values())
    truth = [_truth(audited[image].annotations if image in audited else of_image) for image, of_image in found.items()]
    fusion = None
    if any(annotation.task == BOXES for of_image in said for annotation in of_image):
        reliability = _learn(said, truth, sources, recipe.ontology.names)
        job.round.write(f"reliability-{len(sources)}.json", _plain(asdict(reliability)))
        fusion = Fusion(reliability, recipe.keep)
    candidates = [[Candidate(str(n), annotation) for n, annotation in enumerate(of_image)] for of_image in said]
    job.round.write(f"unstable-{len(sources)}.json", [one.sentence for one in unstable_labels(candidates)])
    return Settlement(filters, fusion, recipe.choices, sources)


def unstable(job: Job, sources: Sequence[str]) -> list[str]:
    """The classes about which the sources differ beyond chance, a sentence each, as `settlement` found them."""
    return list(job.round.read(f"unstable-{len(sources)}.json") or ())


def filters_of(job: Job, sources: Sequence[str]) -> list[Filter]:
    """The recipe's filters, with thresholds fitted on the audit split where a precision is wanted."""
    recipe = job.recipe
    if recipe.precision is None or recipe.split is None:
        return list(recipe.filters)
    truth = {sample.id: _truth(sample.annotations) for sample in truth_of(job)}
    images = [image for image in job.round.images() if truth.get(image) is not None]
    judged = [
        one
        for image, annotations in _filtered(job, images, sources, recipe.filters)
        for annotation in annotations
        if annotation.task == BOXES
        for one in judge_boxes(annotation.regions, truth[image] or ())
    ]
    thresholds = fit_thresholds(judged, recipe.precision)
    job.round.write(f"thresholds-{len(sources)}.json", thresholds)
    return [*recipe.filters, score(thresholds, recipe.ontology)]


def truth_of(job: Job) -> list[Sample]:
    """The samples of the audit split as the ontology is now."""
    samples = job.recipe.split.samples if job.recipe.split else ()
    return [replace(sample, annotations=as_classes(job, sample, sample.annotations)) for sample in samples]


def as_classes(job: Job, sample: Sample, annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
    """Annotations with the classes of the ontology by its names, and no others."""
    ontology = job.recipe.ontology
    candidates = [Candidate(str(number), annotation) for number, annotation in enumerate(annotations)]
    renamed = [d for c in candidates for d in migrate_candidate(c, ontology.migrations) if d.status == "kept"]
    decisions = inside_ontology(ontology)(sample, [Candidate(d.parents[0], d.annotation) for d in renamed])
    return tuple(d.annotation for d in decisions if d.status == "kept")


def judge_boxes(found: Sequence[Region], true: Sequence[Region]) -> list[tuple[str, float, bool]]:
    """(class, score, whether it is right) of each box found: right is the best on a true one of its class (IoU 0.5)."""
    left, judged = list(true), []
    for region in sorted(found, key=region_score, reverse=True):
        same = next((t for t in left if t.label == region.label and overlap(region, t) >= SAME), None)
        if same is not None:
            left.remove(same)
        judged.append((region.label, region_score(region), same is not None))
    return judged


def withhold(job: Job, image: str, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Decision]]:
    """Candidates without what people said about an image of the audit split, and that as dropped decisions."""
    split = job.recipe.split
    if split is None or image not in {sample.id for sample in split.samples}:
        return list(candidates), []
    human = [c for c in candidates if is_human(c.annotation)]
    return (
        [c for c in candidates if not is_human(c.annotation)],
        [Decision(c.annotation, "dropped", AUDITED, (c.id,)) for c in human],
    )


def pending(job: Job) -> dict[int, list[Migration]]:
    """Round -> the migrations of classes that its rows have not been through."""
    known = {one.number: set(one.facts().get("migrations", ())) for one in rounds(job.round.labels)}
    migrations = job.recipe.ontology.migrations
    found = {number: [m for m in migrations if m.id not in been] for number, been in known.items()}
    return {number: left for number, left in found.items() if left}


def migrated(candidates: Sequence[Candidate], left: dict[int, list[Migration]]) -> list[Decision]:
    """What migrations make of the candidates that are older than they; those that they do not touch are left out."""
    decisions: list[Decision] = []
    for candidate in candidates:
        made = migrate_candidate(candidate, left.get(candidate.annotation.round, ()))
        if [decision.annotation for decision in made] != [candidate.annotation]:
            decisions += made
    return decisions


def _filtered(
    job: Job, images: Sequence[str], sources: Collection[str], filters: Sequence[Filter]
) -> Iterator[tuple[str, list[Annotation]]]:
    """Images, and what the filters leave of what was said about each."""
    for part in slices(images, 512):
        samples, _ = job.samples(part)
        said = job.said(part, sources)
        for image, sample in samples.items():
            candidates, _ = withhold(job, image, said.candidates[image])
            whole = [c for c in candidates if not is_human(c.annotation) or c.annotation.complete]
            decisions = apply_filters(filters, sample, whole)
            yield image, [decision.annotation for decision in decisions if decision.status == "kept"]


def _truth(annotations: Sequence[Annotation]) -> Sequence[Region] | None:
    """The boxes of an image as the last person said; None where nobody did."""
    human = [a.regions for a in annotations if a.task == BOXES and is_human(a)]
    return human[-1] if human else None


def _learn(
    said: Sequence[Sequence[Annotation]],
    truth: Sequence[Sequence[Region] | None],
    sources: Sequence[str],
    classes: Sequence[str],
) -> Reliability:
    """How far each source can be believed about boxes; what people said is the truth.

    A last image, of which nothing is asked, names all sources and classes: one that is met only later is known, too.
    """
    everybody = [Annotation(BOXES, source=source) for source in sources]
    everything = [Region.box(0, 0, 1, 1, label=name) for name in classes]
    return learn([*said, everybody], BOXES, truth=[*truth, everything])


def _plain(value: Any) -> Any:
    """Arrays and tuples as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
