"""Measuring: `evaluate` gives the table of a model on a data set; the metrics are plain functions too.

`METRICS` is the table task -> metric; `scenes.SCENE_METRICS` adds what only a scene's own truth can tell.
"""

from open_florence.evaluation.cider import cider
from open_florence.evaluation.detection import Detection, detection_ap
from open_florence.evaluation.embedding import evaluate_retrieval, evaluate_zero_shot
from open_florence.evaluation.evaluate import evaluate
from open_florence.evaluation.intervals import Tally, bootstrap_interval
from open_florence.evaluation.localization import (
    any_box_accuracy,
    box_recall,
    false_positive_rate,
    grounding_accuracy,
    mask_miou,
    mask_oiou,
    mask_overlaps,
    merged_box_accuracy,
    region_f1,
)
from open_florence.evaluation.metrics import METRICS, Answers
from open_florence.evaluation.ocr import ocr_end_to_end, ocr_recall, polygon_iou
from open_florence.evaluation.report import ClassRow, Report, Row
from open_florence.evaluation.retrieval import retrieval_recall
from open_florence.evaluation.text import (
    attribute_f1,
    character_error_rate,
    exact_match,
    top_k_accuracy,
    word_accuracy,
    word_recall,
)
from open_florence.evaluation.vqa import normalize_answer, vqa_accuracy

__all__ = [
    "METRICS",
    "Answers",
    "ClassRow",
    "Detection",
    "Report",
    "Row",
    "Tally",
    "any_box_accuracy",
    "attribute_f1",
    "bootstrap_interval",
    "box_recall",
    "character_error_rate",
    "cider",
    "detection_ap",
    "evaluate",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "exact_match",
    "false_positive_rate",
    "grounding_accuracy",
    "mask_miou",
    "mask_oiou",
    "mask_overlaps",
    "merged_box_accuracy",
    "normalize_answer",
    "ocr_end_to_end",
    "ocr_recall",
    "polygon_iou",
    "region_f1",
    "retrieval_recall",
    "top_k_accuracy",
    "vqa_accuracy",
    "word_accuracy",
    "word_recall",
]
