"""The twelve parametric shapes: outline, hole, labelled vertices, and how far each may be turned and stay itself.

Frame: x right, y down, outlines clockwise as seen. Each list of vertices starts at a vertex fixed in the shape's own
frame: the tip of the arrow, the notch of the heart, the upper horn of the crescent, otherwise its top or top-left one
(as every rotation is limited, that vertex stays where its name says). Curved shapes are labelled by a fixed number of
vertices at even arc length, a little outside of the curve so that the areas agree. The polygon of a ring is its outer
outline: parts of a polygon are a union, so a hole cannot be written.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One kind of object, in its own frame."""

    outline: Points
    """(P, 2) the curve that is filled."""
    vertices: Points
    """(V, 2) the polygon that labels it; the outline itself for straight-sided shapes."""
    hole: Points | None = None
    tilt: float = 12.0
    """Largest rotation either way, in degrees."""
    turns: int = 1
    """Into how many base directions it may point: 1 (upright) or 4."""
    mirrored: bool = False
    """Whether it may be mirrored left to right."""


@dataclass(frozen=True)
class Pose:
    """A shape turned, mirrored and scaled, about its box's centre: the box's longer half side is `radius`."""

    outline: Points
    vertices: Points
    hole: Points | None
    half_width: float
    half_height: float


def _arc(start: float, end: float, count: int, radius: float = 1.0, x: float = 0.0) -> Points:
    """`count` points from angle `start` to `end` (degrees, clockwise as seen, 0 = right), both ends included."""
    angles = np.radians(np.linspace(start, end, count))
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _circle(count: int, radius: float = 1.0) -> Points:
    return _arc(-135.0, 225.0, count + 1, radius)[:-1]


def _same_area(step: float) -> float:
    """How far outside a circle vertices stand, `step` degrees apart, so that their polygon has the circle's area."""
    return math.sqrt(math.radians(step) / math.sin(math.radians(step)))


def _even(curve: Points, count: int) -> Points:
    """`count` vertices at even arc length on a closed curve, the first where the curve starts."""
    closed = np.concatenate([curve, curve[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    places = np.arange(count) * along[-1] / count
    return np.stack([np.interp(places, along, closed[:, axis]) for axis in range(2)], axis=1)


def _area(curve: Points) -> float:
    x, y = curve.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _straight(*points: tuple[float, float], tilt: float = 12.0, turns: int = 1) -> Shape:
    outline = np.array(points)
    return Shape(outline, outline, tilt=tilt, turns=turns)


def _star() -> Shape:
    angles = np.radians(-90 + 36 * np.arange(10))
    radii = np.where(np.arange(10) % 2, 0.42, 1.0)
    outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    return Shape(outline, outline, tilt=16.0)


def _crescent() -> Shape:
    centre, radius = 0.52, 0.86  # the circle that is bitten out on the right
    x = (1 + centre**2 - radius**2) / (2 * centre)
    outer, inner = math.degrees(math.acos(x)), math.degrees(math.acos((x - centre) / radius))

    def curve(inside: int, outside: int) -> Points:
        wide_bite, wide = (_same_area((360 - 2 * a) / n) for a, n in ((inner, inside), (outer, outside)))
        bite = _arc(-inner, -(360 - inner), inside + 1, radius * wide_bite, centre)[1:-1]  # upper horn to lower horn
        edge = _arc(outer, 360 - outer, outside + 1, wide)[1:-1]
        horns = _arc(-outer, outer, 2)  # (2, 2)
        return np.concatenate([horns[:1], bite, horns[1:], edge])

    return Shape(curve(24, 32), curve(7, 8), tilt=25.0, mirrored=True)


def _heart() -> Shape:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    outline = np.stack([x, y], axis=1) / 16
    few = _even(outline, 14)
    return Shape(outline, few * math.sqrt(_area(outline) / _area(few)), tilt=18.0)


SHAPE_TABLE: dict[str, Shape] = {
    "circle": Shape(_circle(48), _circle(12, _same_area(30)), tilt=0.0),
    "square": _straight((-1, -1), (1, -1), (1, 1), (-1, 1), tilt=13.0),
    "triangle": _straight((0, -1), (1, 0.8), (-1, 0.8), tilt=18.0),
    "star": _star(),
    "ring": Shape(_circle(48), _circle(12, _same_area(30)), hole=_circle(32, 0.55), tilt=0.0),
    "cross": _straight(
        *((-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)),
        *((0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)),
        tilt=13.0,
    ),
    "arrow": _straight(
        *((1, 0), (0.1, 0.78), (0.1, 0.3), (-1, 0.3), (-1, -0.3), (0.1, -0.3), (0.1, -0.78)), tilt=13.0, turns=4
    ),
    "crescent": _crescent(),
    "diamond": _straight((0, -1), (0.66, 0), (0, 1), (-0.66, 0), tilt=10.0),
    "hexagon": _straight(
        *((-0.5, -0.866), (0.5, -0.866), (1, 0), (0.5, 0.866), (-0.5, 0.866), (-1, 0)),
        tilt=12.0,
    ),
    "heart": _heart(),
    "bolt": _straight(
        *((-0.1, -1), (0.5, -1), (0.18, -0.25), (0.6, -0.25), (-0.4, 1), (-0.1, 0.12), (-0.55, 0.12)), tilt=15.0
    ),
}


def pose(name: str, radius: float, rng: random.Random) -> Pose:
    """The named shape, turned and mirrored at random within its limits, `radius` pixels to the box's longer half."""
    shape = SHAPE_TABLE[name]
    angle = math.radians(rng.uniform(-shape.tilt, shape.tilt) + 90 * rng.randrange(shape.turns))
    mirror = shape.mirrored and rng.random() < 0.5
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    if mirror:
        turn = np.array([[-1.0, 0.0], [0.0, 1.0]]) @ turn
    outline = shape.outline @ turn  # (P, 2)
    low, high = outline.min(axis=0), outline.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    scale = radius / float(half.max())

    def place(points: Points) -> Points:
        placed: Points = (points @ turn - middle) * scale
        return placed

    vertices = place(shape.vertices)
    if mirror:  # mirroring turned the order round: back to clockwise, from the same first vertex
        vertices = np.concatenate([vertices[:1], vertices[:0:-1]])
    hole = None if shape.hole is None else place(shape.hole)
    return Pose((outline - middle) * scale, vertices, hole, float(half[0]) * scale, float(half[1]) * scale)
