from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.fill import MOST_REGIONS, RULES, fill, missing
from open_florence.data_engine.ontology import Ontology
from open_florence.schema import Annotation, Region, Sample

DOG, CAT = Region.box(0, 0, 10, 10, label="dog", score=0.8), Region.box(20, 0, 30, 10, label="cat")
OBJECTS = Annotation("<OD>", regions=(DOG, CAT))


def derive(*annotations, image="x", **options):
    candidates = [Candidate(str(k), one) for k, one in enumerate(annotations)]
    return fill(**options)(Sample(image, "x.png", (100.0, 100.0)), candidates)


def answers(decisions, task):
    return [d.annotation for d in decisions if d.annotation.task == task]


def test_what_is_missing_is_named_in_order_and_once():
    assert missing([OBJECTS], ["<OCR>", "<OD>", "<CAPTION>", "<OCR>"]) == ["<OCR>", "<CAPTION>"]


def test_objects_give_proposals_and_categories():
    decisions = derive(OBJECTS, tasks=["<REGION_PROPOSAL>", "<REGION_TO_CATEGORY>"])
    (proposals,) = answers(decisions, "<REGION_PROPOSAL>")
    assert proposals.regions == (Region.box(0, 0, 10, 10, score=0.8), Region.box(20, 0, 30, 10, score=1.0))
    categories = answers(decisions, "<REGION_TO_CATEGORY>")
    assert [(a.query, a.text, a.score) for a in categories] == [
        (Region.box(0, 0, 10, 10), "dog", 0.8),
        (Region.box(20, 0, 30, 10), "cat", 1.0),
    ]
    assert {d.annotation.source for d in decisions} == {"derived@1"}
    assert {d.parents for d in decisions} == {("0",)}


def test_words_give_the_text_and_each_word_its_question():
    quad = Region("quad", (((0, 0), (10, 0), (10, 5), (0, 5)),), label="STOP")
    below = Region.box(0, 20, 10, 25, label="HERE")
    decisions = derive(Annotation("<OCR_WITH_REGION>", regions=(below, quad)))
    assert [a.text for a in answers(decisions, "<OCR>")] == ["STOP\nHERE"]
    assert {(a.query.parts, a.text) for a in answers(decisions, "<REGION_TO_OCR>")} == {
        (((((0, 0), (10, 5)),)), "STOP"),
        ((((0, 20), (10, 25)),), "HERE"),
    }


def test_descriptions_are_those_that_were_chosen():
    first = Annotation("<DENSE_REGION_CAPTION>", regions=(Region.box(0, 0, 10, 10, label="a dog"),), source="c@1")
    chosen = Annotation("<DENSE_REGION_CAPTION>", regions=(Region.box(0, 0, 10, 10, label="red dog"),))
    assert [a.text for a in answers(derive(first), "<REGION_TO_DESCRIPTION>")] == ["a dog"]
    best = Annotation(chosen.task, regions=chosen.regions, source="region-texts@1")
    assert [a.text for a in answers(derive(first, best), "<REGION_TO_DESCRIPTION>")] == ["red dog"]


def test_now_and_then_an_absent_class_is_asked_for():
    ontology = Ontology.of(["dog", "cat", "cow"])
    found = [
        a
        for k in range(60)
        for a in derive(OBJECTS, image=str(k), ontology=ontology)
        if "cow" in str(a.annotation.query)
    ]
    assert 10 < len(found) < 40
    assert {d.annotation.regions for d in found} == {()}
    assert {d.reason for d in found} == {"no region of the class, which was looked for"}
    assert not any("cow" in str(d.annotation.query) for k in range(20) for d in derive(image=str(k), ontology=ontology))


def test_what_is_there_or_not_wanted_is_not_derived():
    there = Annotation("<REGION_PROPOSAL>", regions=(DOG,))
    assert answers(derive(OBJECTS, there), "<REGION_PROPOSAL>") == []
    assert derive(OBJECTS, tasks=["<OD>", "<CAPTION>"]) == []
    assert derive() == []


boxes = st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 50)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
labelled = st.lists(st.tuples(boxes, st.sampled_from(["dog", "cat", "", "red kite"])), max_size=10)


@settings(max_examples=50)
@given(labelled, labelled, st.text(max_size=3))
def test_everything_derived_was_there_is_there_once_and_comes_again(objects, words, image):
    annotations = [
        Annotation(task, regions=tuple(Region.box(*box, label=label) for box, label in some))
        for task, some in (("<OD>", objects), ("<OCR_WITH_REGION>", words))
    ]
    decisions = derive(*annotations, image=image)
    assert decisions == derive(*annotations, image=image)
    places = {region.parts for annotation in annotations for region in annotation.regions}
    for decision in decisions:
        regions = [*decision.annotation.regions]
        regions += [decision.annotation.query] if isinstance(decision.annotation.query, Region) else []
        assert all(region.parts in places for region in regions)
        assert len({(region.parts, region.label) for region in regions}) == len(regions)
        assert decision.annotation.task in RULES
        assert set(decision.parents) <= {"0", "1"}
    asked = [(d.annotation.task, d.annotation.query, d.annotation.text) for d in decisions]
    assert len(set(asked)) == len(asked)
    assert len(answers(decisions, "<REGION_TO_CATEGORY>")) <= MOST_REGIONS
