"""What a scene may hold (`SceneConfig`), and which seeds are for training, validation and the held-out test."""

from __future__ import annotations

from dataclasses import dataclass

from open_florence.errors import OpenFlorenceError

TRAINING_SEEDS = range(2**39)
VALIDATION_SEEDS = range(2**39, 2**39 + 10_000)
"""Looked at during training, never trained on."""
HELDOUT_SEEDS = range(2**40, 2**40 + 300)
"""The test set behind every published number: never trained on, never used for a decision."""


@dataclass(frozen=True)
class SceneConfig:
    """The knobs of `make_scene`. Lengths that are shares are shares of the image's shorter side."""

    size: int | tuple[int, int] = 160
    """Pixels: the side of a square image, or (width, height)."""
    min_objects: int = 1
    max_objects: int = 6
    """Objects of an ordinary scene; a crowd has its own numbers."""
    occlusion: float = 0.5
    """The largest share of the smaller of two boxes that their overlap may take."""
    min_visible: float = 0.35
    """An object that shows less than this share of its pixels is taken out of the scene."""
    text: float = 0.5
    """Probability that words are printed on the scene."""
    words: tuple[float, ...] = (0.65, 0.35)
    """Weights of one, two, ... words on a scene that has any."""
    crowd: float = 0.1
    """Probability of a crowd: many small objects, mostly of one kind."""
    crowd_objects: tuple[int, int] = (6, 16)
    zipf: float = 0.7
    """Exponent of the long-tailed class distribution: class k of the list has weight (k + 1) ** -zipf."""
    photometric: float = 0.35
    """Probability that blur, grain, low contrast, exposure or a loss of colour befalls the whole image."""
    fonts: tuple[str, ...] = ()
    """Font files for the printed words; Pillow's built-in font when empty."""
    sprites: str | None = None
    """A folder of RGBA cut-outs named by class, used instead of the parametric shapes (`sprites.py`)."""

    def __post_init__(self) -> None:
        if min(self.extent) < 64:
            raise OpenFlorenceError(f"a scene is at least 64 pixels wide and high, not {self.extent}")
        if not 1 <= self.min_objects <= self.max_objects:
            raise OpenFlorenceError(f"a scene holds 1 or more objects, not {self.min_objects} to {self.max_objects}")

    @property
    def extent(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def unit(self) -> int:
        """The shorter side in pixels: what radii, stripes and letters are measured by."""
        return min(self.extent)
