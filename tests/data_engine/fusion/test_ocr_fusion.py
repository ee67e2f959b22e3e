from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.fusion.ocr_fusion import (
    TEXT,
    UNSAID,
    WORDS,
    OcrFusion,
    cut_lines,
    posterior,
    reading_score,
)
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("x", "x.png", (200.0, 200.0))


def word(text, x, y, score=0.9, width=20):
    return Region("quad", (((x, y), (x + width, y), (x + width, y + 10), (x, y + 10)),), text, score)


def read(source, *regions):
    return Candidate(source, Annotation(WORDS, regions=regions, source=f"{source}@1"))


def fuse(*candidates, **options):
    return OcrFusion(**options)(SAMPLE, candidates)


def test_readers_that_agree_are_surer_together():
    words, text = fuse(read("a", word("TOTAL", 0, 0, 0.8)), read("b", word("total", 1, 0, 0.6)))
    (region,) = words.annotation.regions
    assert region.label == text.annotation.text == "TOTAL"
    assert region.score == pytest.approx(0.48 / (0.48 + 0.08))
    assert words.parents == ("a", "b")
    assert (words.annotation.source, words.reason) == ("ocr-fusion@1", "1 words of 2 readers")


def test_two_that_agree_outvote_one_that_is_surer():
    one, other, third = read("a", word("5TOP", 0, 0, 0.9)), read("b", word("STOP", 1, 0)), read("c", word("STOP", 0, 1))
    words, _, out = fuse(one, other, third)
    assert [region.label for region in words.annotation.regions] == ["STOP"]
    assert (out.status, out.parents) == ("dropped", ("a",))
    assert out.reason in ("outvoted: b@1 read it otherwise", "outvoted: c@1 read it otherwise")


def test_the_factor_of_trust_can_turn_a_vote():
    pair = read("a", word("5TOP", 0, 0, 0.9)), read("b", word("STOP", 1, 0, 0.8))
    assert fuse(*pair)[0].annotation.regions[0].label == "5TOP"
    assert fuse(*pair, trust={"a": 0.5})[0].annotation.regions[0].label == "STOP"


def test_a_lone_word_must_be_sure_enough_for_its_reader():
    pair = read("a", word("yes", 0, 0, 0.7), word("no", 50, 0, 0.3)), read("b", word("noise", 0, 90, 0.65))
    words, _, *dropped = fuse(*pair, lone={"b": 0.8})
    assert [region.label for region in words.annotation.regions] == ["yes"]
    assert [d.reason for d in dropped] == [
        "lone word: no other reader saw it, and its score is under 0.6",
        "lone word: no other reader saw it, and its score is under 0.8",
    ]


def test_of_a_place_and_a_word_with_scores_of_their_own_the_word_counts():
    sure = replace(word("STOP", 0, 0, score=0.05), label_score=0.9)
    words, *_ = fuse(read("a", sure), read("b", word("5TOP", 0, 0, 0.7), word("far", 90, 0)))
    assert [(region.label, region.score) for region in words.annotation.regions] == [
        ("STOP", pytest.approx(0.27 / (0.27 + 0.07 + 0.03))),
        ("far", 0.9),
    ]
    assert reading_score(word("yes", 0, 0, None)) == pytest.approx(UNSAID)


def test_a_reader_that_never_says_how_sure_it_is_does_not_win_by_that():
    words, *_ = fuse(read("a", word("5TOP", 0, 0, None)), read("b", word("STOP", 0, 0, 0.9)))
    assert words.annotation.regions[0].label == "STOP"


def test_a_line_is_compared_word_by_word():
    line = word("GRAND T0TAL", 0, 0, 0.6, width=80)
    words, text, _ = fuse(read("a", line), read("b", word("GRAND", 0, 0, 0.9, 35), word("TOTAL", 42, 0, 0.9, 38)))
    assert text.annotation.text == "GRAND TOTAL"
    assert len(words.annotation.regions) == 2


def test_a_line_of_another_number_of_words_is_shared_out_by_letters():
    line = word("AB CD EFG", 0, 0, width=90)
    cut = cut_lines({"a": [line], "b": [word("AB", 0, 0, width=20), word("CDEFG", 30, 0, width=60)]})
    assert [(one.label, one.parts[0][0][0], round(one.parts[0][1][0])) for one in cut["a"]] == [
        ("AB", 0, 20),
        ("CD", 30, 50),
        ("EFG", 60, 90),
    ]
    assert cut_lines({"a": [line], "b": []})["a"] == [line]


def test_one_place_holds_the_words_of_one_reader():
    pieces = read("a", word("GRAND", 0, 0, 0.95, 30), word("T", 31, 0, 0.7, 8), word("far", 150, 0, 0.7))
    whole = read("b", word("GRANDT", 0, 0, 0.8, 100))
    words, _, *dropped = fuse(pieces, whole)
    assert [region.label for region in words.annotation.regions] == ["GRAND", "T", "far"]
    assert [(d.annotation.source, d.annotation.regions[0].label) for d in dropped] == [("b@1", "GRANDT")]
    assert dropped[0].reason == "lone word: in its place stands another reader's word"
    nested = fuse(read("a", word("A", 0, 0, 0.9, 100), word("B", 10, 0, 0.8)), read("b", word("far", 150, 0)))
    assert [region.label for region in nested[0].annotation.regions] == ["A", "B", "far"]


def test_texts_of_the_readers_are_replaced_by_the_fused_words():
    text = Candidate("t", Annotation(TEXT, "GARBLED", source="a@1"))
    decisions = fuse(read("a", word("STOP", 0, 0)), read("b", word("STOP", 0, 0)), text)
    assert [(d.annotation.text, d.status) for d in decisions[1:]] == [("STOP", "kept"), ("GARBLED", "dropped")]


def test_one_reader_alone_passes_and_a_person_prevails():
    alone = read("a", word("x", 0, 0, 0.1))
    assert [(d.annotation, d.status) for d in fuse(alone)] == [(alone.annotation, "kept")]
    person = Candidate("p", Annotation(WORDS, regions=(word("y", 0, 0),), source="human"))
    assert [d.status for d in fuse(alone, person)] == ["dropped", "kept"]


def test_other_tasks_are_in_no_decision():
    assert fuse(Candidate("o", Annotation("<OD>"))) == []


def test_probabilities_follow_from_the_votes():
    assert posterior([("a", 0.5), ("b", 0.5)]) == pytest.approx({"a": 1 / 3, "b": 1 / 3})
    assert posterior([("a", 1.0)])["a"] == pytest.approx(0.99)


readings = st.lists(
    st.tuples(st.sampled_from(["STOP", "5TOP", "TOTAL"]), st.integers(0, 5), st.integers(0, 3), st.floats(0, 1)),
    max_size=5,
    unique_by=lambda one: one[1:3],
)


@settings(max_examples=50)
@given(st.tuples(readings, readings, readings))
def test_every_word_is_kept_dropped_or_fused_and_the_order_of_readers_does_not_matter(lists):
    readers = [
        read(name, *(word(t, 30 * x, 20 * y, s) for t, x, y, s in one)) for name, one in zip("abc", lists, strict=True)
    ]
    decisions = fuse(*readers)
    words = decisions[0].annotation.regions
    given_places = {region.parts for one in readers for region in one.annotation.regions}
    assert all(region.parts in given_places for region in words)
    assert len({region.parts for region in words}) == len(words)
    dropped = Counter(
        (d.annotation.source, r) for d in decisions if d.status == "dropped" for r in d.annotation.regions
    )
    given_words = Counter((c.annotation.source, r) for c in readers for r in c.annotation.regions)
    assert dropped <= given_words
    for (_, region), _ in (given_words - dropped).items():
        assert any(one.parts == region.parts and one.label == region.label for one in words)
    assert [d.annotation for d in fuse(*reversed(readers))] == [d.annotation for d in decisions]
