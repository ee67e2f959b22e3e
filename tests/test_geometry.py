"""Overlaps, areas and shapes, on one axis and on two, against counting and against arithmetic by hand."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_florence import geometry

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
whole_boxes = st.tuples(*[st.integers(0, 12)] * 4).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)


def cells(box):
    """The unit squares of a box with whole corners."""
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(a=st.lists(whole_boxes, min_size=1, max_size=4), b=st.lists(whole_boxes, min_size=1, max_size=4))
@calm
def test_iou_counts_what_is_shared(a, b):
    overlaps = geometry.iou(a, b)
    assert overlaps.shape == (len(a), len(b))
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            union = len(cells(first) | cells(second))
            assert overlaps[i, j] == pytest.approx(len(cells(first) & cells(second)) / union if union else 0.0)


def test_iou_of_intervals():
    assert geometry.iou([[0, 10]], [[5, 15], [10, 20], [2, 4]]) == pytest.approx(np.array([[1 / 3, 0, 0.2]]))


@pytest.mark.parametrize(
    ("a", "b", "shape"), [([], [], (0, 0)), ([], [[0, 0, 1, 1]], (0, 1)), ([[0, 0, 1, 1]], [], (1, 0))]
)
def test_iou_of_nothing(a, b, shape):
    assert geometry.iou(a, b).shape == shape


def test_areas():
    assert geometry.box_area([[0, 0, 2, 3], [5, 5, 5, 9], [3, 3, 1, 1]]).tolist() == [6, 0, 0]
    assert geometry.box_area([[2, 5]]).tolist() == [3]
    assert geometry.polygon_area([(0, 0), (4, 0), (4, 3)]) == 6
    assert geometry.polygon_area([(0, 0), (4, 3), (4, 0)]) == 6  # the direction does not matter
    assert geometry.polygon_area([(0, 0), (4, 3)]) == geometry.polygon_area([(1, 1)]) == geometry.polygon_area([]) == 0


def test_bounds_and_clip():
    low, high = geometry.bounds([(3, 8), (1, 9), (2, 2)])
    assert (low.tolist(), high.tolist()) == ([1, 2], [3, 9])
    assert geometry.clip([(-1, 5), (7, 3)], (6, 4)).tolist() == [[0, 4], [6, 3]]
    assert geometry.clip([(-1,), (7,)], (6,)).tolist() == [[0], [6]]


def test_boxes_and_polygons():
    corners = geometry.box_to_polygon([1, 2, 5, 8])
    assert corners.tolist() == [[1, 2], [5, 2], [5, 8], [1, 8]]
    assert geometry.polygon_to_box(corners).tolist() == [1, 2, 5, 8]
    assert geometry.region_box((((1, 2), (3, 4)), ((0, 9),))).tolist() == [0, 2, 3, 9]
    assert geometry.region_box((((4,), (6,)),)).tolist() == [4, 6]


def test_nms_keeps_the_best_of_those_that_overlap():
    boxes = [[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [0, 0, 10, 9]]
    assert geometry.nms(boxes, [0.5, 0.9, 0.1, 0.4], 0.5) == [1, 2]
    assert geometry.nms(boxes, [0.5, 0.9, 0.1, 0.4], 0.85) == [1, 0, 2]
    assert geometry.nms(boxes, [0.5, 0.9, 0.1, 0.4], 1.0) == [1, 0, 3, 2]
    assert geometry.nms([[0, 1], [0, 1]], [1, 1], 0.5) == [0]
    assert geometry.nms([], [], 0.5) == []


def inside(points, x, y):
    """Even-odd, by counting the edges that a ray to the left crosses."""
    edges = zip(points, points[1:] + points[:1], strict=True)
    return bool(
        sum((y1 <= y) != (y2 <= y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x for (x1, y1), (x2, y2) in edges) % 2
    )


@given(points=st.lists(st.tuples(st.integers(-20, 80), st.integers(-20, 80)), min_size=0, max_size=7))
@calm
def test_masks_hold_the_pixels_whose_centre_is_inside(points):
    points = [(x / 5 + 0.037, y / 5 + 0.041) for x, y in points]  # no centre on an edge
    mask = geometry.rasterize([points], (13, 11))
    assert mask.shape == (11, 13)
    expected = [[inside(points, x + 0.5, y + 0.5) for x in range(13)] for y in range(11)]
    assert mask.tolist() == expected


def test_masks_of_boxes_are_exact():
    mask = geometry.rasterize([geometry.box_to_polygon([10, 5, 20, 8])], (30, 20))
    assert mask.sum() == 30
    assert mask[5:8, 10:20].all()
    assert geometry.rasterize([geometry.box_to_polygon([-5, -5, 99, 99])], (30, 20)).all()


def test_parts_are_united():
    square, other = geometry.box_to_polygon([0, 0, 4, 4]), geometry.box_to_polygon([2, 2, 6, 6])
    assert geometry.rasterize([square, other], (10, 10)).sum() == 28
    assert not geometry.rasterize([], (10, 10)).any()


def test_mask_iou():
    a = np.zeros((2, 4), dtype=bool)
    b = a.copy()
    assert geometry.mask_iou(a, b) == 0
    a[0], b[:, :2] = True, True
    assert geometry.mask_iou(a, b) == pytest.approx(2 / 6)
