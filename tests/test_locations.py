"""Coordinates to bins and back: the published numbers to the bit, and never further than half a bin from the truth."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.locations import BINS, LocationQuantizer

quantizer = LocationQuantizer()
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
sizes = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=3).map(tuple)


@given(data=st.data(), size=sizes)
@calm
def test_a_coordinate_comes_back_within_half_a_bin(data, size):
    point = data.draw(st.tuples(*(st.floats(0, side) for side in size)))
    found = quantizer.dequantize(quantizer.quantize(point, size), size)
    for value, back, side in zip(point, found, size, strict=True):
        assert abs(value - back) <= side / 2000 + side * 2**-22  # float32 keeps 24 bits


def test_the_bound_is_reached_and_not_only_stated():
    (back,) = quantizer.dequantize(quantizer.quantize((2000.0,), (2000.0,)), (2000.0,))
    assert 2000.0 - back == 1.0


@given(size=sizes, bins=st.integers(0, BINS - 1))
@calm
def test_a_bin_s_centre_lies_in_that_bin(size, bins):
    each = (bins,) * len(size)
    assert quantizer.quantize(quantizer.dequantize(each, size), size) == each


@pytest.mark.parametrize("side", [640, 480, 768, 333, 1999, 61.5, 40.25, 1, 4000, 3000, 1300, 876, 12.34])
def test_centres_are_float32_as_published(side):
    found = [quantizer.dequantize((index,), (side,))[0] for index in range(BINS)]
    expected = (np.arange(BINS, dtype=np.float32) + np.float32(0.5)) * np.float32(side / 1000)
    assert expected.dtype == np.float32
    assert found == expected.tolist()
    assert all(type(value) is float for value in found)


def test_published_numbers():
    assert quantizer.dequantize((53, 333, 933, 774), (640, 480, 640, 480)) == (
        34.23999786376953, 160.0800018310547, 597.4400024414062, 371.7599792480469,
    )  # fmt: skip
    assert quantizer.dequantize((1000, 1200), (640, 480)) == (640.3200073242188, 576.239990234375)
    assert quantizer.quantize((799.9, 1200, 0, 0.81), (800, 1200, 800, 800)) == (999, 999, 0, 1)


def test_coordinates_outside_go_to_the_first_and_last_bin():
    assert quantizer.quantize((-5, 2000), (100, 100)) == (0, 999)
    assert quantizer.quantize((-math.inf, math.inf), (100, 100)) == (0, 999)


def test_tokens_and_other_numbers_of_bins():
    assert quantizer.token(7) == "<loc_7>"
    assert LocationQuantizer(10).quantize((95, 100), (100, 100)) == (9, 9)
    assert LocationQuantizer(10).dequantize((9,), (100,)) == (95.0,)


@pytest.mark.parametrize(
    ("point", "size", "message"),
    [
        ((1, 2), (100,), "has 2 numbers, its input has 1 axes"),
        ((math.nan,), (100,), "not a number"),
        ((1,), (0,), "extent 0"),
        ((1,), (math.inf,), "extent inf"),
        ((1,), (math.nan,), "extent nan"),
    ],
)
def test_points_that_are_nowhere(point, size, message):
    with pytest.raises(OpenFlorenceError, match=message):
        quantizer.quantize(point, size)
