"""What each region filter drops, with which words, and what it leaves alone."""

import math

import pytest

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.filters import region_filters as rf
from open_florence.data_engine.filters.claims import claims
from open_florence.data_engine.ontology import Ontology, OntologyClass
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("image", "image.jpg", (100.0, 80.0))
CAPTION = "A dog and it near the image"


def box(*corners, label="cat", score=None, label_score=None, span=None):
    x1, y1, x2, y2 = map(float, corners)
    return Region("box", (((x1, y1), (x2, y2)),), label, score, label_score, span)


def detections(*regions, source="detector@1", name="r1", task="<OD>", text=""):
    return Candidate(name, Annotation(task, text, regions, source=source))


def caption(text, source="captioner@1", score=None, name="c1", task="<CAPTION>"):
    return Candidate(name, Annotation(task, text, source=source, score=score))


def said(decisions):
    """(status, reason, labels) of each decision."""
    return [(d.status, d.reason, [region.label for region in d.annotation.regions]) for d in decisions]


def test_score_by_class():
    regions = [box(0, 0, 9, 9, score=s, label=n) for n, s in (("cat", 0.12), ("cat", 0.3), ("dog", 0.45), ("cow", 0.1))]
    regions.append(box(0, 0, 9, 9, label="sure"))
    judge = rf.score({"cat": 0.3, "default": 0.2}, Ontology((OntologyClass("dog", threshold=0.5),)))
    assert said(judge(SAMPLE, [detections(*regions)])) == [
        ("kept", "", ["cat", "sure"]),
        ("dropped", "score: 0.12 under 0.3 for cat", ["cat"]),
        ("dropped", "score: 0.45 under 0.5 for dog", ["dog"]),
        ("dropped", "score: 0.10 under 0.2", ["cow"]),
    ]


def test_place_and_label_scores_count_together():
    (decision,) = rf.score(0.5)(SAMPLE, [detections(box(0, 0, 9, 9, score=0.9, label_score=0.6))])
    assert decision.status == "kept"
    kept, dropped = rf.score(0.6)(SAMPLE, [detections(box(0, 0, 9, 9, score=0.9, label_score=0.6))])
    assert (kept.annotation.regions, dropped.reason) == ((), "score: 0.54 under 0.6")


def test_a_search_that_found_nothing_good_stays_as_one_that_found_nothing():
    judge = rf.score(0.9)
    assert [d.status for d in judge(SAMPLE, [detections(box(0, 0, 9, 9, score=0.1))])] == ["kept", "dropped"]
    mask = Annotation("<REFERRING_EXPRESSION_SEGMENTATION>", regions=(box(0, 0, 9, 9, score=0.1),))
    assert [d.status for d in judge(SAMPLE, [Candidate("m", mask)])] == ["dropped"]
    assert [d.status for d in judge(SAMPLE, [detections()])] == ["kept"]


def test_whole_image():
    decisions = rf.whole_image()(SAMPLE, [detections(box(0, 0, 100, 79), box(0, 0, 90, 80, label="dog"))])
    assert said(decisions) == [
        ("kept", "", ["dog"]),
        ("dropped", "whole image: covers 99% of the image, more than 95%", ["cat"]),
    ]


def test_tiny():
    regions = box(0, 0, 3, 50), box(0, 0, 8, 8, label="dog"), box(0, 0, 20, 20, label="cow")
    assert said(rf.tiny(share=0.01)(SAMPLE, [detections(*regions)])) == [
        ("kept", "", ["cow"]),
        ("dropped", "tiny: 3.0 x 50.0, a side under 4", ["cat"]),
        ("dropped", "tiny: covers 0.8000% of the image, under 1.0000%", ["dog"]),
    ]


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (box(0, 0, math.nan, 5), "coordinates that are no numbers"),
        (box(0, 0, math.inf, 5), "coordinates that are no numbers"),
        (box(5, 5, 5, 9), "no area"),
        (box(9, 9, 2, 2), "no area"),
        (Region("polygon", (((1.0, 1.0), (5.0, 5.0), (9.0, 9.0)),)), "no area"),
        (Region("polygon", ()), "coordinates that are no numbers"),
        (Region.box(1.0, 5.0), "points that have not 2 coordinates"),
        (box(90, 0, 110, 10), "50% of its box lies off the image"),
        (box(200, 0, 210, 10), "100% of its box lies off the image"),
    ],
)
def test_degenerate(region, reason):
    kept, dropped = rf.degenerate()(SAMPLE, [detections(region)])
    assert (kept.annotation.regions, dropped.reason) == ((), f"degenerate: {reason}")


def test_what_is_not_degenerate():
    triangle = Region("polygon", (((1.0, 1.0), (9.0, 1.0), (9.0, 9.0)),))
    (decision,) = rf.degenerate()(SAMPLE, [detections(box(-0.5, 0, 20, 80.5), box(0, 0, 100, 80), triangle)])
    assert decision.status == "kept"
    series = Sample("series", "series.csv", (10.0,))
    assert [d.status for d in rf.degenerate()(series, [detections(Region.box(1.0, 4.0))])] == ["kept"]


def test_of_overlapping_ones_of_a_source_and_class_the_best_stays():
    near = box(0, 0, 10, 10, score=0.5), box(0, 0, 10, 9, score=0.8), box(0, 0, 10, 10, label="dog", score=0.3)
    other = detections(box(0, 0, 10, 10, score=0.1), source="other@1", name="r2")
    decisions = rf.nms(0.6)(SAMPLE, [detections(*near), other])
    assert said(decisions) == [
        ("kept", "", ["cat", "dog"]),
        ("dropped", "overlap: IoU 0.90 with a better cat (score 0.80), more than 0.6", ["cat"]),
        ("kept", "", ["cat"]),
    ]


def test_overlap_is_looked_for_in_all_answers_of_a_source():
    twice = [detections(box(0, 0, 10, 10, score=s), name=name) for name, s in (("a", 0.4), ("b", 0.6))]
    for candidates in (twice, twice[::-1]):
        dropped = [d.parents for d in rf.nms()(SAMPLE, candidates) if d.status == "dropped"]
        assert dropped == [("a",)]


def test_masks_overlap_by_what_they_enclose():
    first = Region("polygon", (((0.0, 0.0), (40.0, 0.0), (0.0, 40.0)),), "cat", 0.9)
    second = Region("polygon", (((40.0, 0.0), (40.0, 40.0), (0.0, 40.0)),), "cat", 0.8)  # the same box, the other half
    assert len(rf.nms(0.5)(SAMPLE, [detections(first, second)])) == 1


def test_too_many_keeps_the_best():
    regions = [box(k, 0, k + 5, 5, score=k / 10, label=str(k)) for k in range(5)]
    assert said(rf.too_many(2)(SAMPLE, [detections(*regions)])) == [
        ("kept", "", ["3", "4"]),
        ("dropped", "too many: 5 regions, more than 2", ["0", "1", "2"]),
    ]


def test_labels_outside_the_ontology_are_kept_aside():
    ontology = Ontology((OntologyClass("cat", ("kitty",)),))
    regions = box(0, 0, 5, 5, label="Kitty"), box(0, 0, 5, 5, label="dog"), box(0, 0, 5, 5, label="")
    category = Candidate("t", Annotation("<REGION_TO_CATEGORY>", "kitties"))
    outside = Candidate("u", Annotation("<REGION_TO_CATEGORY>", "dog"))
    words = Candidate("w", Annotation("<DENSE_REGION_CAPTION>", regions=regions))
    decisions = rf.inside_ontology(ontology)(SAMPLE, [detections(*regions), category, outside, words])
    assert said(decisions) == [
        ("kept", "", ["cat", ""]),
        ("dropped", "outside the ontology: dog", ["dog"]),
        ("kept", "", []),
        ("dropped", "outside the ontology: dog", []),
        ("kept", "", ["Kitty", "dog", ""]),
    ]
    assert [d.annotation.text for d in decisions[2:4]] == ["cat", "dog"]


def test_boxes_of_phrases():
    regions = (
        box(0, 0, 9, 9, label="A dog", span=(0, 5), score=0.9, label_score=0.9),
        box(0, 0, 9, 9, label="A dog", span=(0, 5), score=0.2),
        box(0, 0, 9, 9, label="A dog", span=(0, 5), score=0.9, label_score=0.1),
        box(0, 0, 9, 9, label="it", span=(10, 12)),
        box(0, 0, 9, 9, label="the image", span=(18, 27)),
        box(0, 0, 9, 9, label="The Sky"),
    )
    grounded = detections(*regions, task=rf.GROUNDING, text=CAPTION)
    ontology = Ontology(blacklist=("Sky",))
    decisions = rf.phrase_boxes(ontology=ontology)(SAMPLE, [grounded, detections(*regions, name="r2")])
    assert [d.reason for d in decisions] == [
        "",
        "phrase box: score 0.20 under 0.3 for 'A dog'",
        "phrase box: phrase score 0.10 under 0.25 for 'A dog'",
        "phrase blacklist: 'it' names nothing to draw a box around",
        "phrase blacklist: 'the image' names nothing to draw a box around",
        "phrase blacklist: 'The Sky' names nothing to draw a box around",
        "",
    ]
    assert [len(d.annotation.regions) for d in decisions] == [1, 1, 1, 1, 1, 1, 6]


def test_near_duplicates_go_whole():
    candidates = [detections(box(0, 0, 9, 9)), caption("a cat", source="human")]
    assert {d.status for d in rf.near_duplicate({"image"})(SAMPLE, candidates)} == {"dropped"}
    assert {d.status for d in rf.near_duplicate({"other"})(SAMPLE, candidates)} == {"kept"}


def test_what_people_drew_is_not_judged_by_plausibility():
    regions = box(0, 0, 100, 80, score=0.1), box(0, 0, 100, 80, score=0.1), box(0, 0, 1, 1, score=0.1)
    drawn = detections(*regions, source="human@review")
    for judge in (rf.score(0.9), rf.whole_image(), rf.tiny(), rf.nms(), rf.too_many(1), rf.phrase_boxes()):
        assert [d.annotation for d in judge(SAMPLE, [drawn])] == [drawn.annotation]
    assert len(rf.degenerate()(SAMPLE, [detections(box(5, 5, 5, 5), source="human")])) == 2


ANIMALS = Ontology(
    (
        OntologyClass("animal"),
        OntologyClass("cat", ("kitten",), parent="animal"),
        OntologyClass("dog", parent="animal"),
        OntologyClass("ball"),
    )
)


@pytest.mark.parametrize(
    ("text", "found", "why"),
    [
        ("A cat on a mat", ["cat"], ""),
        ("Two fluffy kittens", ["cat"], ""),
        ("A cat with a red ball", ["cat"], "claim: 'a red ball' says ball, and no region is one"),
        ("An animal", ["cat"], ""),  # a cat is one
        ("A cat", ["animal"], ""),  # nobody looked closer
        # a dog is an animal, but that does not make it a cat
        ("A cat", ["dog"], "claim: 'A cat' says cat, and no region is one"),
        ("A cat", [], "claim: 'A cat' says cat, and no region is one"),
        ("A room with no cats", [], ""),
    ],
)
def test_claims(text, found, why):
    boxes = detections(*(box(0, 0, 9, 9, label=name) for name in found))
    decisions = claims(ANIMALS)(SAMPLE, [boxes, caption(text)])
    assert decisions[0].annotation == boxes.annotation
    assert (decisions[1].status, decisions[1].reason) == ("dropped" if why else "kept", why)


def test_claims_may_lower_the_score_instead():
    boxes = detections()
    (_, lowered) = claims(ANIMALS, at_most=0.2)(SAMPLE, [boxes, caption("A cat", score=0.9)])
    assert (lowered.status, lowered.annotation.score, lowered.parents) == ("kept", 0.2, ("c1",))
    assert lowered.reason == "claim: 'A cat' says cat, and no region is one: score at most 0.2"
    (_, same) = claims(ANIMALS, at_most=0.2)(SAMPLE, [boxes, caption("A cat", score=0.1)])
    assert same.annotation.score == 0.1


def test_claims_are_not_judged_where_nobody_looked_or_a_person_wrote():
    assert claims(ANIMALS)(SAMPLE, [caption("A cat")])[0].status == "kept"
    assert claims(ANIMALS)(SAMPLE, [detections(), caption("A cat", source="human")])[1].status == "kept"
    assert claims(Ontology())(SAMPLE, [detections(), caption("A cat")])[1].status == "kept"
    looked = Sample("image", "image.jpg", (100.0, 80.0), (Annotation("<OD>", source="human"),))
    assert claims(ANIMALS)(looked, [caption("A cat")])[0].status == "dropped"


@pytest.mark.parametrize(
    "make",
    [
        lambda: rf.score({"cat": 2}),
        lambda: rf.score(-1),
        lambda: rf.whole_image(95),
        lambda: rf.tiny(pixels=-1),
        lambda: rf.tiny(share="x"),
        lambda: rf.nms(1.5),
        lambda: rf.degenerate(-1),
        lambda: rf.too_many(0),
        lambda: rf.phrase_boxes(phrase=3),
        lambda: claims(ANIMALS, at_most=7),
    ],
)
def test_options_that_cannot_be_meant(make):
    with pytest.raises(OpenFlorenceError, match=r"lies between|or more"):
        make()
