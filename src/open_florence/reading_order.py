"""The order in which the words of an image are read: lines from the top, words from the left."""

from __future__ import annotations

from collections.abc import Sequence

from open_florence.geometry import region_box
from open_florence.schema import Region


def read_lines(words: Sequence[Region]) -> list[list[Region]]:
    """The words in lines, top line first, each from left to right.

    Two words stand on one line when the middle of each lies within the height of the other; a word joins the line
    whose last word to its left fits, so that lines may run askew.
    """
    lines: list[list[Region]] = []
    for word in sorted(words, key=lambda region: (*_place(region), region.label)):
        fitting = [line for line in lines if _on_one_line(line[-1], word)]
        if fitting:
            min(fitting, key=lambda line: abs(_middle(line[-1]) - _middle(word))).append(word)
        else:
            lines.append([word])
    return sorted(lines, key=lambda line: (sum(map(_middle, line)) / len(line), _place(line[0])))


def read_text(words: Sequence[Region]) -> str:
    """What the words say: a space between words, a new line between lines; words that are empty are left out."""
    lines = read_lines([word for word in words if word.label.strip()])
    return "\n".join(" ".join(word.label.strip() for word in line) for line in lines)


def _place(region: Region) -> tuple[float, float]:
    x1, y1, *_ = region_box(region.parts).tolist()
    return x1, y1


def _middle(region: Region) -> float:
    _, y1, _, y2 = region_box(region.parts).tolist()
    return (float(y1) + float(y2)) / 2


def _on_one_line(a: Region, b: Region) -> bool:
    (_, top_a, _, bottom_a), (_, top_b, _, bottom_b) = (region_box(one.parts).tolist() for one in (a, b))
    return bool(top_a <= _middle(b) <= bottom_a and top_b <= _middle(a) <= bottom_b)
