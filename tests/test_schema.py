"""The one data type: through JSON and back unchanged, and refused with the name of the field that is wrong."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_florence.schema import Annotation, Region, Sample

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
numbers = st.floats(allow_nan=False, allow_infinity=False)
scores = st.none() | st.floats(0, 1)


@st.composite
def regions(draw):
    kind = draw(st.sampled_from(["box", "quad", "polygon"]))
    axes = draw(st.integers(1, 2))
    count = {"box": 2, "quad": 4}.get(kind)
    part = st.lists(st.tuples(*[numbers] * axes), min_size=count or 0, max_size=count or 5).map(tuple)
    parts = draw(st.lists(part, min_size=1, max_size=1 if count else 3)) if count else draw(st.lists(part, max_size=3))
    span = draw(st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)))
    return Region(kind, tuple(parts), draw(st.text()), draw(scores), draw(scores), span)


annotations = st.builds(
    Annotation,
    task=st.text(),
    text=st.text(),
    regions=st.lists(regions(), max_size=3).map(tuple),
    query=st.none() | st.text() | regions(),
    source=st.text(),
    round=st.integers(0, 9),
    score=scores,
    complete=st.booleans(),
    dropped=st.integers(0, 9),
)
samples = st.builds(
    Sample,
    id=st.text(),
    path=st.text(),
    size=st.lists(numbers, min_size=1, max_size=2).map(tuple),
    annotations=st.lists(annotations, max_size=2).map(tuple),
)


@given(sample=samples)
@calm
def test_samples_survive_json(sample):
    line = json.dumps(sample.to_json())
    assert Sample.from_json(json.loads(line)) == sample


@given(sample=samples)
@calm
def test_what_is_at_its_default_is_not_written(sample):
    for annotation in sample.annotations:
        record = annotation.to_json()
        assert all(value not in (None, "", []) for name, value in record.items() if name not in ("task", "query"))
        assert ("complete" in record) == (not annotation.complete)
        assert ("query" in record) == (annotation.query is not None)


def test_a_sample_as_one_line():
    sample = Sample(
        "ab12", "cat.jpg", (640.0, 480.0), (Annotation("<OD>", regions=(Region.box(1, 2, 3, 4, label="cat"),)),)
    )
    assert sample.to_json() == {
        "id": "ab12",
        "path": "cat.jpg",
        "size": (640.0, 480.0),
        "annotations": [
            {"task": "<OD>", "regions": [{"kind": "box", "parts": (((1.0, 2.0), (3.0, 4.0)),), "label": "cat"}]}
        ],
    }


def test_boxes_on_one_axis_and_two():
    assert Region.box(1, 2, 3, 4).parts == (((1.0, 2.0), (3.0, 4.0)),)
    assert Region.box(1, 2).parts == (((1.0,), (2.0,)),)


REGION = {"kind": "box", "parts": [[[1, 2], [3, 4]]]}


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        (Region, {"parts": []}, "Region lacks the field 'kind'"),
        (Region, {"kind": "box"}, "Region lacks the field 'parts'"),
        (Region, REGION | {"lable": "cat"}, "Region has no field 'lable'"),
        (Region, REGION | {"kind": "circle"}, "kind is one of box, quad, polygon, not 'circle'"),
        (Region, REGION | {"parts": [[[1, 2]]]}, "a box has one part of 2 points"),
        (Region, REGION | {"kind": "quad"}, "a quad has one part of 4 points"),
        (Annotation, {}, "Annotation lacks the field 'task'"),
        (Annotation, {"task": "<OD>", "boxes": []}, "Annotation has no field 'boxes'"),
        (Annotation, {"task": "<OD>", "regions": [{"kind": "box"}]}, "Region lacks the field 'parts'"),
        (Annotation, {"task": "<OD>", "query": {"kind": "box"}}, "Region lacks the field 'parts'"),
        (Sample, {"id": "a", "path": "b"}, "Sample lacks the field 'size'"),
        (Sample, {"id": "a", "path": "b", "size": [1], "anotations": []}, "Sample has no field 'anotations'"),
    ],
)
def test_errors_name_the_field(kind, record, message):
    with pytest.raises(ValueError, match=message):
        kind.from_json(record)


@pytest.mark.parametrize(
    ("kind", "record", "field"),
    [
        (Region, REGION | {"parts": [[[1, "x"], [3, 4]]]}, "parts"),
        (Region, REGION | {"parts": 7}, "parts"),
        (Region, REGION | {"parts": [[1, 2], [3, 4]]}, "parts"),
        (Region, REGION | {"parts": None}, "parts"),
        (Region, REGION | {"span": [1]}, "span"),
        (Region, REGION | {"span": "ab"}, "span"),
        (Region, REGION | {"score": "high"}, "score"),
        (Region, REGION | {"label": 5}, "label"),
        (Annotation, {"task": "<OD>", "regions": None}, "regions"),
        (Annotation, {"task": "<OD>", "regions": [7]}, "Region"),
        (Annotation, {"task": "<OD>", "query": 7}, "query"),
        (Annotation, {"task": "<OD>", "complete": "yes"}, "complete"),
        (Annotation, {"task": 3}, "task"),
        (Annotation, ["task"], "Annotation"),
        (Sample, {"id": "a", "path": "b", "size": "big"}, "size"),
        (Sample, {"id": "a", "path": "b", "size": 3}, "size"),
        (Sample, {"id": 1, "path": "b", "size": [3]}, "id"),
        (Sample, "{}", "Sample"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_field(kind, record, field):
    with pytest.raises(ValueError, match=field):
        kind.from_json(record)
