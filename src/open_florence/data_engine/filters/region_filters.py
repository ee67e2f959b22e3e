"""Filters that look at regions: each is a function of options that makes a `Filter`.

What people drew is judged by `degenerate`, `ontology` and `near_duplicate` alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.filters.thresholds import DEFAULT
from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.partition import (
    CLASS_TASKS,
    Filter,
    by_region,
    class_labels,
    drop,
    flat,
    keep,
    partition,
)
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_area, iou, polygon_area, region_box
from open_florence.noun_phrases import BLACKLIST, is_blacklisted
from open_florence.schema import Region, Sample
from open_florence.selection import overlap, region_score

GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>"


def score(thresholds: Mapping[str, float] | float = DEFAULT, ontology: Ontology | None = None) -> Filter:
    """Regions under the least score of their class go.

    `thresholds` is one for all, or class -> least score with "default" for the others; a class that it does not name
    has the ontology's threshold if there is one. A source that gives no scores is sure.
    """
    given = {"default": float(thresholds)} if isinstance(thresholds, int | float) else dict(thresholds)
    least = {**(ontology.thresholds if ontology else {}), **given}
    for name, value in least.items():
        _check_share(f"score: the threshold of {name}", value)
    default = least.get("default", DEFAULT)

    def judge(sample: Sample, region: Region) -> str:
        wanted, found = least.get(region.label, default), region_score(region)
        of = f" for {region.label}" if region.label in least else ""
        return f"score: {found:.2f} under {wanted:g}{of}" if not found >= wanted else ""

    return _spare_people(by_region(judge))


def whole_image(share: float = 0.95) -> Filter:
    """Regions whose box covers more than a share of the image go: they say that something is there, not where."""
    _check_share("whole_image: share", share)

    def judge(sample: Sample, region: Region) -> str:
        covered = _area(region_box(region.parts)) / math.prod(sample.size)
        return f"whole image: covers {covered:.0%} of the image, more than {share:.0%}" if covered > share else ""

    return _spare_people(by_region(judge))


def tiny(pixels: float = 4, share: float = 0.0) -> Filter:
    """Regions go of which a side is under `pixels`, or whose box is under a `share` of the image."""
    _check_share("tiny: share", share)
    if not isinstance(pixels, int | float) or not pixels >= 0:
        raise OpenFlorenceError(f"tiny: pixels is a length of 0 or more, not {pixels!r}")

    def judge(sample: Sample, region: Region) -> str:
        box = region_box(region.parts)
        sides = box[len(box) // 2 :] - box[: len(box) // 2]
        if sides.min() < pixels:
            return f"tiny: {' x '.join(f'{side:.1f}' for side in sides)}, a side under {pixels:g}"
        covered = _area(box) / math.prod(sample.size)
        return f"tiny: covers {covered:.4%} of the image, under {share:.4%}" if covered < share else ""

    return _spare_people(by_region(judge))


def degenerate(outside: float = 0.1) -> Filter:
    """Regions go that are no regions: numbers that are none, no area, corners the wrong way round, off the image.

    A box may reach over the edge by up to a share `outside` of its area.
    """
    _check_share("degenerate: outside", outside)

    def judge(sample: Sample, region: Region) -> str:
        numbers = np.array([value for part in region.parts for point in part for value in point])
        if not numbers.size or not np.isfinite(numbers).all():
            return "degenerate: coordinates that are no numbers"
        if any(len(point) != len(sample.size) for part in region.parts for point in part):
            return f"degenerate: points that have not {len(sample.size)} coordinates"
        raw = np.array(region.parts[0]).ravel() if region.kind == "box" else region_box(region.parts)
        area = _area(raw)
        if region.kind != "box" and len(sample.size) == 2:
            enclosed = sum(polygon_area(part) for part in region.parts)
        else:
            enclosed = area
        if not enclosed > 0:
            return "degenerate: no area"
        beyond = 1 - _area(np.clip(raw, 0, np.tile(sample.size, 2))) / area
        return f"degenerate: {beyond:.0%} of its box lies off the image" if beyond > outside else ""

    return by_region(judge)


def nms(threshold: float = 0.6) -> Filter:
    """Of regions of one source, task, query and class that overlap by more than an IoU, the best score stays."""
    _check_share("nms: threshold", threshold)

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        reasons = {c.id: [""] * len(c.annotation.regions) for c in candidates}
        for places in _groups(candidates).values():
            regions = [region for _, _, region in places]
            boxes = np.array([region_box(region.parts) for region in regions])
            overlaps = iou(boxes, boxes)  # (N, N)
            kept: list[int] = []
            for index in _best_first(places):
                for other in [k for k in kept if overlaps[index, k] > 0]:
                    shared = overlap(regions[index], regions[other])
                    if shared > threshold:
                        name, at, region = places[index]
                        reasons[name][at] = (
                            f"overlap: IoU {shared:.2f} with a better {region.label or 'one'}"
                            f" (score {region_score(regions[other]):.2f}), more than {threshold:g}"
                        )
                        break
                else:
                    kept.append(index)
        return [decision for c in candidates for decision in partition(c, reasons[c.id])]

    return _spare_people(apply)


def too_many(most: int = 100) -> Filter:
    """Of the regions of one source and task in an image, those with the best scores stay, at most `most`."""
    if most < 1:
        raise OpenFlorenceError(f"too_many: most is 1 or more, not {most}")

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        reasons = {c.id: [""] * len(c.annotation.regions) for c in candidates}
        for places in _groups(candidates, by_label=False).values():
            for index in _best_first(places)[most:]:
                name, at, _ = places[index]
                reasons[name][at] = f"too many: {len(places)} regions, more than {most}"
        return [decision for c in candidates for decision in partition(c, reasons[c.id])]

    return _spare_people(apply)


def inside_ontology(ontology: Ontology) -> Filter:
    """Labels become the names of their classes; those outside the ontology are kept aside."""

    def reason(label: str) -> str:
        return "" if not label or ontology.name_of(label) is not None else f"outside the ontology: {label}"

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        decisions: list[Decision] = []
        for candidate in candidates:
            annotation = candidate.annotation
            labels = class_labels(annotation)
            if annotation.task not in CLASS_TASKS or not labels:
                decisions.append(keep(candidate))
            elif not annotation.regions:
                why = reason(labels[0])
                renamed = Candidate(candidate.id, ontology.apply(annotation))
                decisions.append(drop(candidate, why) if why else keep(renamed))
            else:
                decisions += (_renamed(d, ontology) for d in partition(candidate, [reason(label) for label in labels]))
        return decisions

    return apply


def phrase_boxes(
    box: float = 0.3, phrase: float = 0.25, blacklist: Collection[str] = (), ontology: Ontology | None = None
) -> Filter:
    """Boxes of a caption's phrases go whose score (`box`) or label score (`phrase`) is under the least.

    So do those of phrases that name nothing: the blacklists given here, of the ontology, and of `noun_phrases`.
    """
    _check_share("phrase_boxes: box", box)
    _check_share("phrase_boxes: phrase", phrase)
    banned = BLACKLIST | {words.lower() for words in (*blacklist, *(ontology.blacklist if ontology else ()))}

    def reason(region: Region, words: str) -> str:
        if is_blacklisted(words, banned):
            return f"phrase blacklist: {words!r} names nothing to draw a box around"
        if region.score is not None and not region.score >= box:
            return f"phrase box: score {region.score:.2f} under {box:g} for {words!r}"
        if region.label_score is not None and not region.label_score >= phrase:
            return f"phrase box: phrase score {region.label_score:.2f} under {phrase:g} for {words!r}"
        return ""

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        decisions: list[Decision] = []
        for c in candidates:
            said = c.annotation
            if said.task != GROUNDING:
                decisions.append(keep(c))
                continue
            words = [said.text[slice(*r.span)] if r.span is not None else r.label for r in said.regions]
            reasons = [reason(region, its) for region, its in zip(said.regions, words, strict=True)]
            decisions += partition(c, reasons)
        return decisions

    return _spare_people(apply)


def near_duplicate(ids: Collection[str]) -> Filter:
    """Everything about an image goes whose id is among `ids`: near-duplicates of another image."""

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        twin = sample.id in ids
        return [drop(c, "near duplicate: the image repeats another one") if twin else keep(c) for c in candidates]

    return apply


def _spare_people(judge: Filter) -> Filter:
    """The filter, without a say about what a person drew or wrote."""

    def apply(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        people = [keep(c) for c in candidates if is_human(c.annotation)]
        return people + judge(sample, [c for c in candidates if not is_human(c.annotation)])

    return apply


def _groups(candidates: Sequence[Candidate], by_label: bool = True) -> dict[Hashable, list[tuple[str, int, Region]]]:
    """Regions that compete, each with its candidate's id and its place there: of one source, task, query and label."""
    groups: dict[Hashable, list[tuple[str, int, Region]]] = defaultdict(list)
    for c in candidates:
        said = c.annotation
        for at, region in enumerate(said.regions):
            label = (region.label, region.span) if by_label else None
            groups[said.source, said.task, said.query, label].append((c.id, at, region))
    return groups


def _best_first(places: Sequence[tuple[str, int, Region]]) -> list[int]:
    """Indices by score; of equal ones by what they are, so that the order of the candidates does not matter."""
    keys = flat(region for _, _, region in places)
    return sorted(range(len(places)), key=lambda i: (-region_score(places[i][2]), keys[i], places[i][0], places[i][1]))


def _renamed(decision: Decision, ontology: Ontology) -> Decision:
    if decision.status == "dropped":
        return decision
    return Decision(ontology.apply(decision.annotation), "kept", "", decision.parents)


def _area(box: np.ndarray) -> float:
    return float(box_area(box[None])[0])


def _check_share(what: str, value: float) -> None:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise OpenFlorenceError(f"{what} lies between 0 and 1, not at {value!r}")
