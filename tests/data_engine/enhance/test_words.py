import pytest

from open_florence.data_engine.enhance.words import (
    NUMBERS,
    counted,
    is_called,
    is_plural,
    joined,
    name_key,
    number_of,
    plural,
    words,
)
from open_florence.noun_phrases import singular


def test_words_are_lower_case_and_bare():
    assert words('A dog\'s T-shirt, "red" & blue.') == ["a", "dog's", "t-shirt", "red", "blue"]
    assert words("...") == []


@pytest.mark.parametrize(
    "noun",
    ["star", "cross", "box", "bench", "bus", "person", "man", "knife", "puppy", "toy", "sheep", "tomato", "bike"],
)
def test_a_plural_goes_back_to_its_singular(noun):
    many = plural(f"red {noun}")
    assert singular(many.split()[-1]) == noun
    assert plural(many) == many


def test_whether_a_noun_is_a_plural():
    assert is_plural("people") is True
    assert is_plural("bus") is False
    assert is_plural("sheep") is None


@pytest.mark.parametrize(
    ("label", "key"),
    [("Dogs", "dog"), ("the Traffic_Lights", "traffic light"), ("a T-shirt", "t-shirt"), ("", ""), ("the", "")],
)
def test_labels_are_compared_by_their_key(label, key):
    assert name_key(label) == key


def test_a_thing_may_be_called_by_its_kind_and_the_other_way_round():
    assert is_called("puppy", "dog")
    assert is_called("person", "woman")
    assert not is_called("man", "woman")
    assert is_called("board", "surfboard")
    assert not is_called("", "dog")


def test_counts_in_words():
    assert [number_of(word) for word in ("two", "12", "both", "an", "red")] == [2, 12, 2, 1, None]
    assert all(number_of(word) == count for count, word in enumerate(NUMBERS))
    assert counted("orange box", 1) == "an orange box"
    assert counted("orange box", 3) == "three orange boxes"
    assert counted("dog", 40) == "40 dogs"
    assert counted("scissors", 1) == "scissors"
    assert counted("bus", 1) == "a bus"


def test_lists_in_words():
    assert joined([]) == ""
    assert joined(["A"]) == "A"
    assert joined(["A", "B", "C"]) == "A, B and C"
