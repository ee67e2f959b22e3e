"""What every reader does for one record: finds its image, settles its size, and cuts its boxes at the image's edge."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from open_florence.images import image_id, open_image
from open_florence.schema import Region, Size


def find_image(folders: Iterable[Path], *names: str) -> Path | None:
    """The first file of one of these names in one of these folders; None where there is none."""
    for folder in folders:
        for name in names:
            if name and (folder / name).is_file():
                return Path(os.path.normpath(folder / name))
    return None


def identify(image_path: Path | None, size: Size | None, name: str) -> tuple[str, Size]:
    """The id and the size (width, height) of a sample: of its image, or else its record's own name and size.

    Raises ValueError when the image has another size than the record says (the frame of its boxes is then unknown) or
    nothing says a size; OpenFlorenceError when the image cannot be read.
    """
    if image_path is None:
        if size is None:
            raise ValueError("it says no image size, and its image is not there")
        return name, size
    image = open_image(image_path)
    true_size = (float(image.width), float(image.height))
    if size is not None and size != true_size:
        raise ValueError(f"it says the image has {_extent(size)} pixels, but {image_path} has {_extent(true_size)}")
    return image_id(image), true_size


def box_within(size: Size, corners: tuple[float, float, float, float], label: str = "", name: str = "box") -> Region:
    """The part of a box (x1, y1, x2, y2), in pixels, that lies in an image of `size`.

    Raises ValueError, calling the box `name`, when there is none.
    """
    x1, y1, x2, y2 = (min(max(value, 0.0), size[i % 2]) for i, value in enumerate(corners))
    if not (x1 < x2 and y1 < y2):
        shown = ", ".join(f"{value:g}" for value in corners)
        raise ValueError(f"{name}, ({shown}), has no area in the image")
    return Region.box(x1, y1, x2, y2, label=label)


def _extent(size: Size) -> str:
    return " x ".join(f"{side:g}" for side in size)
