"""How a filter cuts a candidate in two: what is kept, and what is dropped for which reason.

Every region of the candidate ends in exactly one of the decisions. A reason is "rule: what was found and what was
asked", so that reasons can be counted by the part before the colon (`rule_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.schema import Annotation, Region, Sample

Filter = Callable[[Sample, Sequence[Candidate]], list[Decision]]
"""The candidates of one image -> what becomes of each; `sample` gives the size and what else is known of the image."""

CLASS_TASKS = ("<OD>", "<REGION_TO_SEGMENTATION>", "<REGION_TO_CATEGORY>")
"""Tasks that are answered with names of classes: labels of regions (a region may have none), or the text."""
SEARCHES = ("<OD>", "<REGION_PROPOSAL>", "<DENSE_REGION_CAPTION>", "<OCR_WITH_REGION>", "<OPEN_VOCABULARY_DETECTION>")
"""Tasks whose answer without regions says something: that somebody looked and found nothing."""
CAPTION_TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")


def keep(candidate: Candidate) -> Decision:
    """The candidate as it is."""
    return Decision(candidate.annotation, "kept", "", (candidate.id,))


def drop(candidate: Candidate, reason: str) -> Decision:
    """The whole candidate, out."""
    return Decision(candidate.annotation, "dropped", reason, (candidate.id,))


def partition(candidate: Candidate, reasons: Sequence[str]) -> list[Decision]:
    """One kept decision with the regions whose reason is "", and a dropped one for every other reason.

    `reasons` has one entry a region. Where none is left, the kept decision has no regions if the task is a search, and
    there is none otherwise. An annotation that had no regions is kept.
    """
    regions = candidate.annotation.regions
    left = tuple(region for region, reason in zip(regions, reasons, strict=True) if not reason)
    if len(left) == len(regions):
        return [keep(candidate)]
    rest = Candidate(candidate.id, replace(candidate.annotation, regions=left))
    decisions = [keep(rest)] if left or rest.annotation.task in SEARCHES else []
    for why in dict.fromkeys(reason for reason in reasons if reason):
        out = tuple(region for region, reason in zip(regions, reasons, strict=True) if reason == why)
        decisions.append(drop(Candidate(candidate.id, replace(candidate.annotation, regions=out)), why))
    return decisions


def by_region(judge: Callable[[Sample, Region], str]) -> Filter:
    """A filter that looks at one region at a time; `judge` says why it goes, or ""."""

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        judged = ((c, [judge(sample, region) for region in c.annotation.regions]) for c in candidates)
        return [decision for candidate, reasons in judged for decision in partition(candidate, reasons)]

    return apply


def by_text(judge: Callable[[Annotation], str], tasks: Sequence[str] = CAPTION_TASKS) -> Filter:
    """A filter that looks at one text at a time, of the tasks given; annotations of other tasks are kept."""

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        reasons = [judge(c.annotation) if c.annotation.task in tasks else "" for c in candidates]
        return [drop(c, why) if why else keep(c) for c, why in zip(candidates, reasons, strict=True)]

    return apply


def relabel(annotation: Annotation, name: Callable[[str], str]) -> Annotation:
    """The annotation with another name for each class it holds; those of other tasks come back as they are."""
    if annotation.task not in CLASS_TASKS:
        return annotation
    text = name(annotation.text) if annotation.text and not annotation.regions else annotation.text
    regions = tuple(replace(region, label=name(region.label) if region.label else "") for region in annotation.regions)
    return replace(annotation, text=text, regions=regions)


def class_labels(annotation: Annotation) -> list[str]:
    """The names of classes that an annotation holds: of its regions, or its text where it has none."""
    if annotation.task not in CLASS_TASKS:
        return []
    if annotation.regions:
        return [region.label for region in annotation.regions]
    return [annotation.text] if annotation.text else []


def rule_of(reason: str) -> str:
    """What stands before the figures of a reason: "score" of "score: 0.12 under 0.3 for cat"."""
    return reason.partition(":")[0]


def flat(regions: Iterable[Region]) -> list[tuple[Any, ...]]:
    """The numbers of regions, to order them by what they are and not by where they stood."""
    return [(r.kind, r.parts, r.label, r.score or 0.0, r.label_score or 0.0, r.span or (-1, -1)) for r in regions]
