"""Drift: distances against their textbook values, what chance gives, and whose labels the round rests on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.audit.drift import Drift, drift, jensen_shannon, kolmogorov_smirnov
from open_florence.data_engine.audit.profile import Profile
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region

SIZE = (100.0, 100.0)


def od(*things, source="fusion@1"):
    """`things`: (label, side, score) of squares in a row."""
    regions = tuple(
        Region.box(20 * k, 0, 20 * k + side, side, label=label, score=score)
        for k, (label, side, score) in enumerate(things)
    )
    return Annotation("<OD>", regions=regions, source=source)


def profile(images, said=()):
    made = Profile()
    for labels in images:
        made.add(SIZE, labels, said)
    return made


COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=1)


@given(COUNTS, COUNTS)
def test_jensen_shannon_is_a_distance(a, b):
    distance, chance = jensen_shannon(a, b)
    assert 0 <= distance <= 1 + 1e-9
    assert 0 <= chance <= 1
    assert distance == pytest.approx(jensen_shannon(b, a)[0])
    assert jensen_shannon(a, a)[0] == 0.0
    assert jensen_shannon(a, {name: 3 * count for name, count in a.items()})[0] == pytest.approx(0.0, abs=1e-7)


def test_jensen_shannon_of_known_shares():
    assert jensen_shannon({"a": 1}, {"b": 5})[0] == pytest.approx(1.0)
    assert jensen_shannon({"a": 1, "b": 1}, {"a": 1})[0] == pytest.approx(0.5579, abs=1e-4)  # sqrt(.31128 bits)


STEPS = st.dictionaries(st.integers(0, 9), st.integers(1, 50), min_size=1)


@given(STEPS, STEPS)
def test_kolmogorov_smirnov_is_the_largest_gap_of_cumulative_shares(a, b):
    first, second = (np.array([counts.get(k, 0) for k in range(10)]).cumsum() for counts in (a, b))
    expected = np.abs(first / first[-1] - second / second[-1]).max()
    assert kolmogorov_smirnov(a, b)[0] == pytest.approx(expected)


def test_chance_is_exceeded_as_rarely_as_it_says():
    generator = np.random.default_rng(0)
    over = np.zeros(2)
    shares = [0.5, 0.3, 0.1, 0.05, 0.05]
    for _ in range(1000):
        draws = [generator.multinomial(size, shares) for size in (400, 700)]
        a, b = ({k: int(n) for k, n in enumerate(draw)} for draw in draws)
        for place, test in enumerate((jensen_shannon, kolmogorov_smirnov)):
            distance, chance = test(a, b)
            over[place] += distance > chance
    assert over[0] <= 6  # 1 expected; 7 or more happen once in 10000
    assert over[1] <= 6


def test_equal_rounds_do_not_drift():
    same = profile([[od(("cat", 10, 0.9), ("dog", 5, 0.4)), Annotation("<CAPTION>", "a cat and a dog")]] * 20)
    found = drift(same, {"round 0": same})
    assert found.warnings == ()
    assert {shift.measure for shift in found.shifts} == {"classes", "score", "size", "words"}
    assert all(shift.distance == 0.0 for shift in found.shifts)


def test_what_moved_is_said_in_words():
    before = profile([[od(("cat", 10, 0.9), ("bolt", 10, 0.9)), Annotation("<CAPTION>", "a cat")]] * 100)
    now = profile([[od(("cat", 18, 0.4)), Annotation("<CAPTION>", "a cat that sits on a mat")]] * 100)
    warnings = drift(now, {"round 0": before}).warnings
    assert "'bolt' of <OD> has no label any more, it had 100 in round 0" in warnings
    assert any("the classes of <OD> moved by" in w and "'bolt' 50.0% -> 0.0%" in w for w in warnings)
    assert any("the scores of <OD> moved by 1.00" in w and "0.90 to 0.40" in w for w in warnings)
    assert any("the sizes of <OD> moved by 1.00" in w and "0.10 to 0.18" in w for w in warnings)
    assert any("the lengths in words of <CAPTION> moved by 1.00" in w and "2 to 7" in w for w in warnings)


def test_few_labels_drift_by_chance():
    before, now = profile([[od(("cat", 10, 0.9))]] * 2), profile([[od(("dog", 30, 0.1))]] * 2)
    assert drift(now, {"round 0": before}).warnings == ()


def test_versions_of_a_source_are_compared_with_each_other():
    before = profile([[od(("cat", 10, 0.9), source="student@round-1")]] * 50)
    now = profile([[od(("cat", 10, 0.3), source="student@round-2")]] * 50)
    shifts = [shift for shift in drift(now, {"the last round": before}).shifts if shift.source == "student"]
    assert {shift.measure: shift.distance for shift in shifts}["score"] == 1.0


def test_whose_labels_the_round_rests_on():
    labels = [od(("cat", 10, 0.9), ("dog", 10, 0.9), ("cow", 10, 0.9))]
    said = [
        od(("cat", 10, 0.9), source="detector@1"),
        od(("cat", 10, 0.8), ("dog", 10, 0.9), source="student@round-1"),
        od(("cat", 10, 0.8), ("dog", 10, 0.9), source="student@round-2"),
    ]
    shares = {part.class_name: part for part in drift(profile([labels] * 6, said), {}).model_shares}
    assert (shares[""].labels, shares[""].model_only) == (18, 6)
    assert [shares[name].share for name in ("cat", "dog", "cow")] == [0.0, 1.0, 0.0]  # nobody stands behind the cow
    warnings = drift(profile([labels] * 6, said), {}).warnings
    assert warnings == ("only the model stands behind 100% of the 6 labels of 'dog' of <OD>",)


def test_a_students_own_label_is_the_models_alone():
    own = profile([[od(("cat", 10, 0.9), source="student@round-2"), Annotation("<OCR>", "", source="student@round-2")]])
    (part, _) = drift(own, {}).model_shares
    assert (part.labels, part.model_only) == (1, 1)  # saying nothing is no label


def test_json_round_trips(tmp_path):
    made = profile([[od(("cat", 10, 0.9)), Annotation("<CAPTION>", "a cat", score=0.5)]], [od(("cat", 10, 1.0))])
    made.write(tmp_path / "profile.json")
    again = Profile.read(tmp_path / "profile.json")
    assert dict(again.parts) == dict(made.parts)
    found = drift(made, {"round 0": again})
    assert Drift.from_json(found.to_json()) == found
    assert len(found.table().splitlines()) == len(found.shifts) + len(found.model_shares) + 5
    for damaged in ("{", '[{"task": 1}]', "[1]"):
        (tmp_path / "profile.json").write_text(damaged)
        with pytest.raises(OpenFlorenceError, match=r"profile\.json is damaged"):
            Profile.read(tmp_path / "profile.json")
    with pytest.raises(OpenFlorenceError, match="cannot be read"):
        Profile.read(tmp_path / "none.json")
    with pytest.raises(ValueError, match="no drift report"):
        Drift.from_json({})
