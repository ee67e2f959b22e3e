"""No text makes a grammar fail: what it cannot read is counted and makes the annotation incomplete."""

import re
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from open_florence.tasks import TASKS

SIZE = (1000, 1000)  # a bin a pixel
ROWS = tuple(TASKS)
LOCATION = re.compile(r"<loc_[0-9]{1,6}>")
TOKEN = re.compile(r"<loc_[0-9]{1,6}>|</?s>|<pad>|<sep>|</?poly>")
FORMS = {str(replace(TASKS[row].grammar, task="")): row for row in ROWS}.values()  # one row for each form of answer

locations = st.integers(0, 10**9).map(lambda number: f"<loc_{number % 10 ** (1 + number % 9)}>")
soups = st.lists(
    st.one_of(
        locations,
        st.sampled_from(["<sep>", "<poly>", "</poly>", "<s>", "</s>", "<pad>", "<and>", "<od>", "<loc_>", "<loc_-1>"]),
        st.sampled_from(
            [" ", "\n", "<", ">", "<loc_5", "<lo", "猫", "a cat", "٣", "<loc_٣>", "\udc80", "\x00", "<loc_1e3>"]
        ),
        st.text(max_size=4),
    ),
    max_size=40,
).map("".join)
calm = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("token", ROWS)
@given(
    text=st.one_of(soups, st.text()), query=st.one_of(st.none(), st.text(max_size=20)), axes=st.sampled_from([1, 2, 3])
)
@calm
def test_any_string_is_read(token, text, query, axes):
    size = (640.0, 480.0, 9.5)[:axes]
    trace = TASKS[token].grammar.trace(text, size, query)
    annotation = trace.annotation
    assert annotation.task == token
    assert len(trace.extents) == len(annotation.regions)
    tokens = len(LOCATION.findall(text))
    used = sum(len(part) * axes for region in annotation.regions for part in region.parts)
    echoed = tokens - annotation.dropped - used
    assert echoed in (
        (0, 2 * axes) if TASKS[token].query == "region" else (0,)
    )  # every token is used, dropped or echoed
    assert annotation.complete or annotation.dropped >= 0
    assert not (annotation.complete and annotation.dropped)
    for region, extent in zip(annotation.regions, trace.extents, strict=True):
        numbers = [int(x) for x in re.findall(r"<loc_([0-9]{1,6})>", text[slice(*extent.location)])]
        assert len(numbers) >= sum(len(part) for part in region.parts) * axes
        if extent.label:
            words = re.sub(r"<s>|</s>|<pad>", "", text[slice(*extent.label)])
            assert words.strip() == region.label != ""
        else:
            assert region.label == ""


@pytest.mark.parametrize(
    ("token", "text", "labels", "dropped", "complete"),
    [
        # boxes
        ("<OD>", "", [], 0, True),  # nothing found is an answer
        ("<OD>", "</s><s></s>", [], 0, True),
        ("<OD>", "cat", [], 0, False),  # words without a place
        ("<OD>", "cat<loc_1><loc_2><loc_3>", [], 3, False),  # cut inside a box
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_4><loc_5>", ["cat"], 1, False),  # one location too many
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_4>dog", ["cat"], 0, False),  # cut after a label
        ("<OD>", "<loc_1><loc_2><loc_3><loc_4>", [], 4, False),  # no label
        ("<OD>", " <loc_1><loc_2><loc_3><loc_4>", [], 4, False),
        ("<OD>", "cat<loc_1><loc_2> <loc_3><loc_4>", [], 4, False),  # broken by a space
        ("<OD>", "cat<loc_1><loc_2><s><loc_3><loc_4>", ["cat"], 0, True),  # <s> says nothing, wherever it stands
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_4>\n", ["cat"], 0, True),  # nor do spaces at the end
        ("<OD>", "\n cat \n<loc_1><loc_2><loc_3><loc_4>\ndog <loc_1><loc_2><loc_3><loc_4>", ["cat", "dog"], 0, True),
        ("<OD>", "cat<sep><loc_1><loc_2><loc_3><loc_4>", ["cat"], 0, False),  # markup of another grammar
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_1000>", ["cat"], 0, False),  # a bin that does not exist
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_9999999>", [], 3, False),  # too long to be a token at all
        ("<OD>", "cat<loc_9><loc_9><loc_1><loc_1>", ["cat"], 0, True),  # corners the wrong way round stay so
        ("<OD>", "two\nlines<loc_1><loc_2><loc_3><loc_4>", ["two\nlines"], 0, True),
        ("<OD>", "猫 café<loc_1><loc_2><loc_3><loc_4>", ["猫 café"], 0, True),
        ("<OD>", "a < b <od>x<and>y<loc_1><loc_2><loc_3><loc_4>", ["a < b <od>x<and>y"], 0, True),
        ("<REGION_PROPOSAL>", "<loc_1><loc_2><loc_3><loc_4>" * 2, ["", ""], 0, True),
        ("<REGION_PROPOSAL>", "cat<loc_1><loc_2><loc_3><loc_4>", [""], 0, False),  # a label where none is due
        # quads
        ("<OCR_WITH_REGION>", "GO" + "<loc_1>" * 8 + "\nSTOP" + "<loc_2>" * 8 + "\n", ["GO", "STOP"], 0, True),
        ("<OCR_WITH_REGION>", "GO" + "<loc_1>" * 7, [], 7, False),
        ("<OCR_WITH_REGION>", "GO" + "<loc_1>" * 16, ["GO"], 8, False),  # a second quad without words of its own
        # polygons
        ("<REGION_TO_SEGMENTATION>", "<loc_1>" * 6, [""], 0, True),
        ("<REGION_TO_SEGMENTATION>", "<loc_1>" * 7, [""], 1, False),  # cut inside a point
        ("<REGION_TO_SEGMENTATION>", "<loc_1>" * 6 + "<sep>", [""], 0, False),  # cut after <sep>
        ("<REGION_TO_SEGMENTATION>", "<sep><sep>", [], 0, False),
        ("<REGION_TO_SEGMENTATION>", "<poly>" + "<loc_1>" * 6, [""], 0, False),  # cut before </poly>
        ("<REGION_TO_SEGMENTATION>", "<poly></poly>", [], 0, False),
        ("<REGION_TO_SEGMENTATION>", "<loc_1>" * 6 + "</poly>", [""], 0, False),  # never opened
        ("<REGION_TO_SEGMENTATION>", "<poly>" * 2 + "<loc_1>" * 6 + "</poly>", [""], 0, False),
        ("<REGION_TO_SEGMENTATION>", "<poly>" + "<loc_1>" * 6 + "</poly>" + "<loc_1>" * 6, ["", ""], 0, True),
        ("<REGION_TO_SEGMENTATION>", "cat" + "<loc_1>" * 6, [""], 0, False),
        ("<OPEN_VOCABULARY_DETECTION>", "<poly>" + "<loc_1>" * 6 + "</poly>", [], 6, False),
        ("<OPEN_VOCABULARY_DETECTION>", "cat<poly>" + "<loc_1>" * 6 + "</poly>dog", ["cat"], 0, False),
        # phrases
        ("<CAPTION_TO_PHRASE_GROUNDING>", "a cat", [], 0, False),
        ("<CAPTION_TO_PHRASE_GROUNDING>", "a cat" + "<loc_1>" * 4, ["a cat"], 0, True),
        ("<CAPTION_TO_PHRASE_GROUNDING>", "<loc_1>" * 4, [], 4, False),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_counted(token, text, labels, dropped, complete):
    annotation = TASKS[token].grammar.parse(text, SIZE)
    assert [region.label for region in annotation.regions] == labels
    assert (annotation.dropped, annotation.complete) == (dropped, complete)


@pytest.mark.parametrize(
    ("token", "text", "words", "asked", "dropped", "complete"),
    [
        ("<CAPTION>", "", "", False, 0, True),
        ("<CAPTION>", "</s><s> a cat \n</s><pad><pad>", "a cat", False, 0, True),
        ("<CAPTION>", "a<loc_1> cat<sep>", "a cat", False, 1, False),
        (
            "<CAPTION>",
            "a cat<loc_1><loc_2><loc_3><loc_4>",
            "a cat",
            False,
            4,
            False,
        ),  # nothing was asked about a region
        ("<OCR>", "line one\nline two", "line one\nline two", False, 0, True),
        ("<REGION_TO_OCR>", "GO", "GO", False, 0, True),
        ("<REGION_TO_OCR>", "<loc_1><loc_2><loc_3><loc_4>", "", True, 0, True),
        ("<REGION_TO_OCR>", "GO<loc_1><loc_2><loc_3><loc_4> </s>", "GO", True, 0, True),
        ("<REGION_TO_OCR>", "GO<loc_1><loc_2><loc_3>", "GO", False, 3, False),  # cut inside the echo
        ("<REGION_TO_OCR>", "GO<loc_0><loc_1><loc_2><loc_3><loc_4>", "GO", True, 1, False),
        ("<REGION_TO_OCR>", "GO<loc_1><loc_2><loc_3><loc_4>!", "GO!", False, 4, False),
        ("<REGION_TO_OCR>", "GO<loc_1><loc_2><loc_3><loc_1004>", "GO", True, 0, False),
    ],
)
def test_words_lose_their_tokens(token, text, words, asked, dropped, complete):
    annotation = TASKS[token].grammar.parse(text, SIZE)
    assert (annotation.text, annotation.query is not None) == (words, asked)
    assert (annotation.dropped, annotation.complete) == (dropped, complete)


@pytest.mark.parametrize("token", ROWS)
@given(text=soups)
@calm
def test_reading_twice_changes_nothing(token, text):
    """What was read can be written, and is read back the same, now complete."""
    grammar = TASKS[token].grammar
    text = re.sub(r"<loc_[0-9]{4,}>", "", text)
    assume(not TOKEN.search(TOKEN.sub("", text)))  # "<loc_5<s>>" is words until its <s> is taken out
    once = grammar.parse(text, SIZE)
    twice = grammar.parse(grammar.serialize(once, SIZE), SIZE)
    assert (twice.text, twice.regions, twice.query) == (once.text, once.regions, once.query)
    assert twice.complete


@pytest.mark.parametrize("token", FORMS)
@pytest.mark.parametrize(
    "text",
    [
        "<loc_1>" * 100_000,
        "a<loc_1><loc_2><loc_3><loc_4>" * 5_000,
        "<poly><loc_1><loc_2></poly>" * 5_000,
        "<sep><loc_" * 20_000,
        "a long label " * 10_000 + "<loc_1>" * 20_000,
        "a<s> " * 50_000,
        "<" * 200_000,
    ],
    ids=lambda text: text[:12],
)
def test_reading_takes_time_in_proportion_to_the_text(token, text):
    start = time.process_time()
    TASKS[token].grammar.parse(text, (640, 480), "a cat and a dog")
    assert time.process_time() - start < 3
