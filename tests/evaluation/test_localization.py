"""Matching, recall, grounding, described boxes and masks, on answers whose value is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from open_florence.evaluation.localization import (
    any_box_accuracy,
    box_recall,
    false_positive_rate,
    greedy_matches,
    grounding_accuracy,
    mask,
    mask_miou,
    mask_oiou,
    mask_overlaps,
    merged_box_accuracy,
    region_f1,
)
from open_florence.schema import Region


def box(x1, y1, x2, y2, label="", score=None):
    return Region.box(x1, y1, x2, y2, label=label, score=score)


def square(x, y, side, label=""):
    return Region("polygon", (((x, y), (x + side, y), (x + side, y + side), (x, y + side)),), label)


A, B = box(0, 0, 10, 10, "a"), box(50, 0, 60, 10, "b")


def test_greedy_matches_takes_the_best_pair_first_and_each_once():
    overlaps = np.array([[0.9, 0.8], [0.95, 0.0], [0.6, 0.6]])
    assert greedy_matches(overlaps) == [(1, 0), (0, 1)]
    assert greedy_matches(overlaps, 0.9) == [(1, 0)]
    assert greedy_matches(np.zeros((0, 3))) == []
    assert greedy_matches(np.zeros((3, 0))) == []


def test_the_threshold_itself_counts():
    half = box(0, 0, 10, 5)  # IoU with A is exactly .5
    assert box_recall([[A]], [[half]]).value == 1.0
    assert box_recall([[A]], [[half]], threshold=0.51).value == 0.0


def test_recall_is_one_to_one_and_label_blind():
    tally = box_recall([[A, B], [A]], [[box(0, 0, 10, 10), box(1, 0, 10, 10)], []])
    assert tally.hits.tolist() == [1, 0]
    assert tally.value == pytest.approx(1 / 3)
    assert tally.count == 3


def test_grounding_wants_the_right_label():
    assert grounding_accuracy([[A, B]], [[A, B]]).value == 1.0
    assert grounding_accuracy([[A]], [[box(0, 0, 10, 10, "b")]]).value == 0.0
    assert grounding_accuracy([[A, B], []], [[A], [B]]).value == 0.5


def test_guessing_more_does_not_help_grounding():
    wrong = box(80, 80, 90, 90, "a", score=0.9)
    right = box(0, 0, 10, 10, "a", score=0.5)
    assert grounding_accuracy([[A]], [[wrong, right]]).value == 0.0
    assert grounding_accuracy([[A]], [[box(80, 80, 90, 90, "a", score=0.1), right]]).value == 1.0
    two = [A, box(20, 20, 30, 30, "a")]
    assert grounding_accuracy([two], [[wrong, right]]).value == 0.5


def test_any_box_and_merged_box_differ_where_a_phrase_has_several():
    two = [box(0, 0, 10, 10, "dogs"), box(10, 0, 20, 10, "dogs")]
    one, both = box(0, 0, 10, 10, "dogs", score=0.9), box(0, 0, 20, 10, "dogs", score=0.9)
    assert any_box_accuracy([two], [[one]]).value == 1.0
    assert merged_box_accuracy([two], [[one]]).value == 1.0  # half of the merged box: exactly .5
    assert merged_box_accuracy([two], [[box(0, 0, 9, 10, "dogs")]]).value == 0.0
    assert merged_box_accuracy([two], [[both]]).value == 1.0
    assert any_box_accuracy([two], [[both]], threshold=0.6).value == 0.0
    assert any_box_accuracy([two], [[one]]).count == 1  # phrases, not boxes


def test_only_the_best_k_answers_count():
    wrong, right = box(80, 80, 90, 90, "a", score=0.9), box(0, 0, 10, 10, "a", score=0.5)
    assert any_box_accuracy([[A]], [[right, wrong]]).value == 0.0
    assert any_box_accuracy([[A]], [[right, wrong]], k=2).value == 1.0
    assert any_box_accuracy([[A]], [[box(0, 0, 10, 10, "b")]]).value == 0.0
    assert any_box_accuracy([[A], []], [[], [A]]).value == 0.0
    assert math.isnan(any_box_accuracy([[]], [[A]]).value)


def test_the_same_words_at_two_places_are_two_phrases():
    first, second = replace(A, span=(0, 5)), replace(box(50, 0, 60, 10, "a"), span=(10, 15))
    swapped = [replace(first, span=second.span), replace(second, span=first.span)]
    assert any_box_accuracy([[first, second]], [[first, second]]).value == 1.0
    assert any_box_accuracy([[first, second]], [swapped]).value == 0.0
    assert any_box_accuracy([[first, second]], [[A]]).value == 0.5  # an answer without a span is offered to both
    assert any_box_accuracy([[first, second]], [[]]).count == 2


def test_false_positives_count_questions():
    tally = false_positive_rate([[], [A, B], [A], []])
    assert tally.value == 0.5
    assert tally.count == 4


def test_f1_wants_label_and_place():
    assert region_f1([[A, B]], [[A, B]]).value == 1.0
    assert region_f1([[A]], [[box(0, 0, 10, 10, "b")]]).value == 0.0
    assert region_f1([[A, B]], [[A]]).value == pytest.approx(2 / 3)
    assert region_f1([[A]], [[A, A, A]]).value == pytest.approx(2 / 4)
    assert region_f1([[A, B]], [[A]]).count == 2
    assert region_f1([[]], [[A]]).value == 0.0
    assert math.isnan(region_f1([[]], [[]]).value)


def test_a_wrong_label_does_not_take_the_place_of_a_right_one():
    wrong, right = box(0, 0, 10, 10, "b"), box(0, 0, 10, 8, "a")
    assert region_f1([[A]], [[wrong, right]]).hits.tolist() == [2.0]


SIZE = (40.0, 30.0)


def test_masks_are_filled_polygons_boxes_included():
    filled = mask([square(5, 5, 10)], SIZE)
    assert filled.shape == (30, 40)
    assert abs(filled.sum() - 100) <= 21  # the drawn outline belongs to it
    assert (mask([box(5, 5, 15, 15)], SIZE) == filled).all()
    assert not mask([], SIZE).any()
    both = mask([square(5, 5, 4), square(20, 20, 4)], SIZE)
    assert both[7, 7]
    assert both[22, 22]


def test_miou_and_oiou():
    small, large = square(0, 0, 5), square(0, 0, 20)
    overlaps = mask_overlaps([[small], [large]], [[small], []], [SIZE, SIZE])
    assert mask_miou(overlaps).value == 0.5
    overall = mask_oiou(overlaps)
    areas = [mask([small], SIZE).sum(), mask([large], SIZE).sum()]
    assert overall.value == pytest.approx(areas[0] / sum(areas))
    assert overall.count == 2
    assert mask_miou(mask_overlaps([[]], [[]], [SIZE])).value == 1.0
    assert mask_miou(mask_overlaps([[]], [[small]], [SIZE])).value == 0.0
    assert math.isnan(mask_miou(mask_overlaps([], [], [])).value)


def test_a_mask_in_pieces_is_one_mask():
    pieces = Region("polygon", square(0, 0, 5).parts + square(20, 20, 5).parts)
    overlaps = mask_overlaps([[pieces]], [[square(0, 0, 5), square(20, 20, 5)]], [SIZE])
    assert mask_miou(overlaps).value == 1.0
