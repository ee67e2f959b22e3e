"""From a plan to pixels and to the map of what is visible where.

Objects are first only masks: who hides whom is settled, and objects of which too little shows are taken out, before
any colour is laid. Masks are filled at four times the resolution and averaged, so edges are soft and within a tenth
of a pixel of the true outline; a pixel belongs to an object that covers at least half of it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_florence.scenes.layout import PLATE_MARGIN, Draft, Plan
from open_florence.scenes.lettering import Stamp
from open_florence.scenes.opencv import cv2
from open_florence.scenes.photometric import colourless, light, vary
from open_florence.scenes.textures import Bytes, Colour, jitter, mix, paint, partner, surface, tones
from open_florence.scenes.textures import background as background_pattern
from open_florence.scenes.vocabulary import ACHROMATIC, COLOURS

FINE = 4
HALF = 154
"""Coverage (0..255) from which a pixel belongs to an object. OpenCV fills 0.42 fine pixels beyond an outline, which is
0.1 of ours: an edge through the middle of a pixel comes out as 0.6, not 0.5."""
BACKGROUND, TEXT = -1, -2
"""What the id map holds where no object is seen."""
INK_CONTRAST = 80
"""Least difference in lightness (0..255) between a word and each tone behind it."""
GREY_INKS = tuple(COLOURS[name] for name in ("black", "white"))
INKS = (*GREY_INKS * 3, *(COLOURS[name] for name in ("red", "yellow", "blue", "green", "orange")))


@dataclass
class Layer:
    """One object's coverage, cut at the image's edges."""

    draft: Draft
    x: int
    y: int
    alpha: Bytes  # (h, w) coverage 0..255
    solid: NDArray[np.bool_]  # (h, w) the pixels it takes
    total: int  # pixels it would take if nothing cut or hid it
    colours: Bytes | None = None  # (h, w, 3) of a sprite
    visible: int = 0

    def window(self, array: NDArray[Any]) -> NDArray[Any]:
        """The part of an image-sized array under this layer (a view)."""
        h, w = self.alpha.shape
        return array[self.y : self.y + h, self.x : self.x + w]


def settle(plan: Plan, width: int, height: int, min_visible: float) -> tuple[list[Layer], NDArray[np.int16]]:
    """Who is visible where: layers from back to front, and the (height, width) map of their numbers.

    Layers that show less than `min_visible` of themselves are gone; the map is that of the others.
    """
    layers = [
        _shape_layer(d, width, height) if d.sprite is None else _sprite_layer(d, width, height) for d in plan.drafts
    ]
    while True:
        ids = np.full((height, width), BACKGROUND, np.int16)
        for number, layer in enumerate(layers):
            layer.window(ids)[layer.solid] = number
        for number, layer in enumerate(layers):
            layer.visible = int(np.count_nonzero(layer.window(ids) == number))
        kept = [layer for layer in layers if layer.visible >= max(1.0, min_visible * layer.total)]
        if len(kept) == len(layers):
            return layers, ids
        layers = kept


def render(plan: Plan, layers: list[Layer], ids: NDArray[np.int16], rng: random.Random, photometric: float) -> Bytes:
    """The (height, width, 3) RGB picture; the pixels of the words are marked in `ids`."""
    height, width = ids.shape
    unit = min(width, height)
    low, high = _background_tones(plan, rng)
    image = paint(background_pattern(plan.background.kind, width, height, unit, rng), low, high)
    for layer in layers:
        _blend(layer.window(image), layer.alpha, _colours(layer, unit, rng))
    for stamp, x, y in plan.prints:
        _print_word(image, ids, stamp, x, y, (low, high), plan.grey, rng)
    image = light(image, rng)
    if rng.random() < photometric:
        image = vary(image, rng)
    return colourless(image, rng) if plan.grey and rng.random() < 0.7 else image


def _cropped(alpha: Bytes, x: int, y: int, width: int, height: int) -> tuple[int, int, slice, slice]:
    h, w = alpha.shape
    left, top = max(0, -x), max(0, -y)
    return x + left, y + top, slice(top, min(h, height - y)), slice(left, min(w, width - x))


def _shape_layer(draft: Draft, width: int, height: int) -> Layer:
    left, top, right, bottom = draft.box
    x, y = math.floor(left) - 1, math.floor(top) - 1
    w, h = math.ceil(right) + 1 - x, math.ceil(bottom) + 1 - y
    fine = np.zeros((h * FINE, w * FINE), np.uint8)
    # OpenCV's coordinates are pixel centres with 4 fractional bits; ours are pixel edges
    curves = [
        (((curve + np.array((draft.x - x, draft.y - y))) * FINE - 0.5) * 16).round().astype(np.int32)
        for curve in (draft.outline, draft.hole)
        if curve is not None
    ]
    cv2.fillPoly(fine, curves, 255, cv2.LINE_8, 4)
    alpha: Bytes = cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA)
    total = int(np.count_nonzero(alpha >= HALF))
    x, y, rows, columns = _cropped(alpha, x, y, width, height)
    alpha = alpha[rows, columns]
    return Layer(draft, x, y, alpha, alpha >= HALF, total)


def _sprite_layer(draft: Draft, width: int, height: int) -> Layer:
    assert draft.sprite is not None
    w, h = max(2, round(2 * draft.half_width)), max(2, round(2 * draft.half_height))
    pixels: Bytes = cv2.resize(draft.sprite, (w, h), interpolation=cv2.INTER_AREA)
    alpha = pixels[..., 3]
    total = int(np.count_nonzero(alpha >= 128))
    x, y, rows, columns = _cropped(alpha, round(draft.x - w / 2), round(draft.y - h / 2), width, height)
    alpha = alpha[rows, columns]
    return Layer(draft, x, y, alpha, alpha >= 128, total, pixels[rows, columns, :3])


def _background_tones(plan: Plan, rng: random.Random) -> tuple[Colour, Colour]:
    spread = 0.12 if plan.background.kind == "plain" else rng.uniform(0.32, 0.5)
    name = plan.background.colour
    low, high = tones(name, jitter(name, rng), spread)
    return (low, high) if rng.random() < 0.5 else (high, low)


def _colours(layer: Layer, unit: int, rng: random.Random) -> Bytes:
    if layer.colours is not None:
        return layer.colours
    draft = layer.draft
    h, w = layer.alpha.shape
    colour = jitter(draft.colour, rng)
    if draft.texture == "plain":
        low, high = tones(draft.colour, colour, 0.16)
    else:
        low, high = colour, partner(draft.colour, colour, rng)
    return paint(surface(draft.texture, w, h, unit, rng), low, high)


def _blend(under: Bytes, alpha: Bytes, over: Bytes) -> None:
    """Lay `over` on `under` in place."""
    share: Bytes = cv2.merge((alpha, alpha, alpha))
    kept = cv2.multiply(under, cv2.bitwise_not(share), scale=1 / 255)
    under[:] = cv2.add(cv2.multiply(over, share, scale=1 / 255), kept)


def _even(colour: Colour, alpha: Bytes) -> Bytes:
    """One colour all over, as large as a coverage."""
    return np.full((*alpha.shape, 3), colour, np.uint8)


def _lightness(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _ink(behind: tuple[Colour, ...], inks: tuple[Colour, ...], rng: random.Random) -> Colour | None:
    fit = [i for i in inks if all(abs(_lightness(i) - _lightness(b)) >= INK_CONTRAST for b in behind)]
    return rng.choice(fit) if fit else None


def _print_word(
    image: Bytes,
    ids: NDArray[np.int16],
    stamp: Stamp,
    x: int,
    y: int,
    behind: tuple[Colour, Colour],
    grey: bool,
    rng: random.Random,
) -> None:
    inks = GREY_INKS if grey else INKS
    colour = _ink(behind, inks, rng)
    h, w = stamp.mask.shape
    if colour is None or rng.random() < 0.2:  # on a plate of its own
        names = ACHROMATIC[1:] if grey else ("black", "white", "white", "yellow", "blue", "red", "green")
        plate = jitter(rng.choice(names), rng)
        colour = _ink((plate,), GREY_INKS, rng) or GREY_INKS[0]
        m = PLATE_MARGIN
        room = image[y - m : y + h + m, x - m : x + w + m]
        cover = np.zeros(room.shape[:2], np.uint8)
        centre = stamp.quad.mean(axis=0)
        out = stamp.quad - centre
        corners = centre + out * (1 + 2.4 / np.abs(out).min(axis=0)) + m - 0.5
        cv2.fillConvexPoly(cover, (corners * 16).round().astype(np.int32), 255, cv2.LINE_AA, 4)
        _blend(room, cover, _even(plate, cover))
    ink = mix(colour, (128, 128, 128), rng.uniform(0, 0.1))
    _blend(image[y : y + h, x : x + w], stamp.mask, _even(ink, stamp.mask))
    ids[y : y + h, x : x + w][stamp.mask >= 128] = TEXT
