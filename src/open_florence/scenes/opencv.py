"""OpenCV for this folder: one place that says what to install when it is missing."""

from typing import Any

from open_florence.errors import OpenFlorenceError

try:
    import cv2 as _cv2
except ImportError as error:
    raise OpenFlorenceError("scenes are drawn with OpenCV: pip install 'open-florence[scenes]'") from error

cv2: Any = _cv2
"""Untyped on purpose: OpenCV's stubs call every image an array of any number."""
