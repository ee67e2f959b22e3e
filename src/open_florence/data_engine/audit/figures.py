"""How right labels are, against what people say of the same images: by task, class and source.

A region is right when its label is that of a true region which it covers at IoU .5 or more, one to one, best pairs
first. Classes and what was read are compared as they are written, other words without case. Of a text counts whether
it is a true one word for word, and how far it agrees with the one it is nearest to: what was read by 1 - character
error rate, captions by the F1 of the words of their noun phrases, any other only when it is exact.

An image is judged in the tasks a person answered there. In tasks that take a query only the queries that both
answered are: words that are the same, regions that overlap by .5. A source is judged on the images it answered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from open_florence.data.ignored import IGNORED, ignored_regions
from open_florence.data_engine.audit.report import AuditReport, Counts, RegionRow, TextCounts, TextRow
from open_florence.data_engine.review.item import CLASS_TASKS
from open_florence.evaluation.detection import boxes_of
from open_florence.evaluation.intervals import Array
from open_florence.evaluation.localization import greedy_matches
from open_florence.evaluation.text import NUMBERS, attribute_f1, character_error_rate, exact_match, normalize
from open_florence.geometry import box_area, iou
from open_florence.noun_phrases import is_determiner, noun_phrases
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import overlap
from open_florence.tasks import TASKS, TextGrammar

IOU = 0.5
AS_WRITTEN = CLASS_TASKS | {"<OCR_WITH_REGION>"}
"""Tasks whose labels are compared as they are written."""
READING = {"<OCR>", "<REGION_TO_OCR>"}
DESCRIBING = {"<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<REGION_TO_DESCRIPTION>"}


@dataclass(frozen=True, slots=True)
class _Question:
    """One question about an image, and what was answered."""

    true: tuple[Annotation, ...]
    found: tuple[Annotation, ...]


def audit(labels: Iterable[Sample], truth: Sequence[Sample], tasks: Collection[str] | None = None) -> AuditReport:
    """The figures of labels on the images of `truth`; other images are passed over, and one without labels has none.

    `tasks`: only these; None judges all that a person answered. Of several human answers with regions to one question
    the last is the truth; of several texts any. Regions in places that are marked as not to be judged count neither
    way, unless they are right.
    """
    wanted = {sample.id: sample for sample in truth}
    said: dict[str, list[Annotation]] = defaultdict(list)
    for sample in labels:
        if sample.id in wanted:
            said[sample.id] += sample.annotations
    regions: dict[tuple[str, str, str], dict[str, Counts]] = defaultdict(dict)
    texts: dict[tuple[str, str], dict[str, TextCounts]] = defaultdict(dict)
    for image, sample in wanted.items():
        answered = dict.fromkeys(a.task for a in sample.annotations if a.task != IGNORED)
        for task in answered if tasks is None else [task for task in answered if task in tasks]:
            true = [a for a in sample.annotations if a.task == task]
            found = [a for a in said[image] if a.task == task]
            ignored = ignored_regions(sample.annotations, task)
            for source in ["", *sorted({a.source for a in found})]:
                questions = list(_questions(true, [a for a in found if source in ("", a.source)]))
                if _is_text(task):
                    if questions:
                        texts[task, source][image] = _text_counts(task, questions)
                    continue
                for name, counts in _region_counts(task, questions, ignored).items():
                    if name == "" or not source:
                        regions[task, name, source][image] = counts
    return AuditReport(
        tuple(sorted(wanted)),
        tuple(RegionRow(*key, images) for key, images in sorted(regions.items())),
        tuple(TextRow(*key, images) for key, images in sorted(texts.items())),
    )


def _is_text(task: str) -> bool:
    return task not in TASKS or isinstance(TASKS[task].grammar, TextGrammar)


def _questions(true: Sequence[Annotation], found: Sequence[Annotation]) -> Iterable[_Question]:
    """The questions of one task about one image that are judged: that without a query, and those both answered."""
    asked: dict[str | Region | None, list[Annotation]] = defaultdict(list)
    for annotation in true:
        asked[_key(annotation.query)].append(annotation)
    answers: dict[str | Region | None, list[Annotation]] = defaultdict(list)
    for annotation in found:
        answers[_key(annotation.query)].append(annotation)
    for query in [query for query in asked if not isinstance(query, Region)]:
        if query is None or query in answers:
            yield _Question(tuple(asked[query]), tuple(answers.get(query, ())))
    places, others = ([query for query in side if isinstance(query, Region)] for side in (asked, answers))
    for row, column in greedy_matches(iou(boxes_of(places), boxes_of(others)), IOU):
        yield _Question(tuple(asked[places[row]]), tuple(answers[others[column]]))


def _key(query: str | Region | None) -> str | Region | None:
    """A query by which two are compared: words without case, a region as its place alone."""
    if isinstance(query, Region):
        return Region(query.kind, query.parts)
    return None if query is None else normalize(query)


def _region_counts(task: str, questions: Iterable[_Question], ignored: Sequence[Region]) -> dict[str, Counts]:
    """Class -> counts in one image, "" -> those of all classes; other tasks than those of classes have only these."""
    right, founds, trues = Counter[str](), Counter[str](), Counter[str]()
    shared: dict[str, float] = defaultdict(float)

    def names(region: Region) -> set[str]:
        return {"", region.label if task in CLASS_TASKS else ""}

    for question in questions:
        true = question.true[-1].regions
        found = [region for answer in question.found for region in answer.regions]
        overlaps = _overlaps(task, true, found)
        pairs = greedy_matches(overlaps, IOU)
        taken = {column for _, column in pairs}
        for row, column in pairs:
            for name in names(true[row]):
                right[name] += 1
                shared[name] += float(overlaps[row, column])
        for region in true:
            trues.update(names(region))
        for column, region in enumerate(found):
            if column in taken or not _lies_in(region, ignored, task):
                founds.update(names(region))
    return {name: Counts(right[name], founds[name], trues[name], shared[name]) for name in {"", *trues, *founds}}


def _overlaps(task: str, true: Sequence[Region], found: Sequence[Region]) -> Array:
    """IoU (N, M) of true and found regions with the same label, -1 for others."""
    overlaps = iou(boxes_of(true), boxes_of(found))
    labels = [np.array([_label(task, region) for region in regions], dtype=object) for regions in (true, found)]
    overlaps[labels[0][:, None] != labels[1][None]] = -1.0
    for row, column in np.argwhere(overlaps > 0):
        a, b = true[row], found[column]
        if not a.kind == b.kind == "box":
            overlaps[row, column] = overlap(a, b)
    return overlaps


def _label(task: str, region: Region) -> str:
    return region.label.strip() if task in AS_WRITTEN else normalize(region.label)


def _lies_in(region: Region, ignored: Sequence[Region], task: str) -> bool:
    """Whether more than half of the region's box lies in a place that is not judged, of its own class if it has one."""
    places = [other for other in ignored if task not in CLASS_TASKS or other.label in ("", region.label)]
    boxes, others = boxes_of([region]), boxes_of(places)
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    shared = box_area(np.concatenate([low, high], axis=1))
    return bool((shared > box_area(boxes) / 2).any())


def _text_counts(task: str, questions: Sequence[_Question]) -> TextCounts:
    """Of several answers to one question each counts in equal parts; where there is none it is nothing."""
    exact, agreement = 0.0, 0.0
    for question in questions:
        references = [answer.text for answer in question.true]
        for answer in question.found:
            exact += exact_match([references], [answer.text]).value / len(question.found)
            agreement += max(_agreement(task, text, answer.text) for text in references) / len(question.found)
    return TextCounts(exact, agreement, len(questions))


def _agreement(task: str, true: str, found: str) -> float:
    if task in READING:
        rate = character_error_rate([true], [found]).value if true else float(bool(found))
        return max(0.0, 1.0 - rate)
    if task in DESCRIBING:
        return attribute_f1([true], [found], _words(true) | _words(found)).value
    return exact_match([true], [found]).value


def _words(text: str) -> set[str]:
    """The words of the noun phrases, articles and the like left out, numbers not."""
    words = {word for phrase in noun_phrases(text) for word in normalize(phrase.text).split()}
    return {word for word in words if word in NUMBERS or not is_determiner(word)}
