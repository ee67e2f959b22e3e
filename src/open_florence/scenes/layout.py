"""What a scene shall hold and where, before a pixel is drawn: background, words, then objects around the words."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from open_florence.scenes.config import SceneConfig
from open_florence.scenes.contents import Background
from open_florence.scenes.lettering import Stamp, draw_word, glyphs, stamp
from open_florence.scenes.shapes import Points, pose
from open_florence.scenes.sprites import load_sprites
from open_florence.scenes.vocabulary import ACHROMATIC, BACKGROUNDS, COLOURS, SHAPES, TEXTURES

Box = tuple[float, float, float, float]

RADII = {"small": (0.068, 0.094), "": (0.12, 0.158), "large": (0.195, 0.255)}
"""Half of the longer side, as a share of the image's shorter one. The gaps keep the size words beyond doubt."""
CROWD_RADII = (0.06, 0.09)
CROWD_SHAPES = ("circle", "ring")
PLATE_MARGIN = 4


@dataclass
class Draft:
    """An object that shall be drawn: which, and where its whole box stands once it has found a place."""

    name: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    half_width: float
    half_height: float
    outline: Points | None = None  # about (x, y); None for a sprite
    vertices: Points | None = None
    hole: Points | None = None
    sprite: NDArray[np.uint8] | None = None

    @property
    def box(self) -> Box:
        return (
            self.x - self.half_width,
            self.y - self.half_height,
            self.x + self.half_width,
            self.y + self.half_height,
        )


@dataclass(frozen=True)
class Plan:
    """A scene on paper."""

    background: Background
    drafts: tuple[Draft, ...]
    """From back to front."""
    prints: tuple[tuple[Stamp, int, int], ...]
    """Words with the pixel of the image where the corner of their stamp goes."""
    grey: bool
    """The scene has no colour: every colour word in it is one of `ACHROMATIC`."""


def class_names(config: SceneConfig) -> tuple[str, ...]:
    """Every class an object may have, the most frequent first."""
    return tuple(load_sprites(config.sprites)) if config.sprites else SHAPES


def overlap(a: Box, b: Box) -> float:
    """Area common to two boxes, as a share of the smaller one."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def make_plan(rng: random.Random, config: SceneConfig) -> Plan:
    """Draw a scene on paper. Words come first, so that they have room and no object covers them."""
    grey = config.sprites is None and rng.random() < 0.06
    background = Background(rng.choice(BACKGROUNDS), rng.choice(ACHROMATIC if grey else tuple(COLOURS)))
    colours = tuple(c for c in (ACHROMATIC if grey else COLOURS) if c != background.colour)
    crowd = rng.random() < config.crowd
    prints = _place_words(rng, config) if rng.random() < (0.4 if crowd else 1.0) * config.text else ()
    keep_out = [_reserved(*printed) for printed in prints]
    cast = _Cast(rng, config, colours)
    drafts = _crowd(rng, config, cast, keep_out) if crowd else _ordinary(rng, config, cast, keep_out)
    return Plan(background, tuple(drafts), prints, grey)


def _reserved(word: Stamp, x: int, y: int) -> Box:
    h, w = word.mask.shape
    return x - PLATE_MARGIN, y - PLATE_MARGIN, x + w + PLATE_MARGIN, y + h + PLATE_MARGIN


def _place_words(rng: random.Random, config: SceneConfig) -> tuple[tuple[Stamp, int, int], ...]:
    width, height = config.extent
    prints: list[tuple[Stamp, int, int]] = []
    for _ in range(1 + rng.choices(range(len(config.words)), config.words)[0]):
        text, lexicon = draw_word(rng)
        smallest = 9 * config.unit / 160
        cap = round(smallest * rng.choice((1.0, 1.1, 1.25, 1.45, 1.7)))
        angle = rng.uniform(-8, 8) if rng.random() < 0.5 else 0.0
        path = rng.choice(config.fonts) if config.fonts else None
        for size in (cap, round(smallest)):
            word = stamp(text, lexicon, glyphs(path, size), angle, rng.random() * 0.1 * size)
            h, w = word.mask.shape
            free_x, free_y = width - w - 2 * PLATE_MARGIN, height - h - 2 * PLATE_MARGIN
            if free_x > 0 and free_y > 0:
                break
        else:
            continue
        for _ in range(6):
            x, y = PLATE_MARGIN + rng.randrange(free_x), PLATE_MARGIN + rng.randrange(free_y)
            if all(overlap(_reserved(word, x, y), _reserved(*other)) == 0 for other in prints):
                prints.append((word, x, y))
                break
    return tuple(prints)


class _Cast:
    """Draws who plays: classes by the long tail, the rest evenly."""

    def __init__(self, rng: random.Random, config: SceneConfig, colours: tuple[str, ...]) -> None:
        self.rng, self.config, self.colours = rng, config, colours
        self.sprites = load_sprites(config.sprites) if config.sprites else None
        self.names = class_names(config)
        weights = [(k + 1) ** -config.zipf for k in range(len(self.names))]
        self.cumulative = list(itertools.accumulate(weights))

    def kind(self) -> tuple[str, str, str]:
        """Class, colour and texture of a new kind of object."""
        name = self.rng.choices(self.names, cum_weights=self.cumulative)[0]
        if self.sprites is not None:
            return name, "", ""
        return name, self.rng.choice(self.colours), self.texture()

    def texture(self) -> str:
        return self.rng.choice(TEXTURES[1:]) if self.rng.random() < 0.4 else TEXTURES[0]

    def like(self, kind: tuple[str, str, str]) -> tuple[str, str, str]:
        """A kind that shares much with another one: what counting and unique expressions are learnt from."""
        name, colour, texture = self.kind()
        chance = self.rng.random()
        if chance < 0.4:
            return kind
        return (kind[0], colour, texture) if chance < 0.75 else (name, kind[1], texture)

    def draft(self, kind: tuple[str, str, str], size: str, radius: float) -> Draft:
        """An object of a kind, its longer half side `radius` pixels, at no place yet (0, 0)."""
        name, colour, texture = kind
        if self.sprites is None:
            p = pose(name, radius, self.rng)
            return Draft(name, colour, texture, size, 0, 0, p.half_width, p.half_height, p.outline, p.vertices, p.hole)
        sprite = self.rng.choice(self.sprites[name])
        if self.rng.random() < 0.5:
            sprite = sprite[:, ::-1]
        h, w = sprite.shape[:2]
        scale = radius / max(h, w)
        return Draft(name, colour, texture, size, 0, 0, w * scale, h * scale, sprite=sprite)


def _ordinary(rng: random.Random, config: SceneConfig, cast: _Cast, keep_out: list[Box]) -> list[Draft]:
    """A few objects of mixed sizes anywhere; in nearly half of the scenes they may hide parts of each other."""
    limit = config.occlusion if rng.random() < 0.45 else 0.02
    placed: list[Draft] = []
    kinds: list[tuple[str, str, str]] = []
    for _ in range(rng.randint(config.min_objects, config.max_objects)):
        kind = cast.like(rng.choice(kinds)) if kinds and rng.random() < 0.35 else cast.kind()
        kinds.append(kind)
        drawn = rng.choices(tuple(RADII), (0.32, 0.38, 0.3))[0]
        for size in (drawn, "small"):  # where the first finds no room, a smaller one may
            draft = cast.draft(kind, size, config.unit * rng.uniform(*RADII[size]))
            if found := _find_place(draft, rng, config, placed, keep_out, limit):
                draft.x, draft.y = found
                placed.append(draft)
                break
    # the small ones mostly in front, where they are not lost
    return sorted(placed, key=lambda d: -max(d.half_width, d.half_height) * rng.uniform(0.7, 1.3))


def _find_place(
    draft: Draft, rng: random.Random, config: SceneConfig, placed: list[Draft], keep_out: list[Box], limit: float
) -> tuple[float, float] | None:
    """A centre where the object overlaps no word and no other object too much; None after some tries.

    Objects of one colour keep apart: where they met, nobody could say how many they are.
    """
    width, height = config.extent
    w, h = draft.half_width, draft.half_height
    inside = 0.5 if rng.random() < 0.08 else 1.0  # a few are cut by the image's edge
    margin_x, margin_y = inside * w + 1, inside * h + 1
    near = rng.choice(placed) if placed and limit > 0.1 and rng.random() < 0.6 else None
    for k in range(12):
        x, y = rng.uniform(margin_x, width - margin_x), rng.uniform(margin_y, height - margin_y)
        if near is not None and k < 6:  # beside an object, close enough to touch it
            angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 0.95)
            x = near.x + math.cos(angle) * reach * (w + near.half_width)
            y = near.y + math.sin(angle) * reach * (h + near.half_height)
            if not (margin_x <= x <= width - margin_x and margin_y <= y <= height - margin_y):
                continue
        box = x - w, y - h, x + w, y + h
        if all(overlap(box, o) == 0 for o in keep_out) and all(
            overlap(box, o.box) <= (limit if not draft.colour or o.colour != draft.colour else 0) for o in placed
        ):
            return x, y
    return None


def _crowd(rng: random.Random, config: SceneConfig, cast: _Cast, keep_out: list[Box]) -> list[Draft]:
    """Many small objects, mostly of one kind, on a jittered lattice."""
    width, height = config.extent
    count = rng.randint(*config.crowd_objects)
    main = cast.kind()
    if cast.sprites is None and rng.random() < 0.5:
        main = (rng.choice(CROWD_SHAPES), main[1], main[2])
    radius = config.unit * rng.uniform(*CROWD_RADII)
    columns = rng.randint(3, max(3, min(int(width / (2.2 * radius)), count)))
    rows = max(2, min(int(height / (2.2 * radius)), -(-count // columns) + rng.randrange(2)))
    cell_x, cell_y = width / columns, height / rows
    cells = list(itertools.product(range(columns), range(rows)))
    rng.shuffle(cells)
    drafts: list[Draft] = []
    for column, row in cells[:count]:
        kind = main if rng.random() < 0.87 else cast.like(main)
        draft = cast.draft(kind, "small", radius * rng.uniform(0.9, 1.1))
        slack_x, slack_y = max(0.0, cell_x / 2 - radius), max(0.0, cell_y / 2 - radius)
        draft.x = (column + 0.5) * cell_x + rng.uniform(-1, 1) * min(0.9 * slack_x, radius)
        draft.y = (row + 0.5) * cell_y + rng.uniform(-1, 1) * min(0.9 * slack_y, radius)
        if all(overlap(draft.box, other) == 0 for other in keep_out):
            drafts.append(draft)
    return drafts
