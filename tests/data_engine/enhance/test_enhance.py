import pytest

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance import ENHANCERS, SOURCES, apply_enhancers, current, make_enhancers
from open_florence.data_engine.ontology import Ontology
from open_florence.errors import OpenFlorenceError
from open_florence.scenes import make_scene
from open_florence.schema import Annotation, Region, Sample
from open_florence.tasks import TASKS

GIVEN = ("<OD>", "<CAPTION>", "<REGION_TO_SEGMENTATION>", "<OCR_WITH_REGION>", "<DENSE_REGION_CAPTION>")


def scene(seed):
    sample = make_scene(seed).sample
    return sample, [Candidate(str(k), a) for k, a in enumerate(sample.annotations) if a.task in GIVEN]


@pytest.mark.parametrize("seed", range(8))
def test_additions_rest_on_what_was_given_and_can_be_written_and_read_again(seed):
    sample, candidates = scene(seed)
    additions = apply_enhancers(make_enhancers(), sample, candidates)
    ids = {candidate.id for candidate in candidates}
    assert {"<DETAILED_CAPTION>", "<REGION_PROPOSAL>"} <= {d.annotation.task for d in additions}
    for decision in additions:
        annotation = decision.annotation
        assert decision.parents
        assert set(decision.parents) <= ids
        assert len(set(decision.parents)) == len(decision.parents)
        assert (decision.status, annotation.source in SOURCES) == ("kept", True)
        TASKS[annotation.task].grammar.serialize(annotation, sample.size)  # the trainer can use it
        assert Annotation.from_json(annotation.to_json()).to_json() == annotation.to_json()


def test_the_same_labels_give_the_same_additions_and_what_was_derived_before_is_not_read():
    sample, candidates = scene(3)
    additions = apply_enhancers(make_enhancers(), sample, candidates)
    again = [*candidates, *(Candidate(f"old {k}", d.annotation) for k, d in enumerate(additions))]
    assert apply_enhancers(make_enhancers(), sample, again) == additions


def test_the_round_is_that_of_the_labels_and_nothing_is_said_twice():
    sample = Sample("x", "x.png", (100.0, 100.0))
    candidates = [Candidate("a", Annotation("<CAPTION>", "A dog", source="a@1", round=3))]

    def twice(sample, pool):
        return [Decision(Annotation("<OCR>", "STOP"), "kept", parents=(pool[-1].id,))]

    (addition,) = apply_enhancers([twice, twice], sample, candidates)
    assert (addition.annotation.round, addition.parents) == (3, ("a",))


def test_what_rests_on_an_addition_rests_on_what_that_rests_on():
    candidates = [Candidate("a", Annotation("<CAPTION>", "A dog", source="a@1"))]

    def chain(sample, pool):
        return [Decision(Annotation("<OCR>", f"{len(pool)}"), "kept", parents=(pool[-1].id,))]

    additions = apply_enhancers([chain, chain], Sample("x", "x.png", (9.0, 9.0)), candidates)
    assert [d.parents for d in additions] == [("a",), ("a",)]


def test_an_addition_stands_for_what_it_was_made_from():
    box = Region.box(0, 0, 9, 9, label="dog")
    described = Annotation("<DENSE_REGION_CAPTION>", regions=(box,), source="captioner@1")
    objects = Annotation("<OD>", regions=(box,), source="detector@1")
    stale = Annotation("<OCR>", "STOP", source="derived@1")
    better = Decision(Annotation("<DENSE_REGION_CAPTION>", regions=(box,)), "kept", parents=("0", "1"))
    candidates = [Candidate(str(k), one) for k, one in enumerate((described, objects, stale))]
    assert current(candidates, [better]) == [objects, better.annotation]


def test_tables_of_the_configuration():
    assert len(make_enhancers()) == len(ENHANCERS)
    sample, candidates = scene(1)
    (only,) = make_enhancers([{"name": "fill", "tasks": ["<OCR>"]}], Ontology(), tasks=["<REGION_PROPOSAL>"])
    assert {d.annotation.task for d in apply_enhancers([only], sample, candidates)} <= {"<OCR>"}
    (only,) = make_enhancers([{"name": "fill"}], tasks=["<REGION_PROPOSAL>"])
    assert {d.annotation.task for d in apply_enhancers([only], sample, candidates)} == {"<REGION_PROPOSAL>"}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"name": "polish"}, "there is no enhancer 'polish'; there are grounding, region_texts, description, fill"),
        ({"name": "grounding", "most": 3}, "the enhancer 'grounding' has no option 'most'; it takes least"),
        ({"name": "fill", "ontology": 1}, "the enhancer 'fill' has no option 'ontology'; it takes tasks"),
        ({"name": "fill", "tasks": 3}, "the enhancer 'fill' cannot be made"),
    ],
)
def test_mistakes_are_named(table, sentence):
    with pytest.raises(OpenFlorenceError, match=sentence):
        make_enhancers([table])
