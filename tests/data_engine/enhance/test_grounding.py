from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.grounding import CAPTIONS, MASKS, REFERRING, TASK, grounding
from open_florence.data_engine.enhance.words import counted, joined
from open_florence.data_engine.ontology import Ontology
from open_florence.scenes import make_scene
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("x", "x.png", (100.0, 100.0))
DOG = Region.box(10, 10, 40, 40, label="dog", score=0.9)
CAPTION = "A dog with a red kite."
SPAN = (0, 5)


def ground(*annotations, **options):
    candidates = [Candidate(str(k), annotation) for k, annotation in enumerate(annotations)]
    return grounding(**options)(SAMPLE, candidates)


def caption(text=CAPTION, source="captioner@1"):
    return Annotation("<CAPTION>", text, source=source)


def objects(*regions):
    return Annotation("<OD>", regions=regions, source="detector@1")


def grounded_by_a_model(*regions, text=CAPTION, source="grounder@1"):
    return Annotation(TASK, text, regions, query=text, source=source)


def test_a_phrase_gets_its_region_with_span_and_score():
    (decision,) = ground(caption(), objects(DOG))
    annotation = decision.annotation
    assert annotation.text == annotation.query == CAPTION
    assert annotation.regions == (replace(DOG, label="A dog", span=SPAN),)
    assert annotation.source == "grounding@1"
    assert annotation.score == 0.9
    assert decision.parents == ("0", "1")
    assert decision.reason == "1 of 2 phrases found"


def test_without_a_phrase_that_is_found_there_is_nothing():
    assert ground(caption("A cat."), objects(DOG)) == []
    assert ground(caption(), objects(replace(DOG, score=0.4))) == []
    assert ground(caption(), objects(replace(DOG, score=0.4)), least=0.3) != []


def test_the_blacklist_of_the_ontology_counts():
    assert ground(caption(), objects(DOG), ontology=Ontology(blacklist=("dog",))) == []


def test_what_a_model_supports_too_is_surer():
    near = Region.box(10, 10, 40, 42, label="A dog", score=0.5)
    far = Region.box(60, 60, 90, 90, label="A dog", score=0.5)
    (decision,) = ground(caption(), objects(DOG), grounded_by_a_model(replace(near, span=SPAN), far))
    (region,) = decision.annotation.regions
    assert region.parts == DOG.parts
    assert region.score == pytest.approx(1 - 0.1 * 0.5)
    assert decision.parents == ("0", "1", "2")


def test_where_model_and_labels_disagree_the_surer_is_believed():
    far = Region.box(60, 60, 90, 90, label="A dog", score=0.95)
    (decision,) = ground(caption(), objects(DOG), grounded_by_a_model(replace(far, span=SPAN)))
    assert [region.parts for region in decision.annotation.regions] == [far.parts]


def test_phrases_that_only_a_model_places_are_added_but_not_pronouns():
    kite = Region.box(50, 0, 60, 10, label="a red kite", score=0.6)
    text = "A dog with a red kite. It flies."
    model = grounded_by_a_model(kite, Region.box(0, 0, 9, 9, label="It", score=0.9), text=text)
    (decision,) = ground(caption(text), objects(DOG), model)
    assert [(r.label, r.span) for r in decision.annotation.regions] == [("A dog", (0, 5)), ("a red kite", (11, 21))]


def test_a_caption_that_a_person_has_grounded_is_left_alone():
    assert ground(caption(), objects(DOG), grounded_by_a_model(source="human")) == []


def mask_of(region):
    x1, y1, x2, y2 = (*region.parts[0][0], *region.parts[0][1])
    outline = Region("polygon", (((x1, y1), (x2, y1), (x2, y2)),), score=0.8)
    return Annotation(MASKS, regions=(outline,), query=Region("box", region.parts), source="segmenter@1")


def test_a_phrase_that_means_one_thing_can_be_asked_for_its_mask():
    _, referring = ground(caption(), objects(DOG), mask_of(DOG))
    assert referring.annotation.task == REFERRING
    assert referring.annotation.query == "A dog"
    assert referring.annotation.regions[0].kind == "polygon"
    assert referring.annotation.score == 0.8
    assert referring.parents == ("2", "1")


def test_a_phrase_that_might_mean_another_is_not_asked_for():
    other = Region.box(60, 10, 90, 40, label="dog")
    decisions = ground(caption("A dog on the left. Two dogs."), objects(DOG, other), mask_of(DOG), mask_of(other))
    assert [d.annotation.task for d in decisions] == [TASK]


def precision_and_recall(seeds, tasks):
    right = made = wanted = 0
    for seed in seeds:
        sample = make_scene(seed).sample
        given_to = [a for a in sample.annotations if a.task in (*CAPTIONS[:2], *tasks)]
        truth = {a.text: {(r.span, r.parts) for r in a.regions} for a in sample.annotations if a.task == TASK}
        candidates = [Candidate(str(k), annotation) for k, annotation in enumerate(given_to)]
        found = {d.annotation.text: d.annotation for d in grounding()(sample, candidates)}
        for text in {a.text for a in given_to if a.task in CAPTIONS}:
            regions = found[text].regions if text in found else ()
            right += len({(r.span, r.parts) for r in regions} & truth[text])
            made += len(regions)
            wanted += len(truth[text])
    return right / made, right / wanted


def test_the_known_groundings_of_scenes_are_recovered():
    precision, recall = precision_and_recall(range(40), ("<OD>", "<DENSE_REGION_CAPTION>"))
    assert precision > 0.99
    assert recall > 0.95


def test_without_descriptions_what_cannot_be_told_apart_is_left_out():
    precision, recall = precision_and_recall(range(40), ("<OD>",))
    assert precision > 0.98
    assert 0.5 < recall < 0.95


NOUNS = ("dog", "cat", "person", "red box", "teddy bear")
boxes = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(
    things=st.lists(st.tuples(boxes, st.sampled_from(NOUNS), st.floats(0, 1)), max_size=6),
    said=st.lists(st.tuples(st.sampled_from(NOUNS), st.integers(1, 4)), max_size=4),
    seen=st.lists(boxes, max_size=3),
)
def test_spans_regions_and_duplicates(things, said, seen):
    text = f"The image shows {joined(counted(noun, count) for noun, count in said)}."
    phrase = text[16:-1].split(",")[0]
    labelled = objects(*(Region.box(*box, label=noun, score=score) for box, noun, score in things))
    model = grounded_by_a_model(*(Region.box(*box, label=phrase, score=0.6) for box in seen), text=text)
    places = {region.parts for region in (*labelled.regions, *model.regions)}
    for decision in ground(caption(text), labelled, model, least=0.0):
        regions = decision.annotation.regions
        assert all(region.span and text[slice(*region.span)] == region.label for region in regions)
        assert all(region.parts in places for region in regions)
        assert len({(region.span, region.parts) for region in regions}) == len(regions)
        assert all(0 <= region.score <= 1 for region in regions)
