"""The map from scores to probabilities: what it does to regions, what it refuses, and its file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.inference.calibration import NAME, Calibration, Curve
from open_florence.schema import Annotation, Region

CURVE = Curve((0.0, 0.2, 0.5), (0.1, 0.6, 0.9))


def annotation(task: str, *regions: Region) -> Annotation:
    return Annotation(task, regions=regions)


def test_a_curve_is_a_line_through_its_points_and_flat_outside() -> None:
    assert [CURVE(score) for score in (0.0, 0.1, 0.2, 0.35, 0.5, 1.0)] == pytest.approx(
        [0.1, 0.35, 0.6, 0.75, 0.9, 0.9]
    )


def test_a_region_gets_one_probability_for_place_and_label() -> None:
    place = Region("box", (((0.0, 0.0), (1.0, 1.0)),), "cat", 0.5, 0.4)
    alone = Region("quad", (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),), "STOP", None, 0.5)
    silent = Region("polygon", (((0.0, 0.0), (1.0, 1.0)),), "cat")
    found = Calibration({"<OD>": CURVE}).apply(annotation("<OD>", place, alone, silent)).regions
    assert [(region.score, region.label_score) for region in found] == [(0.6, None), (0.9, None), (None, None)]
    assert [region.parts for region in found] == [place.parts, alone.parts, silent.parts]


def test_tasks_without_a_curve_stay_as_they_are() -> None:
    other = annotation("<OCR_WITH_REGION>", Region.box(0, 0, 1, 1, score=0.5))
    assert Calibration({"<OD>": CURVE}).apply(other) is other


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8, unique=True), st.data())
def test_the_file_brings_back_every_curve_to_the_last_bit(tmp_path_factory, scores, data) -> None:  # type: ignore[no-untyped-def]
    values = data.draw(st.lists(st.floats(0, 1), min_size=len(scores), max_size=len(scores)))
    calibration = Calibration({"<OD>": Curve(tuple(sorted(scores)), tuple(sorted(values))), "<X>": CURVE})
    folder = tmp_path_factory.mktemp("calibration")
    calibration.save(folder)
    assert Calibration.load(folder) == calibration


def test_a_folder_without_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert Calibration.load(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"<OD>": 3}',
        '{"<OD>": {"scores": [0.1]}}',
        json.dumps({"<OD>": {"scores": ["a"], "probabilities": [0.1]}}),
        json.dumps({"<OD>": {"scores": [], "probabilities": []}}),
        json.dumps({"<OD>": {"scores": [0.1, 0.2], "probabilities": [0.5]}}),
        json.dumps({"<OD>": {"scores": [0.1, 0.1], "probabilities": [0.5, 0.6]}}),
        json.dumps({"<OD>": {"scores": [0.1, 0.2], "probabilities": [0.6, 0.5]}}),
        json.dumps({"<OD>": {"scores": [0.1, 0.2], "probabilities": [0.6, 1.5]}}),
        '{"<OD>": {"scores": [NaN], "probabilities": [0.5]}}',
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, content) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / NAME).write_text(content)
    with pytest.raises(OpenFlorenceError, match=r"calibration\.json"):
        Calibration.load(tmp_path)
