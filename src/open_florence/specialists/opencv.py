"""OpenCV for specialists: one place that says what to install when it, or a part of it, is missing."""

from __future__ import annotations

from typing import Any

from open_florence.errors import OpenFlorenceError
from open_florence.specialists.inputs import Pixels


def load_opencv(specialist: str, part: str = "") -> Any:
    """The module cv2; untyped, as its stubs call every image an array of any number.

    Raises OpenFlorenceError when it is not installed, or was built without `part` (as "ximgproc").
    """
    try:
        import cv2
    except ImportError as error:
        raise OpenFlorenceError(
            f"the specialist {specialist} needs OpenCV: pip install 'open-florence[engine]'"
        ) from error
    if part and not hasattr(cv2, part):
        raise OpenFlorenceError(
            f"the specialist {specialist} needs the part {part} of OpenCV: "
            "pip install opencv-contrib-python-headless, after uninstalling the OpenCV that is there"
        )
    return cv2


def resized(cv2: Any, image: Pixels, factor: float) -> Pixels:
    """The image `factor` times as large, at least a pixel a side."""
    if factor == 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    scaled: Pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return scaled
