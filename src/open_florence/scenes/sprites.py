"""Cut-outs of the user's own objects: a folder of RGBA images named by class, to make scenes of instead of shapes.

Either a sub-folder for each class (`cup/1.png`, `cup/2.png`) or files named by class (`cup.png`, `cup_2.png`).
Underscores in a class name become spaces.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from open_florence.errors import OpenFlorenceError

MAX_SIDE = 256
"""Larger cut-outs are reduced once when read: no object of a scene is bigger."""


@lru_cache(maxsize=8)
def load_sprites(folder: str) -> dict[str, tuple[NDArray[np.uint8], ...]]:
    """Class name -> its cut-outs, each (h, w, 4) RGBA cropped to what is not transparent; classes in name order.

    Raises:
        OpenFlorenceError: no such folder, no images in it, or an image without a usable alpha channel.
    """
    root = Path(folder)
    if not root.is_dir():
        raise OpenFlorenceError(f"there is no folder of sprites at {folder}")
    found: dict[str, list[NDArray[np.uint8]]] = {}
    for path in sorted(root.rglob("*.png")) + sorted(root.rglob("*.webp")):
        name = path.parent.name if path.parent != root else re.sub(r"[-_ .]*\d*$", "", path.stem)
        found.setdefault(name.replace("_", " ").strip(), []).append(_read(path))
    if not found:
        raise OpenFlorenceError(f"the folder of sprites {folder} holds no .png or .webp images")
    return {name: tuple(found[name]) for name in sorted(found)}


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a >= 128)).getbbox()
    if box is None or image.getchannel("A").getextrema() == (255, 255):
        raise OpenFlorenceError(f"the sprite {path} is no cut-out: its alpha channel is all the same")
    image = image.crop(box)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)
