"""Text metrics on strings whose value is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.evaluation.text import (
    attribute_f1,
    attributes,
    character_error_rate,
    edit_distance,
    exact_match,
    normalize,
    top_k_accuracy,
    word_accuracy,
    word_recall,
)

VOCABULARY = ("red", "blue", "light blue", "circle", "cross", "square", "two")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red  Circle.", "a red circle"),  # case, spaces, full stop
        (" a red circle ", "a red circle"),
        ("3.5", "3.5"),  # a point inside stays
        ("", ""),
        (".", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected


def test_exact_match():
    assert exact_match(["a dog", "a cat"], ["A dog.", "a cow"]).value == 0.5
    assert math.isnan(exact_match([], []).value)


def test_any_of_several_true_texts_is_exact():
    assert exact_match([["a dog", "The dog."], ["a cat"]], ["the dog", "the cat"]).hits.tolist() == [1, 0]
    assert exact_match([[]], [""]).value == 0.0


def test_top_k():
    ranked = [["cat", "dog", "cow"], ["Cow", "cat", "dog"], []]
    truth = ["dog", ["cow", "bull"], "dog"]
    assert top_k_accuracy(truth, ranked).hits.tolist() == [0, 1, 0]
    assert top_k_accuracy(truth, ranked, k=2).hits.tolist() == [1, 1, 0]
    assert top_k_accuracy(truth, ranked, k=2).count == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two red circles", {"two": 1, "red": 1, "circle": 1}),  # plural in -s
        ("three crosses and a cross", {"cross": 2}),  # plural in -es
        ("a light blue square", {"light blue": 1, "square": 1}),  # the longer entry wins
        ("Blue-ish squares, squared?", {"square": 1}),  # part of a word is no word
        ("RED.", {"red": 1}),
        ("", {}),
    ],
)
def test_attributes(text, expected):
    assert dict(attributes(text, VOCABULARY)) == expected


def test_attribute_f1():
    truth = ["a red circle and a blue square"]  # 4 attributes
    assert attribute_f1(truth, truth, VOCABULARY).value == 1.0
    assert attribute_f1(truth, ["a blue circle and a red square"], VOCABULARY).value == 1.0  # a bag: order is lost
    assert attribute_f1(truth, ["a red circle"], VOCABULARY).value == pytest.approx(2 * 2 / (4 + 2))
    assert attribute_f1(truth, ["red red red red"], VOCABULARY).value == pytest.approx(2 * 1 / 8)
    assert attribute_f1(truth, [""], VOCABULARY).value == 0.0
    assert attribute_f1(["nothing"], ["nothing at all"], VOCABULARY).value == 1.0


def test_word_recall_counts_each_occurrence_once():
    tally = word_recall([["STOP", "STOP", "X7"], []], ["STOP X7 EXIT", "EXIT"])
    assert tally.value == pytest.approx(2 / 3)
    assert tally.count == 3
    assert word_recall([["STOP"]], ["stop"]).value == 0.0


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("ab", "ba", 2), ("é", "e", 1)],
)
def test_edit_distance(a, b, distance):
    assert edit_distance(a, b) == distance


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def test_character_error_rate():
    tally = character_error_rate(["kitten", "dog"], ["sitting", "dog"])
    assert tally.value == pytest.approx(3 / 9)
    assert tally.count == 2


def test_character_error_rate_weighs_texts_by_their_length_and_sees_case():
    assert character_error_rate(["a" * 9, "b"], ["a" * 9, "c"]).value == pytest.approx(1 / 10)
    assert character_error_rate(["STOP"], ["Stop"]).value == pytest.approx(3 / 4)
    assert character_error_rate(["a"], ["abcd"]).value == 3.0


@pytest.mark.parametrize(
    ("truth", "found", "accuracy"),
    [
        ("NO EXIT HERE", "NO EXIT HERE", 1.0),
        ("NO EXIT HERE", "NO  EXIT\nHERE", 1.0),  # words, not spaces
        ("NO EXIT HERE", "NO EXIST HERE", 2 / 3),
        ("NO EXIT HERE", "EXIT HERE NO", 1 / 3),  # one moved word is missing here and superfluous there
        ("NO EXIT HERE", "NO VERY EXIT HERE", 2 / 3),
        ("STOP", "stop", 0.0),
        ("STOP", "a b c d", 0.0),  # never below 0
    ],
)
def test_word_accuracy(truth, found, accuracy):
    assert word_accuracy([truth], [found]).value == pytest.approx(accuracy)


def test_word_accuracy_counts_words():
    tally = word_accuracy(["one two three", "four"], ["one two three", "five"])
    assert tally.value == 0.75
    assert tally.count == 4


def test_edit_distance_of_words():
    assert edit_distance(["a", "red", "star"], ["a", "star"]) == 1
