"""Filters together: nothing is lost, nothing changes twice, the order of candidates decides nothing; and thresholds."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.filters import DEFAULTS, FILTERS, apply_filters, make_filters
from open_florence.data_engine.filters.thresholds import fit_thresholds, wilson_bound
from open_florence.data_engine.ontology import Ontology, OntologyClass
from open_florence.data_engine.partition import rule_of
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("image", "image.jpg", (60.0, 40.0))
ONTOLOGY = Ontology((OntologyClass("cat", ("kitten",), threshold=0.4), OntologyClass("dog")), blacklist=("sky",))
TEXT = "A cat and the sky, it is a dog with a dog"
OPTIONS = {
    "score": {"thresholds": 0.5},
    "tiny": {"share": 0.01},
    "too_many": {"most": 3},
    "blacklist": {"phrases": ["sky"]},
}

numbers = st.sampled_from([-10.0, 0.0, 1.0, 2.0, 10.0, 11.0, 30.0, 40.0, 60.0])
scores = st.sampled_from([None, 0.1, 0.4, 0.45, 0.9])
spans = st.sampled_from([None, (0, 5), (10, 17), (19, 21), (25, 30)])
labels = st.sampled_from(["cat", "Kittens", "dog", "tree", ""])
boxes = st.builds(
    lambda a, b, c, d, label, score, sure, span: Region("box", (((a, b), (c, d)),), label, score, sure, span),
    *[numbers] * 4,
    labels,
    scores,
    scores,
    spans,
)
tasks = st.sampled_from(["<OD>", "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_SEGMENTATION>", "<DENSE_REGION_CAPTION>"])
sources = st.sampled_from(["detector@1", "other@2", "human"])
regional = st.builds(lambda task, regions, source: Annotation(task, TEXT, tuple(regions), source=source), tasks,
                     st.lists(boxes, max_size=5), sources)  # fmt: skip
texts = st.builds(
    lambda task, text, source: Annotation(task, text, source=source),
    st.sampled_from(["<CAPTION>", "<DETAILED_CAPTION>", "<REGION_TO_CATEGORY>", "<OCR>"]),
    st.sampled_from(["cat", "a cat", "a dog on a mat", "the the the sky", "tree", ""]),
    sources,
)
images = st.lists(st.one_of(regional, texts), max_size=5).map(
    lambda said: [Candidate(f"r{k}", annotation) for k, annotation in enumerate(said)]
)
names = st.sampled_from(sorted(FILTERS))


def made(*filters):
    return make_filters([{"name": name, **OPTIONS.get(name, {})} for name in filters], ONTOLOGY, ["another"])


def pieces(annotations):
    """How often each region occurs, whatever it is called."""
    return Counter((a.task, a.source, replace(r, label="")) for a in annotations for r in a.regions)


@given(images, st.lists(names, max_size=5))
def test_every_region_of_every_candidate_is_in_exactly_one_decision(candidates, filters):
    decisions = apply_filters(made(*filters), SAMPLE, candidates)
    assert pieces(d.annotation for d in decisions) == pieces(c.annotation for c in candidates)
    assert {parent for d in decisions for parent in d.parents} == {c.id for c in candidates}
    by_parent = {c.id: c.annotation for c in candidates}
    for decision in decisions:
        (parent,) = decision.parents
        assert pieces([decision.annotation]) <= pieces([by_parent[parent]])
        assert decision.status == "kept" or rule_of(decision.reason) != decision.reason
    kept = [d.parents for d in decisions if d.status == "kept"]
    assert len(kept) == len(set(kept))


@given(images, st.lists(names, min_size=1, max_size=5))
def test_what_is_kept_is_kept_again(candidates, filters):
    chain = made(*filters)
    kept = [d for d in apply_filters(chain, SAMPLE, candidates) if d.status == "kept"]
    # one filter at a time is idempotent; a chain is, once no filter takes away what an earlier one looked at
    for one in chain:
        once = [d for d in apply_filters([one], SAMPLE, candidates) if d.status == "kept"]
        again = apply_filters([one], SAMPLE, [Candidate(d.parents[0], d.annotation) for d in once])
        assert [d.annotation for d in again] == [d.annotation for d in once]
    if "claims" not in filters:
        again = apply_filters(chain, SAMPLE, [Candidate(d.parents[0], d.annotation) for d in kept])
        assert [(d.annotation, d.status) for d in again] == [(d.annotation, "kept") for d in kept]


@given(images, st.lists(names, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_decides_nothing(candidates, filters, dice):
    shuffled = dice.sample(candidates, len(candidates))
    first, second = (apply_filters(made(*filters), SAMPLE, each) for each in (candidates, shuffled))
    assert Counter(map(repr, first)) == Counter(map(repr, second))


def test_kept_ones_go_on_and_dropped_ones_are_collected():
    regions = tuple(
        Region.box(0, 0, 5, 5, label=name, score=s) for name, s in (("Kitten", 0.3), ("cat", 0.9), ("x", 0.9))
    )
    (kept, outside, low) = apply_filters(
        made("ontology", "score"), SAMPLE, [Candidate("r", Annotation("<OD>", "", regions))]
    )
    assert [region.label for region in kept.annotation.regions] == ["cat"]
    assert outside.reason == "outside the ontology: x"
    assert low.reason == "score: 0.30 under 0.4 for cat"
    assert {kept.parents, outside.parents, low.parents} == {("r",)}


def test_reasons_to_keep_are_joined_and_parents_are_the_first_ones():
    def join(sample, candidates):
        both = replace(candidates[0].annotation, regions=tuple(r for c in candidates for r in c.annotation.regions))
        return [Decision(both, "kept", "fused 2", tuple(c.id for c in candidates))]

    def lower(sample, candidates):
        return [Decision(replace(c.annotation, score=0.1), "kept", "lowered", (c.id,)) for c in candidates]

    def cut(sample, candidates):
        return [Decision(c.annotation, "dropped", "cut: all", (c.id,)) for c in candidates]

    candidates = [Candidate(name, Annotation("<OD>", regions=(Region.box(0, 0, 5, 5),))) for name in "ab"]
    (decision,) = apply_filters([join, lower], SAMPLE, candidates)
    assert (decision.reason, decision.parents) == ("fused 2; lowered", ("a", "b"))
    (decision,) = apply_filters([join, lower, cut], SAMPLE, candidates)
    assert (decision.status, decision.reason, decision.parents) == ("dropped", "cut: all", ("a", "b"))


def test_without_filters_everything_is_kept():
    candidates = [Candidate("r", Annotation("<CAPTION>", "a cat"))]
    assert apply_filters([], SAMPLE, candidates) == [Decision(candidates[0].annotation, "kept", "", ("r",))]


def test_the_defaults_can_be_made():
    assert len(make_filters([])) == len(DEFAULTS)
    assert FILTERS.keys() >= set(DEFAULTS)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"name": "scores"}, "there is no filter 'scores'"),
        ({"name": "nms", "iou": 0.5}, "the filter 'nms' has no option 'iou'; it takes threshold"),
        ({"name": "claims", "ontology": "x"}, "the filter 'claims' has no option 'ontology'"),
        ({"name": "blacklist"}, "the filter 'blacklist' cannot be made"),
        ({"name": "too_many", "most": "x"}, "the filter 'too_many' cannot be made"),
        ({"name": "score", "thresholds": "high"}, "the filter 'score' cannot be made"),
        ({"name": "score", "thresholds": {"cat": 3}}, "the threshold of cat lies between 0 and 1"),
    ],
)
def test_a_table_that_cannot_be_meant_is_one_sentence(table, sentence):
    with pytest.raises(OpenFlorenceError) as error:
        make_filters([table])
    assert sentence in str(error.value)


judged = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), max_size=80
)


@given(judged, st.floats(0.05, 0.99), st.floats(0.05, 0.99))
def test_more_precision_never_lowers_a_threshold(triples, one, other):
    low, high = sorted([one, other])
    lower, higher = fit_thresholds(triples, low, enough=10), fit_thresholds(triples, high, enough=10)
    assert lower.keys() == higher.keys() == {"default"} | {name for name, _, _ in triples}
    assert all(lower[name] <= higher[name] for name in lower)


@given(judged, st.floats(0.5, 0.95))
def test_a_fitted_threshold_is_the_lowest_that_reaches_the_precision(triples, precision):
    fitted = fit_thresholds(triples, precision, enough=10)
    for name in {name for name, _, _ in triples}:
        own = [(score, right) for other, score, right in triples if other == name]
        if len(own) < 10:
            assert fitted[name] == fitted["default"]
            continue
        bounds = {
            at: wilson_bound(sum(right for score, right in own if score >= at), sum(score >= at for score, _ in own))
            for at in {score for score, _ in own}
        }
        good = [at for at, bound in bounds.items() if bound >= precision]
        assert fitted[name] == (min(good) if good else max(at for at in bounds if bounds[at] == max(bounds.values())))


def test_the_precision_holds_on_others():
    """A threshold fitted on one draw reaches the precision on the truth in about nine draws of ten."""
    dice = random.Random(0)
    reached = 0
    for _ in range(200):
        draw = [("cat", score, dice.random() < score) for score in (dice.random() for _ in range(200))]
        at = fit_thresholds(draw, 0.8)["cat"]
        reached += (1 + at) / 2 >= 0.8  # the mean of a score that is its own probability, above `at`
    assert reached >= 160


def test_wilson_by_hand():
    assert wilson_bound(0, 0) == 0
    assert wilson_bound(20, 20) == pytest.approx(20 / (20 + 1.2815516**2))
    assert wilson_bound(0, 5) == 0
    with pytest.raises(OpenFlorenceError, match="precision"):
        fit_thresholds([], 0)
