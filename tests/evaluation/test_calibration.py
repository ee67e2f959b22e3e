"""Calibration error against numbers worked out by hand, curves against scipy's isotonic regression, and what holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation import calibration
from open_florence.evaluation.calibration import (
    Bin,
    calibrate,
    ece_rows,
    expected_calibration_error,
    fit_curve,
    held_out,
    outcomes,
    reliability,
)
from open_florence.evaluation.metrics import METRICS, Answers
from open_florence.schema import Annotation, Region

SIZE = (100.0, 100.0)


def region(x, label="cat", score=None, label_score=None):
    return Region("box", (((float(x), 0.0), (x + 10.0, 10.0)),), label, score, label_score)


def answers_of(pairs, task="<OD>", ignored=()):
    """`Answers` of (true, found) regions, an image each."""
    answers = Answers()
    for image, (true, found) in enumerate(pairs):
        annotations = [Annotation(task, regions=tuple(regions)) for regions in (true, found)]
        answers.add(*annotations, image, SIZE, ignored=ignored)
    return answers


# --- expected calibration error

SCORES = [0.9, 0.1, 0.6, 0.2, 0.8, 0.45]
RIGHT = [1, 0, 0, 1, 1, 1]


def test_bins_of_equal_mass_by_hand():
    """.1 .2 | .45 .6 | .8 .9: means .15 .525 .85, right .5 .5 1."""
    table = reliability(SCORES, RIGHT, bins=3)
    assert [row.count for row in table] == [2, 2, 2]
    assert [row.score for row in table] == pytest.approx([0.15, 0.525, 0.85])
    assert [row.right for row in table] == [0.5, 0.5, 1.0]
    assert expected_calibration_error(SCORES, RIGHT, bins=3) == pytest.approx((0.35 + 0.025 + 0.15) / 3)


def test_bins_of_equal_width_by_hand():
    """0 to .25: .1 .2; to .5: .45; to .75: .6; to 1: .8 .9."""
    table = reliability(SCORES, RIGHT, bins=4, equal_mass=False)
    assert [(row.count, row.right) for row in table] == [(2, 0.5), (1, 1.0), (1, 0.0), (2, 1.0)]
    expected = (2 * 0.35 + 0.55 + 0.6 + 2 * 0.15) / 6
    assert expected_calibration_error(SCORES, RIGHT, bins=4, equal_mass=False) == pytest.approx(expected)


def test_edges_of_the_scale_have_a_bin():
    assert reliability([0.0, 1.0], [0, 1], bins=5, equal_mass=False) == [Bin(1, 0.0, 0.0), Bin(1, 1.0, 1.0)]
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert np.isnan(expected_calibration_error([], []))
    with pytest.raises(OpenFlorenceError, match="between 0 and 1"):
        reliability([1.2], [1])


def test_scores_that_are_probabilities_have_next_to_no_error():
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    right = rng.random(20_000) < scores
    assert expected_calibration_error(scores, right) < 0.02
    assert expected_calibration_error(scores**3, right) > 0.15


# --- which regions are right


def test_right_is_the_best_one_of_the_right_label_on_a_true_region():
    true = [region(0), region(50, "dog")]
    found = [region(1, score=0.5), region(0, score=0.4), region(50, "cat", 0.9), region(50, "dog", 0.8, 0.5)]
    judged = outcomes(answers_of([(true, found), ([], [region(0, score=0.3)])]))
    found = sorted(zip(judged.scores.tolist(), judged.right.tolist(), judged.images.tolist(), strict=True))
    assert found == [(0.3, 0, 1), (0.4, 0, 0), (0.4, 1, 0), (0.5, 1, 0), (0.9, 0, 0)]


def test_what_lies_in_an_ignored_place_is_not_judged():
    found = [region(0, score=0.5), region(50, score=0.6)]
    judged = outcomes(answers_of([([region(0)], found)], ignored=(region(50),)))
    assert judged.scores.tolist() == [0.5]


def test_the_table_of_detection_has_a_row():
    answers = answers_of([([region(0)], [region(0, score=0.5)]), ([region(0)], [region(60, score=0.25)])])
    rows = {row.key: row for row in METRICS["<OD>"](answers)}
    assert rows["od_ece"].value == pytest.approx((0.5 + 0.25) / 2)
    assert rows["od_ece"].count == 2
    assert ece_rows("od", "detection", answers_of([([region(0)], [region(0)])])) == []


# --- the curve


def test_pools_are_those_of_isotonic_regression(monkeypatch):
    monkeypatch.setattr(calibration, "GROUP", 1)
    rng = np.random.default_rng(3)
    scores = np.sort(rng.random(60))
    right = (rng.random(60) < scores).astype(float)
    curve = fit_curve(scores, right)
    expected = isotonic_regression(right / 2)
    added = (right.sum() + 0.5) / 61 / 2
    blocks = np.split(np.arange(60), expected.blocks[1:-1])
    assert curve.scores[1:-1] == pytest.approx([scores[block].mean() for block in blocks])
    assert curve.probabilities[1:-1] == pytest.approx([expected.x[block[0]] + added for block in blocks])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]) | st.floats(0, 1), st.booleans()), min_size=1),
    st.integers(1, 7),
)
def test_it_rises_everywhere_and_stays_between_0_and_1(pairs, group):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "GROUP", group)
        curve = fit_curve(*zip(*pairs, strict=True))
    values = [curve(score) for score in np.linspace(0, 1, 101)]
    assert values[0] > 0
    assert values[-1] < 1
    assert np.all(np.diff(values) > 0)


def test_a_known_distortion_is_undone():
    rng = np.random.default_rng(1)
    probability = rng.random(4000)
    right = rng.random(4000) < probability
    curve = fit_curve(probability**4, right)
    found = np.array([curve(score) for score in probability**4])
    assert np.abs(found - probability).mean() < 0.04
    assert expected_calibration_error(found, right) < 0.02


def test_nothing_to_fit_on():
    with pytest.raises(OpenFlorenceError, match="needs regions"):
        fit_curve([], [])


# --- fitting and reporting apart


def test_no_region_is_judged_by_a_curve_that_saw_its_image():
    """Images 0, 2, ... are all right and 1, 3, ... all wrong: each half is promised what the other half showed."""
    pairs = [([region(0)], [region(0 if image % 2 == 0 else 60, score=0.5)]) for image in range(200)]
    judged = outcomes(answers_of(pairs))
    promised = held_out(judged)
    assert promised[judged.images % 2 == 0].max() < 0.05
    assert promised[judged.images % 2 == 1].min() > 0.95


def test_tasks_are_calibrated_each_by_itself_and_thin_ones_not_at_all():
    rng = np.random.default_rng(0)
    enough = []
    for _ in range(150):
        sure = rng.random()
        enough.append(([region(0)], [region(0 if rng.random() < sure else 60, score=sure**3)]))
    fitted, rows, problems = calibrate(
        {
            "<OD>": answers_of(enough),
            "<CAPTION>": answers_of([((), ())], "<CAPTION>"),
            "<DENSE_REGION_CAPTION>": answers_of(enough[:5], "<DENSE_REGION_CAPTION>"),
        }
    )
    assert list(fitted.curves) == [row.task for row in rows] == ["<OD>"]
    assert rows[0].after < rows[0].before
    assert problems == ["<DENSE_REGION_CAPTION> is not calibrated: 5 regions are too few, 100 are needed"]
    honest = [([region(0)], [region(0 if image % 10 < 9 else 60, score=0.9)]) for image in range(200)]
    with pytest.raises(OpenFlorenceError, match=r"the error of its scores is 0\.000 as they are"):
        calibrate({"<OD>": answers_of(honest)})
    with pytest.raises(OpenFlorenceError, match="5 regions are too few"):
        calibrate({"<OD>": answers_of(enough[:5])})
    with pytest.raises(OpenFlorenceError, match="no answer holds a region"):
        calibrate({})
