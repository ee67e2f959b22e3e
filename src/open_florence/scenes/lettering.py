"""Printed words: glyphs rendered once by Pillow, set side by side, turned a little and stamped on the image.

Upper-case letters and digits. A word's own frame: x along the baseline from the first glyph's origin, y down from the
top of the capitals, in pixels; `Stamp.matrix` takes it to the image.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from open_florence.errors import OpenFlorenceError
from open_florence.scenes.opencv import cv2
from open_florence.scenes.vocabulary import CHARACTERS, LEXICON, RANDOM_CHARACTERS

Bytes = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAD = 2
"""Empty pixels kept around a glyph, for ink that leaves its advance."""


@dataclass(frozen=True)
class Glyphs:
    """A font at one size."""

    masks: dict[str, Bytes]
    """Coverage of each glyph, all of one height, `PAD` pixels before its origin and after its advance."""
    advances: dict[str, float]
    top: int
    """Row where the capitals begin."""
    cap: float
    """Height of the capitals in pixels."""


@dataclass(frozen=True)
class Stamp:
    """A word ready to be put anywhere: coverage, and where its frame lies in it."""

    text: str
    lexicon: bool
    mask: Bytes  # (h, w) coverage 0..255
    quad: NDArray[np.float64]  # (4, 2) pixels of the stamp, clockwise from the word's top-left
    matrix: NDArray[np.float64]  # (2, 3) word frame to pixels of the stamp
    edges: tuple[float, ...]  # where each glyph begins along the baseline, and where the last ends
    cap: float


@lru_cache(maxsize=256)
def _font(path: str | None, size: float) -> Font:
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise OpenFlorenceError(f"cannot read the font {path}: {error}") from error


@lru_cache(maxsize=256)
def glyphs(path: str | None, cap: int) -> Glyphs:
    """All characters of a font (None: Pillow's own) at the size where its capitals are about `cap` pixels high."""
    box = _font(path, 100).getbbox("H", anchor="ls") if path else _font(None, 100).getbbox("H", anchor="ls")
    font = _font(path, cap * 100 / -box[1])
    top = -font.getbbox("H", anchor="ls")[1]
    above, below = math.ceil(top * 1.25) + PAD, math.ceil(top * 0.35) + PAD
    masks, advances = {}, {}
    for character in CHARACTERS:
        advances[character] = float(font.getlength(character))
        cell = Image.new("L", (math.ceil(advances[character]) + 2 * PAD, above + below))
        ImageDraw.Draw(cell).text((PAD, above), character, fill=255, font=font, anchor="ls")
        masks[character] = np.asarray(cell)
    return Glyphs(masks, advances, above - round(top), float(top))


def draw_word(rng: random.Random) -> tuple[str, bool]:
    """A word to print, and whether it is of the lexicon: three in four are, the rest are random strings."""
    if rng.random() < 0.75:
        return rng.choice(LEXICON), True
    return "".join(rng.choices(RANDOM_CHARACTERS, k=rng.randint(3, 5))), False


def stamp(text: str, lexicon: bool, font: Glyphs, angle: float, spacing: float) -> Stamp:
    """A word set in a font, turned by `angle` degrees (clockwise as seen), glyphs `spacing` pixels further apart."""
    edges = [0.0]
    for character in text:
        edges.append(edges[-1] + font.advances[character] + spacing)
    height = next(iter(font.masks.values())).shape[0]
    line = np.zeros((height, math.ceil(edges[-1]) + 2 * PAD + 1), np.uint8)
    for character, start in zip(text, edges, strict=False):
        mask = font.masks[character]
        place = line[:, round(start) : round(start) + mask.shape[1]]
        np.maximum(place, mask[:, : place.shape[1]], out=place)
    x, y, w, h = cv2.boundingRect((line >= 96).astype(np.uint8))  # the ink, in pixels of the line
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[c, -s], [s, c]])
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float64) @ turn.T  # (4, 2)
    margin = 2.0
    shift = margin - corners.min(axis=0)
    extent = np.ceil(corners.max(axis=0) + shift + margin).astype(int)
    # warpAffine speaks of pixel centres, everything here of pixel edges: half a pixel to and fro
    centre = np.array([0.5, 0.5])
    warp = np.concatenate([turn, (turn @ centre + shift - centre)[:, None]], axis=1)
    turned: Bytes = cv2.warpAffine(line, warp, (int(extent[0]), int(extent[1])), flags=cv2.INTER_LINEAR)
    origin = turn @ np.array([PAD, font.top], np.float64) + shift
    matrix = np.concatenate([turn, origin[:, None]], axis=1)
    return Stamp(text, lexicon, turned, corners + shift, matrix, tuple(edges), font.cap)
