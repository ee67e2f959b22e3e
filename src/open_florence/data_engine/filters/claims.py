"""Captions that name a thing nobody found: the commonest way in which a caption is made up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.partition import CAPTION_TASKS, Filter, drop, keep
from open_florence.errors import OpenFlorenceError
from open_florence.noun_phrases import noun_phrases
from open_florence.schema import Sample


def claims(ontology: Ontology, at_most: float | None = None) -> Filter:
    """Captions with a noun phrase that names a class of which no region exists are dropped.

    With `at_most`, 0 to 1, they are kept with a score of at most that. A class is found where an <OD> region, of the
    candidates or of the sample's annotations, is of it, of one of its parents' (who did not look closer) or of a class
    below it. Where no <OD> answer exists, nobody has looked and every caption is kept; so are people's captions, and
    those of every image when the ontology has no classes.
    """
    if at_most is not None and not 0 <= at_most <= 1:
        raise OpenFlorenceError(f"claims: at_most lies between 0 and 1, not at {at_most!r}")

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        said = [*sample.annotations, *(c.annotation for c in candidates)]
        searches = [annotation for annotation in said if annotation.task == "<OD>"]
        if not searches or not ontology.classes:
            return [keep(c) for c in candidates]
        labels = {region.label for annotation in searches for region in annotation.regions}
        found = {name for name in map(ontology.name_of, labels) if name is not None}
        return [_judge(c, found, ontology, at_most) for c in candidates]

    return apply


def _is_found(name: str, found: Collection[str], ontology: Ontology) -> bool:
    """Whether a region is of the class, of a class below it, or of one of its parents."""
    below = any(name in ontology.ancestors(other) for other in found)
    return below or any(above in found for above in ontology.ancestors(name))


def _judge(candidate: Candidate, found: Collection[str], ontology: Ontology, at_most: float | None) -> Decision:
    annotation = candidate.annotation
    if annotation.task not in CAPTION_TASKS or is_human(annotation):
        return keep(candidate)
    for phrase in noun_phrases(annotation.text):
        name = ontology.class_of(phrase)
        if name is None or _is_found(name, found, ontology):
            continue
        reason = f"claim: {phrase.text!r} says {name}, and no region is one"
        if at_most is None:
            return drop(candidate, reason)
        score = at_most if annotation.score is None else min(annotation.score, at_most)
        return Decision(
            replace(annotation, score=score), "kept", f"{reason}: score at most {at_most:g}", (candidate.id,)
        )
    return keep(candidate)
