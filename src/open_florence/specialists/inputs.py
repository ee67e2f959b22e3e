"""What specialists find in a sample: its pixels, and the boxes that others gave it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from open_florence.images import open_image
from open_florence.schema import Annotation, Region, Sample

Pixels = NDArray[np.uint8]
"""(H, W, 3), red, green and blue."""


def pixels_of(sample: Sample) -> Pixels:
    """The image, upright. Raises OpenFlorenceError for a file that is none."""
    return np.asarray(open_image(sample.path))


def boxes_of(annotations: Iterable[Annotation], task: str = "<OD>") -> list[Region]:
    """The boxes that annotations of a task hold, each place once, in their order."""
    found: dict[object, Region] = {}
    for annotation in annotations:
        if annotation.task == task:
            for region in annotation.regions:
                if region.kind == "box":
                    found.setdefault(region.parts, region)
    return list(found.values())
