"""Where labels stand: beside their regions, inside the frame, and off each other as far as there is room."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

Rectangle = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels of the picture that is drawn on."""


def place_labels(
    regions: Sequence[Rectangle], sizes: Sequence[tuple[float, float]], frame: tuple[float, float]
) -> list[Rectangle]:
    """One rectangle a label, greedily in the given order: of six places around the region's box the least covered.

    `regions` are boxes, `sizes` the (width, height) of each label's rectangle, `frame` the (width, height) of the
    picture; all in the same pixels. A label wider than the frame starts at its left edge.
    """
    placed: list[Rectangle] = []
    for region, (width, height) in zip(regions, sizes, strict=True):
        x1, y1, x2, y2 = region
        corners = [
            (x1, y1 - height),
            (x1, y1),
            (x1, y2),
            (x2 - width, y1 - height),
            (x2 - width, y2),
            (x1, y2 - height),
        ]
        best, best_cost = (0.0, 0.0, width, height), float("inf")
        for rank, (wished_left, wished_top) in enumerate(corners):
            left = min(max(wished_left, 0.0), max(frame[0] - width, 0.0))
            top = min(max(wished_top, 0.0), max(frame[1] - height, 0.0))
            candidate = (left, top, left + width, top + height)
            moved = (abs(left - wished_left) + abs(top - wished_top)) * height
            cost = sum(overlap(candidate, other) for other in placed) + 0.3 * moved + rank
            if cost < best_cost:
                best, best_cost = candidate, cost
        placed.append(best)
    return placed


def overlap(a: Rectangle, b: Rectangle) -> float:
    """The area that two rectangles share, in square pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def shorten(text: str, columns: int) -> str:
    """The text on one line, cut with an ellipsis to so many columns (an East Asian character takes two)."""
    line = " ".join(text.split())
    used = 0
    for index, character in enumerate(line):
        used += columns_of(character)
        if used > columns:
            return line[: max(index - 1, 1)].rstrip() + "…"
    return line


def columns_of(text: str) -> int:
    """How many columns of a fixed-width font the text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def region_title(label: str, score: float | None) -> str:
    """What is written at a region: its label and, where there is one, its score with two digits."""
    number = "" if score is None else f"{score:.2f}"
    return f"{label} {number}".strip()
