"""Two tones and a pattern: how every surface is painted, backgrounds and objects alike.

A pattern is a weight 0..255 a pixel, cut at a random offset from a bank made once; paint is the table lookup from
weight to colour. No per-pixel Python, no random numbers by the pixel.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from open_florence.scenes.opencv import cv2
from open_florence.scenes.vocabulary import ACHROMATIC, COLOURS, DARK_PARTNERS

Bytes = NDArray[np.uint8]
Colour = tuple[int, int, int]

ANGLES = (0.0, 45.0, 90.0, 135.0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` of `b` in it."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def jitter(name: str, rng: random.Random, amount: int = 12) -> Colour:
    """The colour a word stands for, a little off in each channel, still of that name."""
    common = rng.randint(-amount, amount)
    own = 0 if name in ACHROMATIC else amount // 2
    shifts = [common + rng.randint(-own, own) for _ in range(3)]
    red, green, blue = (min(255, max(0, v + shift)) for v, shift in zip(COLOURS[name], shifts, strict=True))
    return red, green, blue


def partner(name: str, colour: Colour, rng: random.Random) -> Colour:
    """The second tone of a striped or dotted object: no other colour's name would fit the pair better."""
    if name == "black":
        return mix(colour, WHITE, rng.uniform(0.28, 0.36))
    if name == "white":
        return mix(colour, BLACK, rng.uniform(0.26, 0.34))
    if name == "grey":
        return mix(colour, rng.choice((BLACK, WHITE)), rng.uniform(0.45, 0.55))
    if name in DARK_PARTNERS and rng.random() < 0.5:
        return mix(colour, BLACK, rng.uniform(0.5, 0.65))
    return mix(colour, WHITE, rng.uniform(0.7, 0.9))


def tones(name: str, colour: Colour, spread: float) -> tuple[Colour, Colour]:
    """A darker and a lighter tone around a colour, `spread` (0..1) apart, both still of its name."""
    if name == "black":
        return colour, mix(colour, WHITE, 0.5 * spread)
    if name == "white":
        return mix(colour, BLACK, 0.5 * spread), colour
    return mix(colour, BLACK, spread / 2), mix(colour, WHITE, spread / 2)


def paint(pattern: Bytes, low: Colour, high: Colour) -> Bytes:
    """(h, w) weights to (h, w, 3) RGB: 0 is `low`, 255 is `high`."""
    table = ((np.array(low)[:, None] * _DOWN + np.array(high)[:, None] * _UP) // 255).astype(np.uint8)  # (3, 256)
    painted: Bytes = cv2.merge([cv2.LUT(pattern, channel) for channel in table])
    return painted


_UP = np.arange(256)
_DOWN = 255 - _UP


def cut(bank: Bytes, width: int, height: int, rng: random.Random) -> Bytes:
    """A window of a bank at a random place."""
    rows, columns = bank.shape[:2]
    y, x = rng.randrange(rows - height + 1), rng.randrange(columns - width + 1)
    return bank[y : y + height, x : x + width]


@lru_cache(maxsize=128)
def stripes(side: int, period: float, angle: float, share: float = 0.5) -> Bytes:
    """(side, side) stripes that take `share` of the area, softened over a pixel."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    along = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    distance = period * (share / 2 - np.abs((along / period) % 1.0 - 0.5))  # pixels inside the nearest edge
    weights: Bytes = (np.clip(distance + 0.5, 0, 1) * 255).astype(np.uint8)
    return weights


@lru_cache(maxsize=32)
def dots(side: int, spacing: float) -> Bytes:
    """(side, side) round dots on a lattice of alternating rows, about a quarter of the area."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    row = np.floor(y / spacing)
    dx = (x + row % 2 * spacing / 2) % spacing - spacing / 2
    dy = y % spacing - spacing / 2
    weights: Bytes = (np.clip(0.3 * spacing - np.hypot(dx, dy) + 0.5, 0, 1) * 255).astype(np.uint8)
    return weights


@lru_cache(maxsize=32)
def checks(side: int, cell: int) -> Bytes:
    """(side, side) chessboard of `cell` pixels."""
    index = np.arange(side) // cell
    weights: Bytes = ((index[:, None] + index[None, :]) % 2 * 255).astype(np.uint8)
    return weights


@lru_cache(maxsize=32)
def clouds(side: int, grain: int, seed: int) -> Bytes:
    """(side, side) smooth noise whose finest blobs are `grain` pixels, full range."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side), np.float32)
    for octave in range(3):
        cells = max(2, math.ceil(side / (grain * 2**octave)) + 2)
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) * 2**octave
    spread = np.clip((total - total.mean()) / (2.2 * total.std()), -1, 1)
    weights: Bytes = ((spread + 1) * 127.5).astype(np.uint8)
    return weights


@lru_cache(maxsize=8)
def grain(side: int, seed: int) -> Bytes:
    """(side, side, 3) film grain around 128: mostly grey, a little coloured."""
    rng = np.random.default_rng(seed)
    grey = rng.standard_normal((side, side, 1)) + 0.4 * rng.standard_normal((side, side, 3))
    noise: Bytes = np.clip(128 + 40 * grey, 0, 255).astype(np.uint8)
    return noise


def gradient(width: int, height: int, rng: random.Random) -> Bytes:
    """(height, width) even ramp in one of eight directions."""
    dx, dy = rng.choice(((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)))
    span = 255.0 / (abs(dx) + abs(dy))
    row = np.linspace(0, span, width, dtype=np.float32)[::dx] if dx else np.zeros(width, np.float32)
    column = np.linspace(0, span, height, dtype=np.float32)[::dy] if dy else np.zeros(height, np.float32)
    weights: Bytes = (column[:, None] + row[None, :]).astype(np.uint8)
    return weights


def background(kind: str, width: int, height: int, unit: int, rng: random.Random) -> Bytes:
    """(height, width) pattern of one of `BACKGROUNDS`."""
    side = 2 * max(width, height)
    if kind == "gradient":
        return gradient(width, height, rng)
    if kind == "noisy":
        return cut(clouds(side, max(2, unit // 40), rng.randrange(3)), width, height, rng)
    if kind == "checkered":
        return cut(checks(side, unit // rng.choice((6, 8, 10, 13))), width, height, rng)
    if kind == "striped":
        return cut(stripes(side, unit / rng.choice((5, 7, 10)), rng.choice(ANGLES)), width, height, rng)
    return cut(clouds(side, unit // 2, 9), width, height, rng)


def surface(texture: str, width: int, height: int, unit: int, rng: random.Random) -> Bytes:
    """(height, width) pattern of an object's texture; a soft shading for plain ones."""
    side = 2 * unit
    if texture == "striped":
        return cut(stripes(side, unit * rng.choice((0.045, 0.055)), rng.choice(ANGLES), 0.4), width, height, rng)
    if texture == "dotted":
        return cut(dots(side, unit * rng.choice((0.046, 0.058))), width, height, rng)
    return cut(clouds(side, unit // 4, 7), width, height, rng)
