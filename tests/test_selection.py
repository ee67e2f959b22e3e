"""Thresholds and non-maximum suppression of every kind of region, and how what goes is counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import nms
from open_florence.schema import Annotation, Region
from open_florence.selection import Removed, Selection, overlap, region_score, sum_removed


def box(x1, y1, x2, y2, score, label="cat", label_score=None):
    return Region("box", (((x1, y1), (x2, y2)),), label, score, label_score)


def outline(points, score, kind="polygon", label="cat"):
    return Region(kind, (tuple(points),), label, score)


def annotation(*regions):
    return Annotation("<OD>", "as said", regions)


def test_the_score_is_that_of_place_and_label_together():
    regions = (box(0, 0, 9, 9, 0.8), box(20, 0, 29, 9, 0.8, label_score=0.5), box(40, 0, 49, 9, None))
    kept, removed = Selection(threshold=0.5).apply(annotation(*regions))
    assert kept == annotation(regions[0], regions[2])  # one that says nothing of its score is not below
    assert removed == Removed(below=1)
    assert [region_score(region) for region in regions] == [0.8, 0.4, 1.0]


def test_of_several_on_one_thing_the_best_is_kept_in_its_place():
    weak, other, best, elsewhere = (
        box(0, 0, 10, 10, 0.3),
        box(0, 0, 10, 10, 0.4, label="dog"),
        box(1, 0, 10, 10, 0.9),
        box(50, 50, 60, 60, 0.1),
    )
    kept, removed = Selection(nms=0.5).apply(annotation(weak, other, best, elsewhere))
    assert kept.regions == (other, best, elsewhere)
    assert kept.text == "as said"
    assert removed == Removed(overlapping=1)


def test_what_is_below_the_threshold_suppresses_nothing():
    low, high = box(0, 0, 10, 10, 0.9, label_score=0.1), box(0, 0, 10, 11, 0.5)
    kept, removed = Selection(0.2, 0.5).apply(annotation(low, high))
    assert kept.regions == (high,)
    assert removed == Removed(1, 0)


def test_boxes_around_diagonal_regions_overlap_but_the_regions_do_not():
    first = [(0.0, 0.0), (10.0, 0.0), (100.0, 90.0), (100.0, 100.0), (90.0, 100.0), (0.0, 10.0)]
    second = [(40.0, 0.0), (100.0, 0.0), (100.0, 60.0)]
    for kind, a, b in (("polygon", first, second), ("quad", [*first[:3], first[4]], [*second, (99.0, 60.0)])):
        regions = (outline(a, 0.9, kind), outline(b, 0.8, kind))
        assert Selection(nms=0.1).apply(annotation(*regions))[0].regions == regions
        same = (outline(a, 0.9, kind), outline(a, 0.8, kind))
        assert Selection(nms=0.1).apply(annotation(*same))[1] == Removed(0, 1)


def test_overlaps_of_outlines_equal_those_of_the_boxes_they_are():
    a, b = box(3.5, 2, 90, 70, 1), box(40, 30, 120, 300, 1)
    as_outlines = [
        outline([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], 1) for (((x1, y1), (x2, y2)),) in (a.parts, b.parts)
    ]
    assert overlap(*as_outlines) == pytest.approx(overlap(a, b), abs=0.01)
    assert overlap(as_outlines[0], b) == pytest.approx(overlap(a, b), abs=0.01)
    tiny = [(0.0, 0.0), (1e-3, 0.0), (0.0, 1e-3)]
    assert overlap(outline(tiny, 1), outline(tiny, 1)) == pytest.approx(1)
    two = Region("polygon", (((0, 0), (4, 0), (4, 4), (0, 4)), ((6, 0), (10, 0), (10, 4), (6, 4))))
    assert overlap(two, box(0, 0, 10, 4, 1)) == pytest.approx(0.8, abs=0.02)


def test_a_region_without_area_overlaps_nothing():
    line = outline([(0.0, 0.0), (5.0, 5.0)], 0.5)
    flat = outline([(0.0, 1.0), (9.0, 1.0), (4.0, 1.0)], 0.5)
    assert overlap(line, line) == 0
    assert overlap(flat, flat) == 0
    assert Selection(nms=0.0).apply(annotation(line, flat, box(0, 0, 9, 9, 0.9)))[1].below == 0


corner = st.integers(0, 30).map(float)
boxes = st.lists(st.tuples(corner, corner, corner, corner, st.integers(0, 4)), max_size=12)


@given(boxes, st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_of_boxes_of_one_label_it_is_plain_nms(values, most):
    regions = [box(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1, score / 4) for a, b, c, d, score in values]
    kept, removed = Selection(nms=most).apply(annotation(*regions))
    flat = np.array([[*r.parts[0][0], *r.parts[0][1]] for r in regions]).reshape(-1, 4)
    expected = nms(flat, [r.score for r in regions], most)
    assert kept.regions == tuple(regions[index] for index in sorted(expected))
    assert removed.overlapping == len(regions) - len(expected)


def test_counts_add_up_and_are_said():
    selection = Selection(0.25, 0.5)
    answers, removed = selection.apply_all([annotation(box(0, 0, 1, 1, 0.1)), annotation(box(0, 0, 1, 1, 0.9))])
    assert [len(answer.regions) for answer in answers] == [0, 1]
    assert removed == Removed(1, 0) == sum_removed([Removed(1, 0), Removed()])
    assert selection.say(Removed(3, 2)) == (
        "left out: 3 regions with a score below 0.25, 2 that overlap a better one (IoU 0.5)"
    )
    assert Selection(0.5).say(Removed()) == "left out: 0 regions with a score below 0.5"


@pytest.mark.parametrize("settings", [{"threshold": -0.1}, {"threshold": 1.5}, {"nms": 2.0}])
def test_numbers_that_cannot_be(settings):
    with pytest.raises(OpenFlorenceError, match="between 0 and 1"):
        Selection(**settings)
