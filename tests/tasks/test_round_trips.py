"""`parse` undoes `serialize`, for every row of TASKS, in images and in series: a new row is tested by being there."""

import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.locations import LocationQuantizer
from open_florence.schema import Annotation, Region
from open_florence.tasks import TASKS, PhraseGrammar, RegionGrammar, TextGrammar

TOKEN = re.compile(r"<loc_[0-9]{1,6}>|</?s>|<pad>|<sep>|</?poly>")
QUANTIZER = LocationQuantizer()
ROWS = tuple(TASKS)
calm = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])

words = st.text(min_size=1, max_size=20).map(str.strip).filter(lambda text: text and not TOKEN.search(text))
sizes = st.one_of(
    st.tuples(st.floats(0.5, 20_000)), st.tuples(st.floats(0.5, 20_000), st.floats(0.5, 20_000)), st.just((640, 480))
)


def points(size, count):
    """Centres of bins, so that they come back to the bit."""
    bins = st.tuples(*[st.integers(0, 999)] * len(size))
    return st.lists(bins, min_size=count[0], max_size=count[1]).map(
        lambda found: tuple(QUANTIZER.dequantize(each, size) for each in found)
    )


def regions(size, kind, label):
    count = {"box": (2, 2), "quad": (4, 4), "polygon": (1, 6)}[kind]
    parts = st.lists(points(size, count), min_size=1, max_size=3 if kind == "polygon" else 1).map(tuple)
    return st.builds(Region, st.just(kind), parts, label)


@st.composite
def answers(draw, token):
    """An annotation that answers a task, and the size of its input."""
    task, size = TASKS[token], draw(sizes)
    match task.grammar:
        case TextGrammar(echo=echo):
            query = draw(regions(size, "box", st.just(""))) if echo else None
            return Annotation(token, draw(st.one_of(words, st.just(""))), query=query), size
        case RegionGrammar(kinds=kinds, labelled=labelled):
            label = st.one_of(words, st.sampled_from(["cat", "dog"])) if labelled else st.just("")
            kind = draw(st.sampled_from(kinds))
            found = draw(st.lists(regions(size, kind, label), max_size=6))
            return Annotation(token, regions=tuple(found), query=None), size
        case PhraseGrammar():
            return draw(grounded_captions(token, size)), size
    pytest.fail(f"say here what the answers to {token} look like")


@st.composite
def grounded_captions(draw, token, size):
    """A caption with phrases, each the first occurrence of its words after the phrase before it, with a few boxes."""
    caption = draw(st.lists(st.sampled_from(["a", "red", "car", "cart", "dög", "車", "of"]), min_size=1, max_size=12))
    starts = [sum(len(word) + 1 for word in caption[:index]) for index in range(len(caption) + 1)]
    found, cursor = [], 0
    while cursor < len(caption):
        first = draw(st.integers(cursor, len(caption) - 1))
        length = draw(st.integers(1, min(3, len(caption) - first)))
        phrase = caption[first : first + length]
        first = next(index for index in range(cursor, first + 1) if caption[index : index + length] == phrase)
        span = (starts[first], starts[first + length] - 1)
        for box in draw(st.lists(points(size, (2, 2)), min_size=1, max_size=3)):
            found.append(Region("box", (box,), " ".join(phrase), span=span))
        cursor = first + length
    text = " ".join(caption)
    return Annotation(token, text, tuple(found), query=text)


@pytest.mark.parametrize("token", ROWS)
@given(data=st.data(), before=st.sampled_from(["", "<s>", "</s><s>", "</s><s><s><s>"]))
@calm
def test_what_is_written_is_read_back(token, data, before):
    annotation, size = data.draw(answers(token))
    grammar = TASKS[token].grammar
    body = grammar.serialize(annotation, size)
    asked = annotation.query if isinstance(annotation.query, str) else None
    text = f"{before}{body}</s><pad>"
    trace = grammar.trace(text, size, asked)
    assert trace.annotation == annotation == grammar.parse(body, size, asked)
    assert grammar.serialize(trace.annotation, size) == body
    check_extents(text, trace, size)


def check_extents(text, trace, size):
    """Each extent holds exactly its region's own location tokens, and its own label."""
    assert len(trace.extents) == len(trace.annotation.regions)
    spans = [extent.location for extent in trace.extents]
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    for region, extent in zip(trace.annotation.regions, trace.extents, strict=True):
        tokens = [
            "".join(QUANTIZER.token(index) for point in part for index in QUANTIZER.quantize(point, size))
            for part in region.parts
        ]
        assert text[slice(*extent.location)] == "<sep>".join(tokens)
        assert (text[slice(*extent.label)] if extent.label else "") == region.label


@pytest.mark.parametrize("token", [row for row in ROWS if isinstance(TASKS[row].grammar, RegionGrammar)])
@given(data=st.data())
@calm
def test_any_place_comes_back_within_half_a_bin(token, data):
    size = data.draw(sizes)
    grammar = TASKS[token].grammar
    kind = data.draw(st.sampled_from(grammar.kinds))
    label = "x" if grammar.labelled else ""
    number = {"box": 2, "quad": 4}.get(kind, 5)
    places = data.draw(
        st.lists(st.tuples(*(st.floats(0, side) for side in size)), min_size=number, max_size=number).map(tuple)
    )
    annotation = Annotation(token, regions=(Region(kind, (places,), label),))
    (read,) = grammar.parse(grammar.serialize(annotation, size), size).regions
    for written, found in zip(places, read.parts[0], strict=True):
        for axis, side in enumerate(size):
            assert abs(written[axis] - found[axis]) <= side / 2000 + side * 2**-22  # half a bin, and float32


# --- the forms of the text, one by one --------------------------------------------------------------------------------

SIZE = (1000, 1000)  # a bin a pixel


def box(*corners, label="", span=None):
    low, high = corners[: len(corners) // 2], corners[len(corners) // 2 :]
    return Region("box", ((tuple(v + 0.5 for v in low), tuple(v + 0.5 for v in high)),), label, span=span)


def polygon(*parts, label=""):
    return Region("polygon", tuple(tuple((x + 0.5, y + 0.5) for x, y in part) for part in parts), label)


TRIANGLE = ((1, 2), (3, 4), (5, 6))
TRIANGLE_TEXT = "<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6>"


@pytest.mark.parametrize(
    ("token", "found", "text"),
    [
        ("<OD>", (), ""),
        ("<OD>", (box(1, 2, 3, 4, label="cat"),), "cat<loc_1><loc_2><loc_3><loc_4>"),
        (  # a label is written once for the boxes that follow each other
            "<OD>",
            tuple(box(corner, corner, 9, 9, label=label) for corner, label in ((1, "a"), (3, "a"), (5, "b"), (7, "a"))),
            "a<loc_1><loc_1><loc_9><loc_9><loc_3><loc_3><loc_9><loc_9>b<loc_5><loc_5><loc_9><loc_9>"
            "a<loc_7><loc_7><loc_9><loc_9>",
        ),
        ("<REGION_PROPOSAL>", (box(1, 2, 3, 4), box(5, 6, 7, 8)), "".join(f"<loc_{k}>" for k in range(1, 9))),
        (  # every quad carries its words, even the same
            "<OCR_WITH_REGION>",
            (Region("quad", (((1.5, 1.5), (2.5, 1.5), (2.5, 2.5), (1.5, 2.5)),), "GO"),) * 2,
            "GO<loc_1><loc_1><loc_2><loc_1><loc_2><loc_2><loc_1><loc_2>" * 2,
        ),
        ("<REGION_TO_SEGMENTATION>", (polygon(TRIANGLE),), TRIANGLE_TEXT),
        ("<REGION_TO_SEGMENTATION>", (polygon(TRIANGLE, TRIANGLE),), f"{TRIANGLE_TEXT}<sep>{TRIANGLE_TEXT}"),
        (
            "<REFERRING_EXPRESSION_SEGMENTATION>",
            (polygon(TRIANGLE, TRIANGLE), polygon(TRIANGLE)),
            f"<poly>{TRIANGLE_TEXT}<sep>{TRIANGLE_TEXT}</poly><poly>{TRIANGLE_TEXT}</poly>",
        ),
        ("<OPEN_VOCABULARY_DETECTION>", (polygon(TRIANGLE, label="cat"),), f"cat<poly>{TRIANGLE_TEXT}</poly>"),
        (
            "<OPEN_VOCABULARY_DETECTION>",
            (polygon(TRIANGLE, label="cat"), polygon(TRIANGLE, label="cat")),
            f"cat<poly>{TRIANGLE_TEXT}</poly><poly>{TRIANGLE_TEXT}</poly>",
        ),
    ],
)  # fmt: skip
def test_regions_as_text(token, found, text):
    grammar = TASKS[token].grammar
    assert grammar.serialize(Annotation(token, regions=found), SIZE) == text
    assert grammar.parse(text, SIZE) == Annotation(token, regions=found)


def test_a_series_has_one_number_a_point():
    grammar = TASKS["<OD>"].grammar
    events = Annotation("<OD>", regions=(box(10, 20, label="step"), box(30, 40, label="step"), box(5, 5, label="fall")))
    text = "step<loc_10><loc_20><loc_30><loc_40>fall<loc_5><loc_5>"
    assert grammar.serialize(events, (1000,)) == text
    assert grammar.parse(text, (1000,)) == events


def test_the_asked_region_is_echoed_after_the_words():
    grammar = TASKS["<REGION_TO_CATEGORY>"].grammar
    asked = box(52, 332, 932, 774)
    text = "car<loc_52><loc_332><loc_932><loc_774>"
    assert grammar.serialize(Annotation("<REGION_TO_CATEGORY>", "car", query=asked), SIZE) == text
    assert grammar.parse(text, SIZE) == Annotation("<REGION_TO_CATEGORY>", "car", query=asked)
    exact = Region.box(52.25, 332.75, 932.5, 774.0)
    assert grammar.parse(text, SIZE, exact).query == exact
    assert grammar.parse("car", SIZE) == Annotation("<REGION_TO_CATEGORY>", "car")
    assert TASKS["<CAPTION>"].grammar.serialize(Annotation("<CAPTION>", "car", query=asked), SIZE) == "car"


# --- phrases ----------------------------------------------------------------------------------------------------------

GROUNDING = TASKS["<CAPTION_TO_PHRASE_GROUNDING>"].grammar
BOX = "<loc_1><loc_2><loc_3><loc_4>"


def test_phrases_of_the_same_words_are_successive_occurrences():
    caption = "a car, a car and a cart"
    answer = GROUNDING.parse(f"a car{BOX}{BOX}a car{BOX}a cart{BOX}", SIZE, caption)
    assert [region.span for region in answer.regions] == [(0, 5), (0, 5), (7, 12), (17, 23)]
    assert answer.text == answer.query == caption
    assert GROUNDING.serialize(answer, SIZE) == f"a car{BOX}{BOX}a car{BOX}a cart{BOX}"


@pytest.mark.parametrize(
    ("caption", "phrases", "expected"),
    [
        ("a carpet and a car", ["a car"], ["a car"]),  # whole words first ...
        ("scars heal", ["car"], ["car"]),  # ... but letters inside a word rather than nothing
        ("A dog", ["a dog"], ["A dog"]),  # any case rather than nothing
        ("a dog, A Dog", ["A Dog", "a dog"], ["A Dog", "a dog"]),  # out of order
        ("a man in a red shirt", ["a man in a red shirt", "a red shirt"], ["a man in a red shirt", "a red shirt"]),
        ("one dog", ["one dog", "one dog"], ["one dog", None]),  # no second occurrence
        ("İki köpek", ["KÖPEK", "kedi"], ["köpek", None]),  # lower case of another length
        ("", ["a dog"], [None]),
    ],
)
def test_phrases_are_found_in_the_caption(caption, phrases, expected):
    answer = GROUNDING.parse("".join(phrase + BOX for phrase in phrases), SIZE, caption)
    assert [region.span and caption[slice(*region.span)] for region in answer.regions] == expected
    assert [region.label for region in answer.regions] == phrases


def test_a_whole_word_is_preferred_wherever_it_stands():
    answer = GROUNDING.parse(f"a car{BOX}", SIZE, "a carpet and a car")
    assert answer.regions[0].span == (13, 18)


def test_without_a_caption_the_phrases_are_the_text():
    answer = GROUNDING.parse(f"a car{BOX}{BOX}a dög{BOX}", SIZE)
    assert (answer.text, answer.query) == ("a car, a dög", None)
    assert [answer.text[slice(*region.span)] for region in answer.regions] == ["a car", "a car", "a dög"]
    assert GROUNDING.parse(GROUNDING.serialize(answer, SIZE), SIZE) == answer


def test_phrases_are_written_in_the_order_of_the_caption():
    caption = "a dog and a cat"
    found = (box(1, 2, 3, 4, label="a cat", span=(10, 15)), box(1, 2, 3, 4, label="a dog", span=(0, 5)))
    assert GROUNDING.serialize(Annotation("", caption, found), SIZE) == f"a dog{BOX}a cat{BOX}"
    labels_only = (box(1, 2, 3, 4, label="b"), box(1, 2, 3, 4, label="a"))
    assert GROUNDING.serialize(Annotation("", "", labels_only), SIZE) == f"b{BOX}a{BOX}"


# --- what cannot be written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "annotation", "message"),
    [
        ("<OD>", Annotation("", regions=(box(1, 2, 3, 4),)), "has no label"),
        ("<OD>", Annotation("", regions=(box(1, 2, 3, 4, label=" \n"),)), "has no label"),
        ("<OD>", Annotation("", regions=(box(1, 2, 3, 4, label="a<loc_5>b"),)), "a label of <OD> .* <loc_5>"),
        ("<OD>", Annotation("", regions=(box(1, 2, 3, 4, label="x</s>"),)), "holds the token </s>"),
        ("<OD>", Annotation("", regions=(polygon(TRIANGLE, label="x"),)), "regions of kind box, not polygon"),
        ("<OD>", Annotation("", regions=(box(1, 2, label="x"),)), "has 1 numbers, its input has 2 axes"),
        ("<OD>", Annotation("", regions=(box(1, 2, 3, float("nan"), label="x"),)), "not a number"),
        (
            "<OPEN_VOCABULARY_DETECTION>",
            Annotation("", regions=(box(1, 2, 3, 4, label="x"), polygon(TRIANGLE, label="x"))),
            "several kinds",
        ),
        ("<REGION_TO_SEGMENTATION>", Annotation("", regions=(polygon(),)), "without points"),
        ("<REGION_TO_SEGMENTATION>", Annotation("", regions=(polygon(TRIANGLE, ()),)), "without points"),
        ("<CAPTION>", Annotation("", "see <poly>"), "the text of <CAPTION> .* <poly>"),
        ("<CAPTION_TO_PHRASE_GROUNDING>", Annotation("", "ab", (box(1, 2, 3, 4, span=(1, 3)),)), "outside its text"),
        ("<CAPTION_TO_PHRASE_GROUNDING>", Annotation("", "a b", (box(1, 2, 3, 4, span=(1, 2)),)), "has no label"),
        ("<CAPTION_TO_PHRASE_GROUNDING>", Annotation("", "", (polygon(TRIANGLE, label="a"),)), "kind box"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(token, annotation, message):
    with pytest.raises(OpenFlorenceError, match=message):
        TASKS[token].grammar.serialize(annotation, SIZE)
