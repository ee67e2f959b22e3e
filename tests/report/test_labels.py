"""Labels: beside their regions, in the frame, off each other; and short enough."""

from hypothesis import given
from hypothesis import strategies as st

from open_florence.report.labels import columns_of, overlap, place_labels, region_title, shorten

side = st.floats(0, 100, allow_nan=False)
boxes = st.tuples(side, side, side, side).map(lambda b: (min(b[::2]), min(b[1::2]), max(b[::2]), max(b[1::2])))


@given(st.lists(boxes, max_size=12))
def test_labels_stay_in_the_frame(regions: list[tuple[float, float, float, float]]) -> None:
    for x1, y1, x2, y2 in place_labels(regions, [(30.0, 10.0)] * len(regions), (100.0, 100.0)):
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= 100
        assert y2 <= 100


def test_a_label_stands_above_its_region_where_there_is_room() -> None:
    assert place_labels([(20, 50, 60, 80)], [(30, 10)], (100, 100)) == [(20, 40, 50, 50)]


def test_a_label_at_the_upper_edge_stands_within_its_region() -> None:
    assert place_labels([(20, 0, 60, 80)], [(30, 10)], (100, 100)) == [(20, 0, 50, 10)]


def test_labels_of_the_same_region_do_not_cover_each_other() -> None:
    places = place_labels([(20, 40, 60, 70)] * 4, [(30, 10)] * 4, (100, 100))
    assert all(overlap(a, b) == 0 for i, a in enumerate(places) for b in places[:i])


def test_a_label_wider_than_the_frame_starts_at_its_edge() -> None:
    assert place_labels([(20, 50, 60, 80)], [(300, 10)], (100, 100))[0][0] == 0


def test_long_texts_are_cut_with_an_ellipsis() -> None:
    assert shorten("a short one", 20) == "a short one"
    assert shorten("one\n  two", 20) == "one two"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"
    assert columns_of(shorten("猫" * 50, 10)) <= 10
    assert shorten("", 10) == ""


def test_a_title_is_the_label_and_the_score() -> None:
    assert region_title("cat", 0.914) == "cat 0.91"
    assert region_title("cat", None) == "cat"
    assert region_title("", 0.5) == "0.50"
    assert region_title("", None) == ""
