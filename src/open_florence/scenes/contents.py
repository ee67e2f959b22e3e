"""What stands in a scene, as plain values: objects, words, background. Coordinates are pixels, origin top left."""

from __future__ import annotations

from dataclasses import dataclass

from open_florence.schema import Point


@dataclass(frozen=True)
class SceneObject:
    """One object, as far as it can be seen."""

    name: str
    """The class: a shape of `SHAPES`, or the class of a sprite."""
    colour: str
    """A word of `COLOURS`; empty for sprites."""
    texture: str
    """A word of `TEXTURES`; empty for sprites."""
    size: str
    """"small", "large", or empty where neither is beyond doubt."""
    box: tuple[float, float, float, float]
    """Tight around the visible pixels: x2, y2 are the far edges of the last ones."""
    parts: tuple[tuple[Point, ...], ...]
    """Outline of what is visible, clockwise, largest part first."""
    visible: float
    """Share of the whole object's pixels that can be seen."""

    @property
    def shape(self) -> str:
        """The class under the name the dense heads use."""
        return self.name

    @property
    def description(self) -> str:
        """Colour, texture and class: "red striped star"; a plain texture is not said."""
        words = (self.colour, self.texture if self.texture != "plain" else "", self.name)
        return " ".join(word for word in words if word)

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def area(self) -> float:
        """Pixels of the box."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class Word:
    """One printed word."""

    text: str
    quad: tuple[Point, ...]
    """Four corners clockwise from the word's own top-left, tight around the ink."""
    lexicon: bool
    """Whether it is of `LEXICON`; otherwise a random string."""
    frame: tuple[tuple[float, float, float], tuple[float, float, float]]
    """(2, 3) matrix from the word's frame (x along the baseline, y from the top of the capitals) to the image."""
    edges: tuple[float, ...]
    """Where each glyph begins in that frame, and where the last one ends."""
    cap: float
    """Height of the capitals in pixels."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The upright box around the quad."""
        xs, ys = [p[0] for p in self.quad], [p[1] for p in self.quad]
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class Background:
    """What lies behind everything."""

    kind: str
    """A word of `BACKGROUNDS`."""
    colour: str
    """A word of `COLOURS`; no object of the scene has it."""


@dataclass(frozen=True)
class Contents:
    """Everything that can be said about a scene, without its pixels."""

    width: int
    height: int
    objects: tuple[SceneObject, ...]
    """Left to right by the centre of the box, ties from the top."""
    words: tuple[Word, ...]
    """In reading order."""
    background: Background
    classes: tuple[str, ...]
    """Every class an object of such scenes may have."""


def reading_order(words: list[Word]) -> tuple[Word, ...]:
    """Top line first, left to right in a line."""
    words = sorted(words, key=lambda w: w.box[1] + w.box[3])
    lines: list[list[Word]] = []
    for word in words:
        if lines and same_line(lines[-1][0], word):
            lines[-1].append(word)
        else:
            lines.append([word])
    return tuple(word for line in lines for word in sorted(line, key=lambda w: w.box[0]))


def same_line(a: Word, b: Word) -> bool:
    """Whether two words stand on one line: their middles are less than half the larger capitals apart."""
    return abs(a.box[1] + a.box[3] - b.box[1] - b.box[3]) < max(a.cap, b.cap)
