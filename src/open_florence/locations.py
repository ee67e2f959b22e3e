"""Coordinates as words: 1,000 bins along every axis, one token a bin (pix2seq, arXiv 2109.10852; arXiv 2311.06242).

This is the only file in which a coordinate is relative. A bin is size / 1000 wide; a coordinate is written as the bin
it falls into and read back as that bin's centre, so a coordinate inside the input comes back at most half a bin,
size / 2000, away from where it was (plus the rounding of float32, in which the published model reads its bins).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from open_florence.errors import OpenFlorenceError

BINS = 1000
"""Bins along an axis: the tokens <loc_0> to <loc_999>."""


class LocationQuantizer:
    """Points to bins and back, for any number of axes; `bins` along each."""

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins

    def quantize(self, point: Sequence[float], size: Sequence[float]) -> tuple[int, ...]:
        """The bin of each coordinate: floor(v / (size / bins)), those outside the input put into its first or last bin.

        `point` and `size` are in the same unit and have one number an axis. Raises OpenFlorenceError where they do not,
        where a coordinate is not a number, or where the input has no extent.
        """
        if len(point) != len(size):
            raise OpenFlorenceError(
                f"the point {tuple(point)} has {len(point)} numbers, its input has {len(size)} axes"
            )
        return tuple(self._bin(value, length) for value, length in zip(point, size, strict=True))

    def dequantize(self, bins: Sequence[float], size: Sequence[float]) -> tuple[float, ...]:
        """The centre of each bin, computed in float32 exactly as the published code does, returned as Python floats.

        Off by at most size / 2000 an axis from any coordinate that `quantize` puts into that bin (for 1,000 bins), plus
        float32 rounding: a few units in the seventh digit. Bins beyond the last are not refused: the published parser
        reads them too. A number between two bins, as a mean over several is, lies between their centres.
        """
        return tuple(
            float(np.float32(index + 0.5) * np.float32(length / self.bins))
            for index, length in zip(bins, size, strict=True)
        )

    def token(self, index: int) -> str:
        """The word for a bin: "<loc_7>"."""
        return f"<loc_{index}>"

    def _bin(self, value: float, length: float) -> int:
        if math.isnan(value):
            raise OpenFlorenceError("a coordinate is not a number (nan)")
        if not 0 < length < math.inf:
            raise OpenFlorenceError(f"an input of extent {length} has no places in it")
        return math.floor(min(max(value / (length / self.bins), 0), self.bins - 1))
