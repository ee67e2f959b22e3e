"""What becomes of everything that was said about an image: nothing vanishes, and people have the last word."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.filters import make_filters
from open_florence.data_engine.fusion import Fusion, learn
from open_florence.data_engine.fusion.texts import TextChoice
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.settle import REJECTED, Settlement
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("a", "a.png", (100.0, 100.0))
ONTOLOGY = Ontology.of(("cat", "dog"))


def boxes(source, *labelled, **fields):
    regions = tuple(Region.box(x, x, x + 20, x + 20, label=label, score=0.9) for x, label in labelled)
    return Annotation("<OD>", regions=regions, source=source, **fields)


def ids(*annotations):
    return [Candidate(f"r{number}", annotation) for number, annotation in enumerate(annotations)]


def kept(decisions, task="<OD>"):
    return [
        (region.parts[0][0][0], region.label)
        for d in decisions
        if d.status == "kept" and d.annotation.task == task
        for region in d.annotation.regions
    ]


regions = st.lists(
    st.tuples(st.integers(0, 80), st.sampled_from(["cat", "dog", "ghost"])), max_size=4, unique_by=lambda one: one[0]
)


@given(st.lists(regions, min_size=1, max_size=4), st.sampled_from(["<OD>", "<REGION_PROPOSAL>"]))
def test_nothing_vanishes_without_fusion(several, task):
    said = [replace(boxes(f"s{k}@1", *some), task=task) for k, some in enumerate(several)]
    candidates = ids(*said)
    filters = make_filters([{"name": "ontology"}], ONTOLOGY)
    decisions = Settlement(filters, None, (), [f"s{k}@1" for k in range(len(several))])(SAMPLE, candidates)
    found = Counter((r.parts, d.annotation.source) for d in decisions for r in d.annotation.regions)
    assert found == Counter((r.parts, a.source) for a in said for r in a.regions)
    assert {parent for d in decisions for parent in d.parents} == {c.id for c in candidates}


def test_filters_come_before_fusion_and_parents_are_the_candidates():
    said = [boxes("a@1", (10, "cat"), (60, "ghost")), boxes("b@1", (11, "cat")), boxes("c@1", (9, "cat"))]
    reliability = learn([said] * 5)
    filters = make_filters([{"name": "ontology"}], ONTOLOGY)
    decisions = Settlement(filters, Fusion(reliability), ())(SAMPLE, ids(*said))
    (label,) = kept(decisions)
    assert label[1] == "cat"
    (fused,) = [d for d in decisions if d.status == "kept"]
    assert fused.parents == ("r0", "r1", "r2")
    assert any(d.reason.startswith("outside the ontology") for d in decisions)


def test_the_source_named_first_answers_what_nothing_else_decides():
    said = [replace(boxes(source, (10, "")), task="<REGION_PROPOSAL>") for source in ("b@1", "a@1")]
    decisions = Settlement(order=["a@1", "b@1"])(SAMPLE, ids(*said))
    assert {(d.annotation.source, d.status) for d in decisions} == {("a@1", "kept"), ("b@1", "dropped")}
    people = [*said, replace(said[0], source="human@file")]
    decisions = Settlement(order=["a@1", "b@1"])(SAMPLE, ids(*people))
    assert [d.annotation.source for d in decisions if d.status == "kept"] == ["human@file"]


def test_different_questions_are_answered_by_different_sources():
    said = [Annotation("<REGION_TO_CATEGORY>", "cat", query=Region.box(0, 0, x, x), source="a@1") for x in (5, 9)]
    said.append(replace(said[0], query=Region.box(1, 1, 2, 2), source="b@1"))
    assert all(d.status == "kept" for d in Settlement(order=["a@1", "b@1"])(SAMPLE, ids(*said)))


def test_what_a_person_rejected_goes():
    said = boxes("a@1", (10, "cat"), (60, "dog"))
    wrong = boxes("fusion@1", (12, "cat"))
    decisions = Settlement(order=["a@1"])(SAMPLE, ids(said), [wrong])
    assert kept(decisions) == [(60, "dog")]
    assert [d.reason for d in decisions if d.status == "dropped"] == [REJECTED]
    nothing = Settlement()(SAMPLE, ids(boxes("a@1", (10, "cat"))), [wrong])
    assert [d.annotation.regions for d in nothing if d.status == "kept"] == [()]  # looked at, and nothing is there
    another_name = boxes("fusion@1", (12, "dog"))
    assert len(kept(Settlement()(SAMPLE, ids(said), [another_name]))) == 2


def test_a_text_that_a_person_rejected_goes():
    said = [Annotation("<CAPTION>", text, source=f"{text[0]}@1") for text in ("a cat", "a dog")]
    decisions = Settlement(choices=[TextChoice(ONTOLOGY, keep=2)])(SAMPLE, ids(*said), [said[0]])
    assert {d.annotation.text: d.status for d in decisions} == {"a cat": "dropped", "a dog": "kept"}


def test_what_a_person_said_of_single_regions_stands_beside_the_rest():
    said = boxes("a@1", (10, "cat"), (60, "dog"))
    person = boxes("human@review", (12, "dog"), (35, "cat"), complete=False)
    decisions = Settlement(order=["a@1"])(SAMPLE, ids(said, person))
    assert sorted(kept(decisions)) == [(12, "dog"), (35, "cat"), (60, "dog")]
    assert {d.reason for d in decisions if d.status == "dropped"} == {"a person has labelled this place"}


def test_of_several_reviews_the_last_counts():
    first = boxes("human@review", (10, "cat"), (60, "dog"), complete=False, round=1)
    second = boxes("human@review", (11, "dog"), complete=False, round=2)
    decisions = Settlement()(SAMPLE, ids(first, second))
    assert sorted(kept(decisions)) == [(11, "dog"), (60, "dog")]
    gone = boxes("fusion@1", (60, "dog"), round=2)
    assert sorted(kept(Settlement()(SAMPLE, ids(first, second), [gone]))) == [(11, "dog")]
    before = boxes("fusion@1", (60, "dog"), round=1)
    assert sorted(kept(Settlement()(SAMPLE, ids(first, second), [before]))) == [(11, "dog"), (60, "dog")]
