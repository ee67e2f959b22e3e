"""Captions and regions -> text-phrase-region triplets: each noun phrase of a caption with the regions it means.

Two witnesses can place a phrase: the kept regions, by their labels (`phrase_matching`), and a model that grounded the
same caption. Where both do, what both support stands, with a higher score than either gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance.additions import Enhancer, addition
from open_florence.data_engine.enhance.phrase_matching import Match, match_phrases, names_of
from open_florence.data_engine.enhance.things import Thing, best_overlap, find_things
from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.ontology import Ontology
from open_florence.geometry import region_box
from open_florence.noun_phrases import Phrase, noun_phrases
from open_florence.schema import Region, Sample
from open_florence.selection import region_score

SOURCE = "grounding@1"
CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
TASK = "<CAPTION_TO_PHRASE_GROUNDING>"
MASKS = "<REGION_TO_SEGMENTATION>"
REFERRING = "<REFERRING_EXPRESSION_SEGMENTATION>"

AGREE = 0.5
"""The overlap (IoU) from which two witnesses mean the same place."""
SAME_BOX = 0.8
"""The overlap (IoU) from which a mask of a box is the mask of another."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """A phrase with its regions, whose labels are the phrase."""

    phrase: Phrase
    regions: tuple[Region, ...]
    alone: bool
    """Whether the phrase can mean nothing else in the image."""
    parents: tuple[str, ...]
    """Rows of the regions."""


def grounding(*, ontology: Ontology | None = None, least: float = 0.5) -> Enhancer:
    """An enhancer that grounds every caption, and asks for the masks of phrases that mean one thing only.

    `ontology`: names that the built-in table lacks, and phrases never to be grounded beside those of
    `noun_phrases.BLACKLIST`. `least`: the score from which a region is kept. Adds
    <CAPTION_TO_PHRASE_GROUNDING> for each caption of which a phrase was placed, with text and query the caption, and
    <REFERRING_EXPRESSION_SEGMENTATION> for each phrase whose box has a mask.
    """
    names = names_of(ontology)
    banned = (ontology or Ontology()).is_blacklisted

    def enhance(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        things = find_things(candidates)
        captions: dict[str, Candidate] = {}
        for candidate in candidates:
            if candidate.annotation.task in CAPTIONS and candidate.annotation.text.strip():
                captions.setdefault(candidate.annotation.text, candidate)
        decisions: list[Decision] = []
        everything: list[Grounded] = []
        for text, caption in captions.items():
            phrases = [phrase for phrase in noun_phrases(text) if not banned(phrase.text)]
            own = _by_regions(match_phrases(text, phrases, things, sample.size, names), things)
            theirs = _by_models(text, candidates, banned)
            if any(is_human(c.annotation) for c in candidates if _grounds(c, text)):
                continue  # a person has grounded this caption
            grounded = [enough for one in combine(own, theirs) if (enough := _sure(one, least)).regions]
            everything += grounded
            if grounded:
                decisions.append(_grounding_of(caption, grounded, len(phrases)))
        return [*decisions, *_referring(everything, candidates)]

    return enhance


def combine(own: Sequence[Grounded], theirs: Sequence[Grounded]) -> list[Grounded]:
    """Phrases grounded by their words' match with the regions, and by models, as one list in the order of the text.

    A phrase that only one side places keeps its regions and scores. Where both place it (their spans overlap), regions
    that both support (IoU >= `AGREE`) stand where the labels have them, with the probability that one of two is right;
    of regions that one side alone supports only those of a plural stand, and of a singular without any support the
    surest.
    """
    combined: list[Grounded] = []
    used: set[int] = set()
    for one in own:
        others = [k for k, other in enumerate(theirs) if _overlap(one.phrase.span, other.phrase.span)]
        used.update(others)
        combined.append(_join(one, [theirs[k] for k in others]) if others else one)
    combined += [other for k, other in enumerate(theirs) if k not in used]
    return sorted(combined, key=lambda one: one.phrase.span)


def _join(one: Grounded, others: Sequence[Grounded]) -> Grounded:
    rest = [replace(region, label=one.phrase.text) for other in others for region in other.regions]
    both: list[Region] = []
    single: list[Region] = []
    for region in one.regions:
        index = best_overlap(region, rest, AGREE)
        if index is None:
            single.append(region)
        else:
            second = rest.pop(index)
            both.append(replace(region, score=1 - (1 - region_score(region)) * (1 - region_score(second))))
    single += [replace(region, span=one.phrase.span) for region in rest]
    if len(one.regions) > 1 or not both:
        kept = [*both, *single] if len(one.regions) > 1 else [max(single, key=region_score)]
    else:
        kept = both
    parents = tuple(dict.fromkeys((*one.parents, *(parent for other in others for parent in other.parents))))
    return Grounded(one.phrase, tuple(kept), one.alone and len(both) == len(kept) == 1, parents)


def _by_regions(matches: Iterable[Match], things: Sequence[Thing]) -> list[Grounded]:
    grounded = []
    for match in matches:
        phrase, meant = match.reading.phrase, [things[k] for k in match.things]
        regions = tuple(
            replace(
                thing.boxed, label=phrase.text, span=phrase.span, score=min(match.evidence, region_score(thing.region))
            )
            for thing in meant
        )
        parents = tuple(parent for thing in meant for parent in thing.parents)
        grounded.append(Grounded(phrase, regions, match.alone and match.reading.count == 1, parents))
    return grounded


def _grounds(candidate: Candidate, text: str) -> bool:
    return candidate.annotation.task == TASK and text in (candidate.annotation.query, candidate.annotation.text)


def _by_models(text: str, candidates: Sequence[Candidate], banned: Callable[[str], bool]) -> list[Grounded]:
    """The phrases of a caption as models have grounded it, those of the blacklist left out."""
    found: dict[tuple[int, int], Grounded] = {}
    for candidate in candidates:
        if not _grounds(candidate, text):
            continue
        for region in candidate.annotation.regions:
            span = region.span or _find(region.label, text)
            if span is None or banned(text[slice(*span)]):
                continue
            phrase = Phrase(text[slice(*span)], span, text[slice(*span)].split()[-1])
            box = Region.box(*region_box(region.parts).tolist(), label=phrase.text, score=region_score(region))
            before = found.get(span, Grounded(phrase, (), False, ()))
            if best_overlap(box, before.regions, AGREE) is None:
                before = replace(before, regions=(*before.regions, replace(box, span=span)))
            found[span] = replace(before, parents=(*before.parents, candidate.id))
    return [replace(one, alone=len(one.regions) == 1) for one in found.values()]


def _find(label: str, text: str) -> tuple[int, int] | None:
    start = text.lower().find(label.lower()) if label.strip() and len(text) == len(text.lower()) else -1
    return (start, start + len(label)) if start >= 0 else None


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return max(a[0], b[0]) < min(a[1], b[1])


def _sure(one: Grounded, least: float) -> Grounded:
    """Only the regions whose score reaches `least`."""
    kept = tuple(region for region in one.regions if region_score(region) >= least)
    return replace(one, regions=kept, alone=one.alone and len(kept) == 1)


def _grounding_of(caption: Candidate, grounded: Sequence[Grounded], phrases: int) -> Decision:
    regions = [region for one in grounded for region in one.regions]
    return addition(
        TASK,
        SOURCE,
        (caption.id, *(parent for one in grounded for parent in one.parents)),
        text=caption.annotation.text,
        regions=regions,
        query=caption.annotation.text,
        score=min(region_score(region) for region in regions),
        reason=f"{len(grounded)} of {max(phrases, len(grounded))} phrases found",
    )


def _referring(grounded: Sequence[Grounded], candidates: Sequence[Candidate]) -> list[Decision]:
    """The masks of the phrases that mean one thing, whichever caption they stand in; each phrase once."""
    masks = [c for c in candidates if c.annotation.task == MASKS and isinstance(c.annotation.query, Region)]
    boxes = [c.annotation.query for c in masks if isinstance(c.annotation.query, Region)]
    asked: dict[str, list[Grounded]] = {}
    for one in grounded:
        asked.setdefault(one.phrase.text.lower(), []).append(one)
    decisions = []
    for several in asked.values():
        first = several[0]
        same = all(best_overlap(first.regions[0], one.regions, SAME_BOX) is not None for one in several)
        index = best_overlap(first.regions[0], boxes, SAME_BOX)
        if index is None or not same or not all(one.alone for one in several) or not masks[index].annotation.regions:
            continue
        mask = masks[index].annotation
        score = min(region_score(first.regions[0]), *(region_score(region) for region in mask.regions))
        regions = [replace(region, label="", score=score) for region in mask.regions]
        parents = (masks[index].id, *first.parents)
        decisions.append(addition(REFERRING, SOURCE, parents, query=first.phrase.text, regions=regions, score=score))
    return decisions
