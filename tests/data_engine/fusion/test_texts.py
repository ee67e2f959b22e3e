import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.things import find_things
from open_florence.data_engine.fusion.texts import TextChoice, agreement, support
from open_florence.data_engine.ontology import Ontology
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("x", "x.png", (100.0, 100.0))
OBJECTS = Candidate(
    "od", Annotation("<OD>", regions=(Region.box(0, 0, 9, 9, label="dog"), Region.box(20, 0, 30, 9, label="person")))
)


def said(name, text, task="<CAPTION>", score=None, source=None):
    return Candidate(name, Annotation(task, text, source=source or f"{name}@1", score=score))


def choose(*candidates, **options):
    return {d.annotation.text: d for d in TextChoice(**options)(SAMPLE, candidates)}


def test_captions_agree_as_far_as_they_say_the_same():
    assert agreement("A dog on a bench.", "the dog, on the bench") == pytest.approx(1)
    assert agreement("A puppy sits", "A dog sits") == pytest.approx(1)
    assert agreement("A dog", "A cat") == 0
    assert 0 < agreement("A red dog", "A dog") < 1


@given(st.lists(st.sampled_from(("a", "red", "dog", "cat", "runs", "on", "two", "benches")), max_size=6).map(" ".join))
def test_agreement_is_symmetric_and_full_with_itself(text):
    assert agreement(text, text) == pytest.approx(1)
    assert agreement(text, "a red dog") == pytest.approx(agreement("a red dog", text))
    assert 0 <= agreement(text, "a red dog") <= 1 + 1e-9


def test_what_captions_name_is_compared_with_the_regions():
    things = find_things([OBJECTS])
    ontology = Ontology.of(["dog", "person", "cat"])
    assert support("A man with a dog on the street", things, ontology) == 1
    assert support("A man with a cat", things, ontology) == 0.5
    assert support("A nice day", things, ontology) == 0
    assert support("A nice day", [], ontology) is None


def test_the_caption_that_agrees_most_is_kept():
    found = choose(
        said("a", "A man with a dog"), said("b", "A person and a dog"), said("c", "A cake on a plate"), OBJECTS
    )
    assert [text for text, d in found.items() if d.status == "kept"] == ["A man with a dog"]
    assert "with the regions" in found["A man with a dog"].reason
    assert "no more than the one kept" in found["A cake on a plate"].reason


def test_regions_decide_between_two():
    found = choose(said("a", "A cat"), said("b", "A dog and a man"), OBJECTS, ontology=Ontology.of(["cat"]))
    assert found["A dog and a man"].status == "kept"
    assert found["A cat"].status == "dropped"


def test_the_same_words_are_one_caption_of_several_parents():
    found = choose(said("a", "A dog", score=0.5), said("b", "A dog ", score=0.9), said("c", "A cat"))
    assert found["A dog "].parents == ("a", "b")
    assert found["A dog "].status == "kept"


def test_each_kind_is_chosen_for_itself_and_one_alone_is_kept():
    found = choose(said("a", "A dog"), said("b", "A dog that runs.", "<DETAILED_CAPTION>"))
    assert {d.status for d in found.values()} == {"kept"}


def test_what_a_person_wrote_stands():
    found = choose(said("a", "A dog"), said("h", "A wolf", source="human"), said("i", "One wolf", source="human"))
    assert {text: d.status for text, d in found.items()} == {"A dog": "dropped", "A wolf": "kept", "One wolf": "kept"}


@given(st.lists(st.sampled_from(["A dog", "A dog ", "A cat", "Two men", "A man and a dog"]), min_size=1, max_size=5))
def test_every_caption_is_in_one_decision_and_order_does_not_matter(texts):
    candidates = [said(str(k), text) for k, text in enumerate(texts)]
    decisions = TextChoice()(SAMPLE, [*candidates, OBJECTS])
    assert sorted(parent for d in decisions for parent in d.parents) == sorted(c.id for c in candidates)
    assert len({d.annotation.text.strip() for d in decisions if d.status == "kept"}) == 1
    again = TextChoice()(SAMPLE, [*reversed(candidates), OBJECTS])
    kept = [{d.annotation.text.strip() for d in some if d.status == "kept"} for some in (decisions, again)]
    assert kept[0] == kept[1]
