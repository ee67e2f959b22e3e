"""VQA accuracy: what the official program makes of answers, recorded from it (vqaEval.py), and the rule itself."""

import pytest

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.vqa import normalize_answer, vqa_accuracy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two dogs.", "2 dogs"),
        ("the  cat", "cat"),
        ("a black/white cat", "black white cat"),  # a mark inside a word parts it
        ("black / white", "black white"),
        ("1,000", "1000"),
        ("1,000 men, all tall", "1000 men all tall"),
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("none", "0"),
        ("(no)", "no"),
        ("well-lit", "well lit"),
        ("t-shirt?", "t shirt"),
        ("what ?", "what"),
        ("$5.00", "$5.00"),
        ("5:30 p.m.", "5:30 pm"),
        ("it's", "it's"),
        ("its", "its"),
        ("'90s", "'90s"),
        ("new\nline", "new line"),
        ("a.b", "ab"),
        ('"quoted"', "quoted"),
        ("an apple and the pear", "apple and pear"),
        ("Im", "im"),
        ("10 ten", "10 10"),
        ("", ""),
        (".", ""),
        ("salt & pepper", "salt & pepper"),
    ],
)
def test_answers_are_normalized_as_the_official_program_does(text, expected):
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("agreeing", "accuracy"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],  # averaged over nine of ten people
)
def test_how_many_people_agree(agreeing, accuracy):
    people = ["yes"] * agreeing + ["no"] * (10 - agreeing)
    assert vqa_accuracy([people], ["Yes."]).value == pytest.approx(accuracy)


def test_different_spellings_of_one_answer_agree():
    people = ["two", "2", "Two.", "the 2", *["three"] * 6]
    assert vqa_accuracy([people], ["2"]).value == 1.0


def test_with_fewer_people_anybody_is_enough():
    tally = vqa_accuracy([["a dog"], ["dog", "cat", "cow"], ["dog"]], ["Dog", "cow", "cat"])
    assert tally.hits.tolist() == [1, 1, 0]
    assert tally.count == 3


def test_a_question_nobody_answered_is_named():
    with pytest.raises(OpenFlorenceError, match="question 0, which has none"):
        vqa_accuracy([[]], ["yes"])
