"""One colour a label, the same on every picture: of a drawing, of a report, and of the next run."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

Rgb = tuple[int, int, int]

COLOURS: tuple[str, ...] = (
    "#e5484d", "#3e8ef7", "#2fae60", "#f5a623", "#9b6bf2", "#12b5cb", "#ef5da8", "#9aae1e", "#f2703f", "#5866e8",
    "#14b89a", "#c79a3a", "#c84fd6", "#6fbf3b", "#58a9e0", "#d6636e", "#8a8f2c", "#7f86b8", "#b9774d", "#4aa3a0",
)  # fmt: skip
"""Apart from each other, and light and dark enough to be seen on a white and on a black background."""

WORDS = COLOURS[9]
"""Of printed words, whose text is not a class."""


class Palette:
    """Labels to colours.

    A label's colour follows from its letters, so it is the same in every report. Where a label seen before has that
    colour, the next free one is taken and remembered. With more labels than colours, labels share them, but not two
    of one picture (`within`).
    """

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._taken: set[int] = set()

    def colour(self, label: str) -> str:
        """The label's colour as "#rrggbb"."""
        return COLOURS[self._slot(label)]

    def within(self, labels: Iterable[str]) -> Palette:
        """The palette of one picture that shows `labels`: their own colours, or the next one free in the picture."""
        picture = Palette()
        for label in labels:
            if label not in picture._slots:
                picture._take(label, self._slot(label))
        return picture

    def _slot(self, label: str) -> int:
        if label in self._slots:
            return self._slots[label]
        home = zlib.crc32(label.encode("utf-8", "surrogatepass")) % len(COLOURS)
        return home if len(self._taken) == len(COLOURS) else self._take(label, home)

    def _take(self, label: str, wish: int) -> int:
        """Remembers the wished colour for the label, or the next free one, or the wished one where none is free."""
        turns = ((wish + step) % len(COLOURS) for step in range(len(COLOURS)))
        slot = next((turn for turn in turns if turn not in self._taken), wish)
        self._slots[label] = slot
        self._taken.add(slot)
        return slot


def rgb(colour: str) -> Rgb:
    """(red, green, blue), 0 to 255, of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def ink(colour: str) -> str:
    """White where it can be read on the colour (contrast of at least 3, WCAG's bound for bold letters), else black."""
    channels = [value / 255 for value in rgb(colour)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#ffffff" if 1.05 / (luminance + 0.05) >= 3 else "#16181d"
