"""Polygons' IoU against filled pixels and areas by hand; end-to-end F1 on answers whose value is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.evaluation.ocr import ocr_end_to_end, ocr_recall, place_overlaps, polygon_iou
from open_florence.geometry import iou, rasterize
from open_florence.schema import Region


def quad(*points, label=""):
    return Region("quad", (tuple((float(x), float(y)) for x, y in points),), label)


def word(x, y, label, width=20.0, height=8.0, angle=0.0):
    """A word's quad, turned about its top-left corner by `angle` degrees."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    return quad(*((x + c * a - s * b, y + s * a + c * b) for a, b in corners), label=label)


SQUARE = quad((0, 0), (10, 0), (10, 10), (0, 10))
DIAMOND = quad((5, -2), (12, 5), (5, 12), (-2, 5))
CROSSED = quad((0, 0), (10, 0), (0, 10), (10, 10))  # an hourglass: two triangles of 25


def test_areas_by_hand():
    assert polygon_iou(SQUARE, SQUARE) == pytest.approx(1.0)
    assert polygon_iou(SQUARE, Region.box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    shared = 100 - 4 * 4.5  # each corner of the square loses the triangle x + y < 3
    assert polygon_iou(SQUARE, DIAMOND) == pytest.approx(shared / (100 + 98 - shared))
    assert polygon_iou(SQUARE, CROSSED) == pytest.approx(50 / 100)
    assert polygon_iou(SQUARE, quad((20, 0), (30, 0), (30, 10), (20, 10))) == 0.0
    flat = quad((0, 5), (10, 5), (10, 5), (0, 5))
    assert polygon_iou(SQUARE, flat) == polygon_iou(flat, flat) == 0.0


def test_a_region_in_pieces():
    pieces = Region("polygon", (SQUARE.parts[0], quad((20, 0), (30, 0), (30, 10), (20, 10)).parts[0]))
    assert polygon_iou(pieces, SQUARE) == pytest.approx(0.5)
    assert polygon_iou(pieces, pieces) == pytest.approx(1.0)


@given(st.integers(0, 100_000))
def test_like_filled_pixels(seed):
    points = np.random.default_rng(seed).uniform(2, 98, size=(2, 4, 2))
    a, b = (quad(*corners) for corners in points)
    scale = 8
    filled = [rasterize([corners * scale], (100 * scale, 100 * scale)) for corners in points]
    union = np.count_nonzero(filled[0] | filled[1])
    assert polygon_iou(a, b) == pytest.approx(np.count_nonzero(filled[0] & filled[1]) / union, abs=0.01)
    assert polygon_iou(a, b) == pytest.approx(polygon_iou(b, a))


def test_upright_quads_are_boxes_and_askew_ones_are_not():
    a, b = word(10, 10, "a"), word(13, 11, "b")
    assert place_overlaps([a], [b])[0, 0] == pytest.approx(polygon_iou(a, b))
    assert place_overlaps([], [a]).shape == (0, 1)
    tilted, other = word(50, 10, "a", 40, 6, 45), word(40, 20, "b", 40, 6, 45)  # side by side, their boxes overlap
    boxes = [[*np.min(r.parts[0], axis=0), *np.max(r.parts[0], axis=0)] for r in (tilted, other)]
    assert iou(boxes[:1], boxes[1:])[0, 0] > 0.3
    assert place_overlaps([tilted], [other])[0, 0] == 0.0


def test_found_and_read():
    true = [word(0, 0, "STOP"), word(40, 0, "EXIT")]
    assert ocr_end_to_end([true], [true]).value == 1.0
    assert ocr_end_to_end([true], [[word(0, 0, "STOP"), word(40, 0, "EXITS")]]).value == pytest.approx(2 / 4)
    assert ocr_end_to_end([true], [[word(0, 0, " STOP ")]]).value == pytest.approx(2 / 3)
    assert ocr_end_to_end([true], [[word(0, 0, "STOP")] * 2]).value == pytest.approx(2 / 4)  # each true one once
    assert ocr_end_to_end([true], [[word(0, 20, "STOP")]]).value == 0.0  # read, but elsewhere
    assert ocr_end_to_end([true, []], [[], []]).count == 2
    assert ocr_recall([true], [[word(0, 0, "?"), word(40, 30, "EXIT")]]).value == 0.5  # the place alone


def test_case_counts_unless_asked():
    true, found = [[word(0, 0, "Stop")]], [[word(0, 0, "STOP")]]
    assert ocr_end_to_end(true, found).value == 0.0
    assert ocr_end_to_end(true, found, match_case=False).value == 1.0


def test_what_lies_where_nobody_can_read_is_not_counted():
    true, found = [[word(0, 0, "STOP")]], [[word(0, 0, "STOP"), word(40, 0, "X")]]
    assert ocr_end_to_end(true, found).value == pytest.approx(2 / 3)
    assert ocr_end_to_end(true, found, [[word(38, -1, "", 40, 10)]]).value == 1.0
    assert ocr_end_to_end(true, found, [[word(55, 0, "")]]).value == pytest.approx(2 / 3)  # a quarter only
    assert ocr_end_to_end(true, found, [[word(0, 0, "", 90, 8)]]).value == 1.0  # what is right stays right


def test_a_word_askew_is_judged_by_its_polygon():
    true = [word(50, 10, "STOP", 40, 6, 45)]
    assert ocr_end_to_end([true], [[word(50, 10, "STOP", 40, 6, 44)]]).value == 1.0
    (corners,) = true[0].parts
    xs, ys = zip(*corners, strict=True)
    around = Region.box(min(xs), min(ys), max(xs), max(ys), label="STOP")
    assert ocr_end_to_end([true], [[around]]).value == 0.0
