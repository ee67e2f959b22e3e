"""What was drawn on an image in Label Studio: its results about places put together region by region."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeGuard

from open_florence.data.records import box_within
from open_florence.geometry import Array, clip, polygon_area, polygon_to_box
from open_florence.schema import Region, Size


@dataclass
class Drawn:
    """A rectangle or polygon: Label Studio spreads its place, labels and text over results of one id."""

    TYPES: ClassVar = ("rectangle", "rectanglelabels", "polygon", "polygonlabels", "labels")

    id: str
    points: list[tuple[float, float]]
    """In pixels; of a rectangle its four corners clockwise from its own top-left, turned as it is."""
    is_rectangle: bool
    control: str
    labels: list[str] = field(default_factory=list)
    text: str = ""
    score: float | None = None
    parent: str | None = None
    """The id of the region it belongs to."""

    @property
    def bounds(self) -> Array:
        """The box (4,) around it."""
        return polygon_to_box(self.points)

    def box(self, label: str, size: Size) -> Region:
        """The box around it, cut at the image's edge. Raises ValueError where it has no area."""
        x1, y1, x2, y2 = self.bounds.tolist()
        return Region(
            "box", box_within(size, (x1, y1, x2, y2), name=f"the box of its {label}").parts, label, self.score
        )

    def polygon(self, label: str, size: Size) -> Region:
        """Its outline, cut at the image's edge. Raises ValueError where it has no area."""
        corners = clip(self.points, size)  # (P, 2)
        if polygon_area(corners) <= 0:
            raise ValueError(f"the polygon of its {label} has no area in the image")
        return Region("polygon", (tuple((x, y) for x, y in corners.tolist()),), label, self.score)


def draw(
    items: list[dict[str, Any]], size: Size, report: Callable[[str], object]
) -> tuple[dict[str, Drawn], list[dict[str, Any]]]:
    """The regions of a result by id, in the order drawn, and the items that are about no region.

    `report` is told of items whose place cannot be read.
    """
    drawn: dict[str, Drawn] = {}
    for item in items:
        if item.get("type") not in Drawn.TYPES:
            continue
        try:
            found = _drawn(item, size)
        except ValueError as error:
            report(f"region {item.get('id')}, is left out: {error}")
            continue
        known = drawn.setdefault(found.id, found)
        if known is not found:  # the same region again: the rectangle, then its labels
            known.control = found.control if found.labels else known.control
            known.labels += found.labels
    rest = []
    for item in items:
        region = drawn.get(str(item.get("id")))
        if region is not None and item.get("type") == "textarea":
            value = item.get("value")
            text = value.get("text") if isinstance(value, dict) else None
            texts = text if isinstance(text, list) else [text]
            region.text = " ".join(part.strip() for part in texts if isinstance(part, str)).strip()
        elif item.get("type") not in Drawn.TYPES:
            rest.append(item)
    return drawn, rest


def _drawn(item: dict[str, Any], size: Size) -> Drawn:
    kind, value = str(item["type"]), item.get("value")
    if not isinstance(value, dict):
        raise ValueError("it has no value")
    labels = value.get(kind, []) if kind.endswith("labels") else []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"its labels are {labels!r:.80}")
    is_rectangle = "points" not in value
    points = _rectangle(value, size) if is_rectangle else _polygon(value["points"], size)
    score, parent = item.get("score"), item.get("parentID")
    return Drawn(
        str(item.get("id")),
        points,
        is_rectangle,
        str(item.get("from_name")),
        [label.strip() for label in labels if label.strip()],
        score=float(score) if is_number(score) and 0 <= score <= 1 else None,
        parent=parent if isinstance(parent, str) else None,
    )


def _rectangle(value: dict[str, Any], size: Size) -> list[tuple[float, float]]:
    """The corners of a rectangle of percentages, turned about its top-left corner by degrees clockwise."""
    numbers = [value.get(name) for name in ("x", "y", "width", "height")] + [value.get("rotation") or 0]
    if not all(map(is_number, numbers)):
        raise ValueError(f"its x, y, width and height are {numbers[:4]}, not four numbers")
    x, y, width, height, turn = (float(number) for number in numbers if is_number(number))
    x, y, width, height = x / 100 * size[0], y / 100 * size[1], width / 100 * size[0], height / 100 * size[1]
    sine, cosine = math.sin(math.radians(turn)), math.cos(math.radians(turn))
    corners = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return [_point(x + dx * cosine - dy * sine, y + dx * sine + dy * cosine) for dx, dy in corners]


def _polygon(points: Any, size: Size) -> list[tuple[float, float]]:
    """Points of percentages in pixels."""
    pairs = isinstance(points, list) and all(isinstance(p, list) and len(p) == 2 for p in points)
    if not pairs or len(points) < 3 or not all(is_number(v) for point in points for v in point):
        raise ValueError(f"its points are {points!r:.80}, not three or more pairs of numbers")
    return [_point(x / 100 * size[0], y / 100 * size[1]) for x, y in points]


def _point(x: float, y: float) -> tuple[float, float]:
    """Pixels to the millionth: the rest is noise of the percentages."""
    return round(x, 6), round(y, 6)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of JSON is a finite number that can be computed with."""
    return type(value) in (int, float) and abs(value) < 1e12
