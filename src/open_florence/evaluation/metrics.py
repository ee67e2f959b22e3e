"""`METRICS`: how the answers of each task are judged, on any data. One row a task; add rows for tasks of your own.

`METRICS["<COUNT>"] = exact("count", "how many")` is all that a task with an exact answer needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from open_florence.evaluation.calibration import ece_rows
from open_florence.evaluation.cider import cider
from open_florence.evaluation.detection import Detection, detection_ap, strangers
from open_florence.evaluation.intervals import Array, Tally
from open_florence.evaluation.localization import (
    any_box_accuracy,
    box_recall,
    false_positive_rate,
    grounding_accuracy,
    mask_miou,
    mask_oiou,
    mask_overlaps,
    region_f1,
)
from open_florence.evaluation.ocr import ocr_end_to_end, ocr_recall
from open_florence.evaluation.report import ClassRow, Row
from open_florence.evaluation.text import (
    character_error_rate,
    exact_match,
    normalize,
    top_k_accuracy,
    word_accuracy,
    word_recall,
)
from open_florence.evaluation.vqa import vqa_accuracy
from open_florence.schema import Annotation, Region, Size

if TYPE_CHECKING:
    from open_florence.scenes import Scene


MANY = 5
"""The k of classification's second row, where there are more labels than that to choose from."""


@dataclass
class Answers:
    """Everything that was asked with one task, in one order."""

    truth: list[Annotation] = field(default_factory=list)
    found: list[Annotation] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    """Which image each is about, counted from 0."""
    sizes: list[Size] = field(default_factory=list)
    """That image's (width, height) in pixels."""
    scenes: list[Scene | None] = field(default_factory=list)
    """The scene it is an image of; None for other data."""
    others: list[tuple[Annotation, ...]] = field(default_factory=list)
    """Further true answers to each: captions and answers of other people. Only metrics of words read them."""
    ranked: list[tuple[str, ...]] = field(default_factory=list)
    """The labels that classification chose from, likeliest first; only the answer's own where they were not ranked."""
    ignored: list[tuple[Region, ...]] = field(default_factory=list)
    """Where each answer is not judged: crowds, text that nobody can read."""

    def add(
        self,
        truth: Annotation,
        found: Annotation,
        image: int,
        size: Size,
        scene: Scene | None = None,
        others: Sequence[Annotation] = (),
        ranked: Sequence[str] = (),
        ignored: Sequence[Region] = (),
    ) -> None:
        """One more question and its answer."""
        self.truth.append(truth)
        self.found.append(found)
        self.images.append(image)
        self.sizes.append(size)
        self.scenes.append(scene)
        self.others.append(tuple(others))
        self.ranked.append(tuple(ranked) or (found.text,))
        self.ignored.append(tuple(ignored))

    def pick(self, indices: Iterable[int]) -> Answers:
        """Only some of the questions."""
        picked = Answers()
        for i in indices:
            picked.add(
                self.truth[i],
                self.found[i],
                self.images[i],
                self.sizes[i],
                self.scenes[i],
                self.others[i],
                self.ranked[i],
                self.ignored[i],
            )
        return picked

    def row(self, key: str, name: str, tally: Tally, note: str = "") -> Row:
        """A tally with one entry for each of these answers as a row, its interval beside it."""
        return Row(key, name, tally.value, tally.count, tally.interval(self.images), note)

    @cached_property
    def detections(self) -> dict[bool, dict[str, Detection]]:
        """`detection_ap` with scores (True) and without (False); read it when all answers are in."""
        return {scored: detection_ap(*self.regions, self.ignored, scored=scored) for scored in (True, False)}

    @cached_property
    def overlaps(self) -> Array:
        """`mask_overlaps` (N, 2); read it when all answers are in."""
        return mask_overlaps(*self.regions, self.sizes)

    @property
    def regions(self) -> tuple[list[tuple[Region, ...]], list[tuple[Region, ...]]]:
        """(true, found) regions of each answer."""
        return [a.regions for a in self.truth], [a.regions for a in self.found]

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        """(true, found) text of each answer."""
        return [a.text for a in self.truth], [a.text for a in self.found]

    @property
    def references(self) -> list[list[str]]:
        """All true texts of each answer."""
        return [[a.text for a in (truth, *others)] for truth, others in zip(self.truth, self.others, strict=True)]


Metric = Callable[[Answers], list[Row]]


def exact(key: str, name: str) -> Metric:
    """The part of the answers that are word for word a true one."""
    return lambda answers: [answers.row(key, name, exact_match(answers.references, answers.texts[1]))]


def captions(key: str, name: str) -> Metric:
    """CIDEr against all captions that people wrote, and the part that is word for word one of them."""

    def judge(answers: Answers) -> list[Row]:
        references = answers.references
        mean = sum(map(len, references)) / max(len(references), 1)
        tally = cider(references, answers.texts[1])
        return [
            answers.row(f"{key}_cider", f"{name}, CIDEr", tally, f"{mean:.1f} references each; papers print it x 100"),
            *exact(key, f"{name}, exact")(answers),
        ]

    return judge


def question_answering(answers: Answers) -> list[Row]:
    """VQA's accuracy: agreement with ten people, or with any of fewer."""
    tally = vqa_accuracy(answers.references, answers.texts[1])
    return [answers.row("vqa", "question answering, VQA accuracy", tally)]


def classification(answers: Answers) -> list[Row]:
    """Top-1, and top-5 over the questions with more than five labels whose labels were all ranked."""
    rows = [answers.row("classification", "classification, top-1", top_k_accuracy(answers.references, answers.ranked))]
    many = answers.pick(i for i, labels in enumerate(answers.ranked) if len(labels) > MANY)
    if many.truth:
        tally = top_k_accuracy(many.references, many.ranked, MANY)
        rows.append(many.row(f"classification_top{MANY}", f"classification, top-{MANY}", tally))
    return rows


def detection(answers: Answers) -> list[Row]:
    """Mean over classes of AP, AP50, AP75, AP90 and AR; AP50, 75 and 90 without scores; labels of no class; ECE."""
    scored, unscored = (answers.detections[scored][""] for scored in (True, False))
    rows = [_detection_row(name, scored, "score x label score") for name in ("AP50", "AP75", "AP90", "AP", "AR")]
    rows += [_detection_row(name, unscored, "every score 1.0", "_no_scores") for name in ("AP50", "AP75", "AP90")]
    foreign, total = strangers(*answers.regions)
    if foreign:
        rows.append(Row("od_foreign_labels", "detection, labels of no class", foreign / total, total))
    return rows + ece_rows("od", "detection", answers)


def _detection_row(name: str, found: Detection, note: str, ending: str = "") -> Row:
    title = f"detection {name}" + (" without scores" if ending else "")
    return Row(f"od_{name.lower()}{ending}", title, found.values[name], found.count, found.intervals.get(name), note)


def class_rows(answers: Answers) -> tuple[ClassRow, ...]:
    """Detection per class, with and without scores: first the mean of all classes, then each, most frequent first."""
    scored, unscored = (answers.detections[scored] for scored in (True, False))
    return tuple(
        ClassRow(
            label or "all",
            scored[label].count,
            scored[label].values,
            unscored[label].values,
            scored[label].intervals,
            unscored[label].intervals,
        )
        for label in sorted(scored, key=lambda label: -scored[label].count)
    )


def dense_captions(answers: Answers) -> list[Row]:
    """F1 of boxes with the right description in the right place."""
    return [answers.row("dense_f1", "dense captions F1@.5", region_f1(*answers.regions), "description exact")]


def proposals(answers: Answers) -> list[Row]:
    """Recall of the boxes, and how many were proposed."""
    proposed = sum(len(regions) for regions in answers.regions[1]) / max(len(answers.found), 1)
    tally = box_recall(*answers.regions)
    return [answers.row("proposal_recall", "region proposals recall@.5", tally, f"{proposed:.1f} boxes an image")]


def grounding(answers: Answers) -> list[Row]:
    """Accuracy over the true regions of the phrases, and over the phrases (R@1, any box; referring expressions too)."""
    true = answers.regions[0]
    found = [_of_one_phrase(t, f) for t, f in zip(answers.truth, answers.found, strict=True)]
    return [
        answers.row("grounding", "phrase grounding@.5", grounding_accuracy(true, found)),
        answers.row("grounding_r1", "phrase grounding and referring R@1", any_box_accuracy(true, found), "any box"),
    ]


def _of_one_phrase(truth: Annotation, found: Annotation) -> tuple[Region, ...]:
    """The found regions; all of them under the one true phrase where that is the whole query: a referring expression
    asks for one place, and the model may repeat only some of its words."""
    phrases = {region.label for region in truth.regions}
    if len(phrases) != 1 or not isinstance(truth.query, str):
        return found.regions
    (phrase,) = phrases
    if normalize(phrase) != normalize(truth.query):
        return found.regions
    return tuple(replace(region, label=phrase, span=None) for region in found.regions)


def open_vocabulary(answers: Answers) -> list[Row]:
    """Accuracy where the thing is there, false positives where it is not."""
    there = [bool(annotation.regions) for annotation in answers.truth]
    present = answers.pick(i for i, found in enumerate(there) if found)
    absent = answers.pick(i for i, found in enumerate(there) if not found)
    tally = grounding_accuracy(*present.regions)
    rows = [present.row("ovd", "open-vocabulary detection@.5", tally, "present names")]
    if absent.truth:
        wrong = false_positive_rate(absent.regions[1])
        rows.append(absent.row("ovd_false_positives", "false positives, absent names", wrong, "lower is better"))
    return rows


def masks(key: str, name: str) -> Metric:
    """mIoU and oIoU of masks."""

    def judge(answers: Answers) -> list[Row]:
        overlaps = answers.overlaps
        return [
            answers.row(f"{key}_miou", f"{name} mIoU", mask_miou(overlaps)),
            answers.row(f"{key}_oiou", f"{name} oIoU", mask_oiou(overlaps)),
        ]

    return judge


def reading(key: str, name: str) -> Metric:
    """Word recall, word accuracy and character error rate of texts read off an image."""

    def judge(answers: Answers) -> list[Row]:
        true, found = answers.texts
        words = word_recall([text.split() for text in true], found)
        errors = character_error_rate(true, found)
        return [
            answers.row(f"{key}_words", f"{name}, word recall", words),
            answers.row(f"{key}_word_accuracy", f"{name}, word accuracy", word_accuracy(true, found)),
            answers.row(f"{key}_cer", f"{name}, character error rate", errors, "lower is better"),
        ]

    return judge


def ocr_regions(answers: Answers) -> list[Row]:
    """Place alone, and place with the right words (end-to-end F1)."""
    true, found = answers.regions
    return [
        answers.row("ocr_box", "OCR with region, place@.5", ocr_recall(true, found)),
        answers.row(
            "ocr_f1", "OCR with region, end-to-end F1@.5", ocr_end_to_end(true, found, answers.ignored), "case counts"
        ),
    ]


METRICS: dict[str, Metric] = {
    "<OD>": detection,
    "<DENSE_REGION_CAPTION>": dense_captions,
    "<REGION_PROPOSAL>": proposals,
    "<CAPTION_TO_PHRASE_GROUNDING>": grounding,
    "<OPEN_VOCABULARY_DETECTION>": open_vocabulary,
    "<REFERRING_EXPRESSION_SEGMENTATION>": masks("res", "referring segmentation"),
    "<REGION_TO_SEGMENTATION>": masks("r2s", "region to segmentation"),
    "<REGION_TO_CATEGORY>": exact("region_category", "region to category, exact"),
    "<REGION_TO_DESCRIPTION>": captions("region_description", "region to description"),
    "<CAPTION>": captions("caption", "caption"),
    "<DETAILED_CAPTION>": captions("detailed_caption", "detailed caption"),
    "<MORE_DETAILED_CAPTION>": captions("more_detailed_caption", "more detailed caption"),
    "<OCR>": reading("ocr", "OCR"),
    "<OCR_WITH_REGION>": ocr_regions,
    "<REGION_TO_OCR>": reading("region_ocr", "region to OCR"),
    "<VQA>": question_answering,
    "<CLASSIFICATION>": classification,
}
"""Task -> its rows of the table, in the table's order."""
