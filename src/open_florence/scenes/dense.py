"""Labels for every cell of the tower's last grid: what the training-only dense stage learns from.

A cell is read at its centre. "ignored" is -100 for classes and nan for numbers. `DENSE_HEADS` says how many outputs a
linear layer needs for each; the kinds are

- "binary": yes or no, per output (target float, nan = ignored)
- "class": one class for each group of outputs (target int64; classes = outputs / groups, where groups is the target's
  last axis if it has three and 1 otherwise)
- "distance": non-negative numbers (target float, nan = ignored)
- "global_class": one class for the whole image (target int64 scalar)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_florence.scenes.config import SceneConfig
from open_florence.scenes.layout import class_names
from open_florence.scenes.scene import Scene
from open_florence.scenes.vocabulary import BACKGROUNDS, CHARACTERS, COLOURS, LEXICON, TEXTURES

IGNORED = -100
SUB = 4
"""Sub-points a side of a cell for its mask."""
_COLOUR = {name: k for k, name in enumerate(COLOURS)}
_TEXTURE = {name: k for k, name in enumerate(TEXTURES)}
_WORD = {word: k for k, word in enumerate(LEXICON)}
_CHARACTER = {name: k for k, name in enumerate(CHARACTERS)}


def dense_heads(config: SceneConfig = SceneConfig()) -> dict[str, tuple[str, int]]:  # noqa: B008 (frozen)
    """name of the label -> (kind, number of outputs) for scenes of this configuration."""
    return {
        "object": ("binary", 1),
        "shape": ("class", len(class_names(config))),
        "colour": ("class", len(COLOURS)),
        "texture": ("class", len(TEXTURES)),
        "box": ("distance", 4),
        "text": ("binary", 1),
        "characters": ("class", 4 * len(CHARACTERS)),
        "word": ("class", len(LEXICON)),
        "mask": ("binary", SUB * SUB),
        "background_type": ("global_class", len(BACKGROUNDS)),
        "background_colour": ("global_class", len(COLOURS)),
    }


DENSE_HEADS = dense_heads()


def dense_labels(scene: Scene, grid: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """What each cell of a (rows, cols) grid over the image sees.

    Returns:
        "object": (rows, cols) float32, 1 where the centre is on an object.
        "text": (rows, cols) float32, 1 where one of the quarter points is on a word.
        "shape", "colour", "texture": (rows, cols) int64, -100 off the objects (colour and texture also on sprites).
        "box": (rows, cols, 4) float32, from the centre to the left, top, right and bottom side of the object's box,
            as shares of the image's width and height; nan off the objects.
        "characters": (rows, cols, 4) int64, the character at the cell's quarter points (top left, top right, bottom
            left, bottom right), -100 off the words.
        "word": (rows, cols) int64, the word of the lexicon that the cell shows part of, -100 elsewhere.
        "mask": (rows, cols, 16) float32, row by row, whether each of 4 x 4 sub-points is on the centre's object; nan
            off the objects.
        "background_type", "background_colour": int64 scalars.
    """
    height, width = scene.id_map.shape
    rows, cols = grid
    x, y = _centres(cols, width), _centres(rows, height)
    ids = scene.id_map[y.astype(np.intp)[:, None], x.astype(np.intp)]  # (rows, cols)
    which = np.maximum(ids, -1)  # -1 reads the last, "nothing", row of each table
    on = which >= 0
    boxes = np.array([*(o.box for o in scene.objects), (np.nan,) * 4], np.float32)[which]  # (rows, cols, 4)
    box = np.empty((rows, cols, 4), np.float32)
    box[..., 0] = (x - boxes[..., 0]) / width
    box[..., 1] = (y[:, None] - boxes[..., 1]) / height
    box[..., 2] = (boxes[..., 2] - x) / width
    box[..., 3] = (boxes[..., 3] - y[:, None]) / height
    fine_x, fine_y = _centres(cols * SUB, width).astype(np.intp), _centres(rows * SUB, height).astype(np.intp)
    fine = scene.id_map[fine_y[:, None], fine_x].reshape(rows, SUB, cols, SUB).transpose(0, 2, 1, 3)
    same = (fine.reshape(rows, cols, SUB * SUB) == which[..., None]).astype(np.float32)
    same[~on] = np.nan
    table = np.array(
        [
            *(
                (scene.classes.index(o.name), _COLOUR.get(o.colour, IGNORED), _TEXTURE.get(o.texture, IGNORED))
                for o in scene.objects
            ),
            (IGNORED,) * 3,
        ],
        np.int64,
    )[which]  # (rows, cols, 3)
    characters, word = _lettering(scene, grid)
    return {
        "object": on.astype(np.float32),
        "shape": table[..., 0],
        "colour": table[..., 1],
        "texture": table[..., 2],
        "box": box,
        "text": (characters != IGNORED).any(axis=-1).astype(np.float32),
        "characters": characters,
        "word": word,
        "mask": same,
        "background_type": np.array(BACKGROUNDS.index(scene.background.kind), np.int64),
        "background_colour": np.array(_COLOUR[scene.background.colour], np.int64),
    }


@lru_cache(maxsize=32)
def _centres(count: int, length: int) -> NDArray[np.float32]:
    """Middles of `count` equal intervals of an axis."""
    return ((np.arange(count) + 0.5) * (length / count)).astype(np.float32)


def _lettering(scene: Scene, grid: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The character at each quarter point (rows, cols, 4), and the word each cell shows part of (rows, cols)."""
    rows, cols = grid
    quarters = np.full((2, 2 * rows, 2 * cols), IGNORED, np.int64)  # characters, words
    x, y = _centres(2 * cols, scene.width), _centres(2 * rows, scene.height)
    for word in scene.words:
        (cos, minus_sin, left), (_, _, top) = word.frame
        # the frame is a rotation and a shift: its inverse is the transpose
        dx, dy = x - left, y[:, None] - top
        along = cos * dx - minus_sin * dy
        down = minus_sin * dx + cos * dy
        inside = (along >= 0) & (along < word.edges[-1]) & (down >= -1) & (down < word.cap + 1)
        glyph = np.searchsorted(word.edges, along[inside], side="right") - 1
        quarters[0, inside] = np.array([_CHARACTER[c] for c in word.text])[glyph]
        quarters[1, inside] = _WORD.get(word.text, IGNORED)
    characters, words = quarters.reshape(2, rows, 2, cols, 2).transpose(0, 1, 3, 2, 4).reshape(2, rows, cols, 4)
    return characters, words.max(axis=-1)
