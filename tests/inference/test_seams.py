"""Pieces at a seam: which belong together, and what one thing becomes of them."""

from typing import Any

import numpy as np
import pytest

from open_florence.geometry import region_box
from open_florence.inference.seams import UNCUT, Seen, join, seen, stitch
from open_florence.inference.tile_fusion import (
    any_name,
    fuse,
    merge_described,
    merge_named,
    merge_text,
    refine_mask,
    same_name,
)
from open_florence.schema import Region

SIZE = (300.0, 100.0)
WHOLE = (0, 0, 300, 100)
LEFT, RIGHT = (0, 0, 100, 100), (80, 0, 180, 100)
WINDOWS = [LEFT, RIGHT, (160, 0, 260, 100)]


def box(window: Any, *corners: float, label: str = "a", score: float = 0.5) -> Seen:
    """A box in pixels of the image that a window shows."""
    moved = np.array(corners) - np.array(window[:2] * 2)
    return seen(Region.box(*moved.tolist(), label=label, score=score), window, SIZE)


def quad(window: Any, x1: float, y1: float, x2: float, y2: float, text: str, drop: float = 0.0) -> Seen:
    """A line of text in pixels of the image that falls by `drop` from its beginning to its end."""
    points = ((x1, y1), (x2, y1 + drop), (x2, y2 + drop), (x1, y2))
    moved = tuple((x - window[0], y - window[1]) for x, y in points)
    return seen(Region("quad", (moved,), text, score=0.5), window, SIZE)


def corners(one: Any) -> list[float]:
    return list(region_box((one.region if isinstance(one, Seen) else one).parts))


@pytest.mark.parametrize(
    ("window", "place", "cut"),
    [
        (LEFT, (10, 10, 90, 90), UNCUT),
        (LEFT, (0, 0, 98.5, 100), (False, False, True, False)),  # the image's own edges cut nothing
        (RIGHT, (81, 10, 179, 90), (True, False, True, False)),
        (WHOLE, (0, 0, 300, 100), UNCUT),
    ],
)
def test_only_inner_edges_cut(window: Any, place: Any, cut: Any) -> None:
    one = box(window, *place)
    assert one.cut == cut
    assert corners(one) == list(place)


def test_two_sides_of_one_thing_are_joined() -> None:
    (one,), single = join([box(LEFT, 40, 20, 100, 60), box(RIGHT, 80, 22, 140, 60, score=0.3)], same_name)
    assert not single
    assert corners(one) == [40, 20, 140, 60]
    assert one.region.score == 0.3
    assert not one.is_piece


@pytest.mark.parametrize(
    "other",
    [
        box(RIGHT, 80, 20, 140, 60, label="b"),  # another name
        box(RIGHT, 80, 61, 140, 95),  # another height
        box(RIGHT, 80, 55, 140, 95),  # nearly
        box(RIGHT, 90, 20, 140, 60),  # begins in the strip: the left tile would show it as a thing of its own
        box(RIGHT, 80, 20, 84, 60),  # ends in the strip
        box(LEFT, 80, 20, 100, 60),  # of the same window
    ],
)
def test_what_does_not_go_on_is_not_joined(other: Seen) -> None:
    joined, single = join([box(LEFT, 40, 20, 100, 60), other], same_name)
    assert not joined
    assert len(single) == 2


def test_what_goes_on_further_is_still_a_piece() -> None:
    (one,), _ = join([box(LEFT, 40, 20, 100, 60), box(RIGHT, 80, 20, 180, 60)], same_name)
    assert one.cut == (False, False, True, False)


@pytest.mark.parametrize(
    ("first", "second", "shared", "whole"),
    [
        ("HELLO WO", "WORLD", 2, "HELLO WORLD"),
        ("HELLO WC", "WORLD", 2, "HELLO WORLD"),  # half an O was read as a C
        ("HELLO W", ")WORLD", 2, "HELLO WORLD"),
        ("HEL", "LO", 0, "HELLO"),  # nothing is shared: both L are there
        ("STATION", "STATION", 3, "STATION"),  # a model that guesses the rest of a word
        ("ABCDEF", "XYZUVW", 2, "ABCDEYZUVW"),  # nothing agrees: half of the strip each
        ("", "WORLD", 0, "WORLD"),
        ("ANNA", "NAN", 2, "ANNAN"),
    ],
)
def test_letters_read_twice_are_written_once(first: str, second: str, shared: float, whole: str) -> None:
    assert stitch(first, second, shared) == whole


def test_a_line_that_falls_is_joined_along_itself() -> None:
    left = quad(LEFT, 20, 20, 100, 30, "ABCDEFGH", drop=4)
    right = quad(RIGHT, 80, 23, 160, 33, "GHIJKLMN", drop=4)
    (one,), _ = join([right, left], any_name)
    assert one.region.label == "ABCDEFGHIJKLMN"
    assert one.region.parts == (((20, 20), (160, 27), (160, 37), (20, 30)),)


def test_a_part_of_a_line_that_two_tiles_show_is_read_once() -> None:
    above, below = quad(RIGHT, 80, 20, 160, 30, "GHIJ"), quad((80, 0, 180, 90), 81.5, 20, 159, 30, "GHIX")
    (one,), _ = join([quad(LEFT, 20, 20, 100, 30, "ABCDEFGH"), above, below], any_name)
    assert one.region.label == "ABCDEFGHIJ"
    assert corners(one) == [20, 20, 160, 30]


@pytest.mark.parametrize("other", [quad(RIGHT, 80, 32, 160, 42, "GHIJ"), quad(RIGHT, 80, 20, 160, 44, "GHIJ")])
def test_the_next_line_and_larger_letters_are_not_the_same_line(other: Seen) -> None:
    joined, _ = join([quad(LEFT, 20, 20, 100, 30, "ABCDEFGH"), other], any_name)
    assert not joined


def test_a_line_cut_in_one_tile_and_whole_in_the_next_comes_out_once() -> None:
    whole, cut = quad(RIGHT, 82.5, 20, 150, 30, "WELCOME"), quad(LEFT, 82, 20, 100, 30, "WE")
    (found,) = merge_text([cut, whole], [], WINDOWS)
    assert found.label == "WELCOME"
    assert corners(found) == [82.5, 20, 150, 30]


def test_words_of_a_line_that_another_tile_shows_whole_are_part_of_it() -> None:
    line = quad(RIGHT, 85, 20, 150, 30, "RED CAR")
    (found,) = merge_text([quad(LEFT, 85, 20, 97, 30, "RED"), line], [quad(WHOLE, 84, 19, 151, 31, "HEB GAR")], WINDOWS)
    assert found.label == "RED CAR"


def test_half_a_line_is_kept_with_less_score() -> None:
    (found,) = merge_text([quad(LEFT, 60, 20, 100, 30, "WELC")], [], WINDOWS)
    assert (found.label, found.score) == ("WELC", 0.25)


def test_so_is_a_line_that_goes_on_where_nobody_read_it_and_only_once() -> None:
    first, second = quad(LEFT, 60, 20, 100, 30, "WELC"), quad(RIGHT, 80, 20, 180, 30, "LCOMEALLTO")
    (found,) = merge_text([first, second], [], WINDOWS)
    assert (found.label, found.score) == ("WELCOMEALLTO", 0.25)
    low = [quad(window, 84, 92, 96, 97, "WE") for window in ((0, 0, 100, 98), (80, 0, 180, 98))]
    assert len(merge_text(low, [], WINDOWS)) == 1, "an edge cuts it lengthwise, in two tiles"


def test_places_are_averaged_by_score_and_by_how_fine_they_were_seen() -> None:
    tiles = [box(LEFT, 82, 20, 96, 40, score=0.6), box(RIGHT, 82.5, 23, 99, 43, score=0.3)]
    (found,) = merge_named(tiles, [], WINDOWS)
    assert corners(found) == pytest.approx([(2 * 82 + 82.5) / 3, 21, 97, 41])
    assert found.score == 0.6
    (found,) = merge_named([box(LEFT, 20, 20, 40, 40)], [box(WHOLE, 23, 20, 43, 40)], WINDOWS)
    assert corners(found) == pytest.approx([20.75, 20, 40.75, 40]), "the whole image has a third of the pixels"


def test_two_things_of_one_window_stay_two() -> None:
    pair = [box(LEFT, 20, 20, 60, 60, score=0.6), box(LEFT, 22, 20, 60, 60, score=0.4)]
    found = fuse([*pair, box(WHOLE, 20, 20, 60, 60)], same_name)
    assert sorted(len(one.windows) for one in found) == [1, 2]


def test_a_tile_knows_better_what_a_thing_is_called_and_what_is_not_there() -> None:
    of_whole = [box(WHOLE, 20, 20, 50, 50, label="b", score=0.9), box(WHOLE, 110, 30, 150, 70, label="c", score=0.9)]
    first, second = merge_named([box(LEFT, 20, 20, 50, 50)], of_whole, WINDOWS)
    assert (first.label, first.score) == ("a", 0.5)
    assert (second.label, second.score) == ("c", pytest.approx(0.9 / 3**0.5)), "as few pixels as the whole image had"


def test_the_whole_image_adds_nothing_where_tiles_saw_something_nearby() -> None:
    (found,) = merge_named([box(LEFT, 20, 20, 50, 50)], [box(WHOLE, 10, 16, 48, 52, label="b")], WINDOWS)
    assert found.label == "a"


def test_of_two_names_that_two_tiles_give_the_surer_stays() -> None:
    pair = [box(LEFT, 82, 20, 96, 40, label="a"), box(RIGHT, 82.5, 20, 96, 40, label="b", score=0.6)]
    (found,) = merge_named(pair, [], WINDOWS)
    assert found.label == "b"
    both = [box(LEFT, 20, 20, 60, 60, label="dog"), box(LEFT, 20, 20, 60, 60, label="animal")]
    assert len(merge_named(both, [], WINDOWS)) == 2, "one window may well say both"


def test_descriptions_need_not_be_the_same() -> None:
    pair = [box(LEFT, 40, 20, 100, 60, label="a red car"), box(RIGHT, 80, 20, 140, 60, label="a car", score=0.4)]
    (found,) = merge_described(pair, [], WINDOWS)
    assert found.label == "a red car"
    assert merge_named(pair, [], WINDOWS) == ()


def test_pieces_of_what_the_whole_image_shows_give_way_to_it() -> None:
    large = box(WHOLE, 40, 20, 240, 80, label="ship")
    pieces = [box(LEFT, 40, 20, 100, 80, label="wall"), box(RIGHT, 80, 30, 180, 80, label="ship")]
    (found,) = merge_named(pieces, [large], WINDOWS)
    assert (found.label, corners(found)) == ("ship", [40, 20, 240, 80])


def test_what_is_longer_than_a_tile_needs_the_whole_image() -> None:
    pieces = [box(LEFT, 40, 20, 100, 60), box(RIGHT, 80, 20, 160, 60)]
    (found,) = merge_named(pieces, [], WINDOWS)
    assert (corners(found), found.score) == ([40, 20, 160, 60], 0.25)
    (found,) = merge_named(pieces, [box(WHOLE, 40, 20, 160, 60, score=0.9)], WINDOWS)
    assert found.score == 0.9
    (found,) = merge_named(pieces, [box(WHOLE, 35, 10, 200, 70, label="b")], WINDOWS)
    assert found.label == "b"


def test_a_mask_elsewhere_is_not_the_one_that_was_asked_for() -> None:
    def mask(window: Any, *place: float, score: float = 0.5) -> Seen:
        one = box(window, *place, score=score)
        (x1, y1), (x2, y2) = one.region.parts[0]
        region = Region("polygon", (((x1, y1), (x2, y1), (x2, y2), (x1, y2)),), score=score)
        return Seen(region, one.windows, one.grain, one.cut)

    coarse = mask(WHOLE, 18, 18, 44, 40)
    fine, elsewhere = mask(LEFT, 20, 20, 40, 40), mask(RIGHT, 120, 20, 160, 60, score=0.9)
    assert refine_mask([fine, elsewhere], [coarse], WINDOWS) == (fine.region,)
    assert refine_mask([elsewhere], [coarse], WINDOWS) == (coarse.region,)
    large, part = mask(WHOLE, 20, 20, 280, 80), mask(RIGHT, 100, 20, 170, 80)
    assert refine_mask([part], [large], WINDOWS) == (large.region,)
    assert refine_mask([part], [], WINDOWS) == ()
