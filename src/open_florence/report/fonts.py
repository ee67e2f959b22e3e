"""A font that can write the given labels, so that 猫 or Жук is never drawn as an empty box where the machine can help.

DejaVu Sans comes with matplotlib, which `supervision` brings along; it holds Latin, Greek, Cyrillic and Arabic. For
what it lacks the machine's own fonts are searched. Pillow's built-in font, the last resort, is plain ASCII.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)

JOINERS = "\u200c\u200d"
"""Without a shape of their own, but they change the letters beside them."""


def font_for(texts: Iterable[str], size: int) -> Font:
    """The font of `size` pixels that holds the most characters of `texts`; one font a picture."""
    characters = frozenset(character for text in texts for character in text if not character.isspace())
    path = _font_path(characters)
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def printable(text: str) -> str:
    """The text with every character that has no shape (controls, half characters, changes of direction) as a space."""
    return "".join(c if c.isprintable() or c in JOINERS else " " for c in text)


@lru_cache(maxsize=256)
def _font_path(characters: frozenset[str]) -> Path | None:
    """The first font file, ours before the machine's, without a missing character; else the one missing fewest."""
    best, fewest = None, len(characters) + 1
    for path in _font_files():
        missing = _missing(path, characters)
        if missing < fewest:
            best, fewest = path, missing
        if missing == 0:
            break
    return best


def _font_files() -> Iterator[Path]:
    package = importlib.util.find_spec("matplotlib")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    yield from _machine_fonts()


@lru_cache(maxsize=1)
def _machine_fonts() -> tuple[Path, ...]:
    """Every font file of the machine, upright sans-serif ones first."""
    found = [
        Path(folder) / name
        for root in FONT_FOLDERS
        for folder, _, names in os.walk(os.path.expanduser(root))
        for name in names
        if name.lower().endswith((".ttf", ".otf", ".ttc"))
    ]
    return tuple(sorted(found, key=lambda path: ("Sans" not in path.name, "Regular" not in path.name, path.name)))


def _missing(path: Path, characters: frozenset[str]) -> int:
    """How many of the characters the font draws as its sign for "no such character"; all, if it cannot be read."""
    try:
        font = ImageFont.truetype(str(path), 24)
        absent = _picture(font, "\U0010fffe")
        return sum(_picture(font, character) == absent for character in characters)
    except OSError:
        return len(characters) + 1


def _picture(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
