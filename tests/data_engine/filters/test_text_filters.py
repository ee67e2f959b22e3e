"""What each text filter drops, and that captions of people and of the scenes pass."""

import pytest

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.filters import text_filters as tf
from open_florence.errors import OpenFlorenceError
from open_florence.scenes import make_scene
from open_florence.scenes.captions import brief, detailed, more_detailed
from open_florence.schema import Annotation, Sample

SAMPLE = Sample("image", "image.jpg", (100.0, 80.0))


def judged(judge, text, task="<CAPTION>", source="captioner@1"):
    """The reason, "" where the caption is kept."""
    (decision,) = judge(SAMPLE, [Candidate("c", Annotation(task, text, source=source))])
    assert decision.parents == ("c",)
    assert decision.annotation.text == text
    assert (decision.status == "kept") == (decision.reason == "")
    return decision.reason


def test_complexity():
    judge = tf.complexity(objects={"<CAPTION>": 2, "<DETAILED_CAPTION>": 3}, actions=1, object_degree=2)
    assert judged(judge, "A cat sitting on a mat") == ""
    assert judged(judge, "A cat") == "complexity: objects 1, under 2"
    assert judged(judge, "A cat and a mat") == "complexity: actions 0, under 1"
    assert judged(judge, "A cat sitting on a mat", "<DETAILED_CAPTION>") == "complexity: objects 2, under 3"
    assert judged(judge, "text", "<OCR>") == ""
    assert judged(tf.complexity(0, 0, 0), "of") == ""


def test_too_many_named():
    many = ", ".join(f"a {word}" for word in ("cat", "dog", "cow", "hat", "cup", "box", "bed"))
    assert judged(tf.too_many_named(6), many) == "too many named: 7 objects, more than 6"
    assert judged(tf.too_many_named(7), many) == ""
    assert judged(tf.too_many_named({"<DETAILED_CAPTION>": 6}), many) == ""


def test_length():
    assert judged(tf.length(2, 4), "cat") == "length: 1 words, under 2"
    assert judged(tf.length(2, 4), "a cat on a mat") == "length: 5 words, more than 4"
    assert judged(tf.length(2, {"<DETAILED_CAPTION>": 4}), "a cat on a mat") == ""


def test_repetition():
    judge = tf.repetition(words=3, times=2)
    assert judged(judge, "a very very very big cat") == "repetition: 'very' stands 3 times in a row"
    loop = "a cat on a mat next to " * 3
    assert judged(judge, loop) == "repetition: 'a cat on' occurs 3 times, more than 2"
    assert judged(judge, "a cat on a mat next to a cat on a mat") == ""
    assert judged(judge, "") == ""


def test_blacklist():
    judge = tf.blacklist(["stock photo", "AI"])
    assert judged(judge, "A Stock Photo of a cat") == "blacklist: the caption says 'Stock Photo'"
    assert judged(judge, "as an ai, I cannot") == "blacklist: the caption says 'ai'"
    assert judged(judge, "A painting of rain") == ""
    assert judged(tf.blacklist([]), "anything") == ""


def test_people_may_write_what_they_like():
    for judge in (tf.complexity(9), tf.too_many_named(0), tf.length(9), tf.blacklist(["cat"])):
        assert judged(judge, "a cat", source="human@review") == ""
        assert judged(judge, "a cat") != ""


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_the_scenes_captions_pass(seed):
    scene = make_scene(seed)
    texts = {"<CAPTION>": brief, "<DETAILED_CAPTION>": detailed, "<MORE_DETAILED_CAPTION>": more_detailed}
    for judge in (tf.complexity(), tf.too_many_named(), tf.length(), tf.repetition()):
        assert [judged(judge, caption(scene).text, task) for task, caption in texts.items()] == ["", "", ""]


@pytest.mark.parametrize(
    "make",
    [
        lambda: tf.complexity(objects=-1),
        lambda: tf.length(least="x"),
        lambda: tf.too_many_named({"<OD>": 3}),
        lambda: tf.repetition(times=0),
        lambda: tf.repetition(in_a_row=1),
        lambda: tf.blacklist("cat"),
        lambda: tf.blacklist([" "]),
    ],
)
def test_options_that_cannot_be_meant(make):
    with pytest.raises(OpenFlorenceError):
        make()
