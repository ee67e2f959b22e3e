"""OpenCV for this folder: one place that says what to install when it is missing."""

from open_florence.errors import OpenFlorenceError

try:
    import cv2
except ImportError as error:
    raise OpenFlorenceError("scenes are drawn with OpenCV: pip install 'open-florence[scenes]'") from error

__all__ = ["cv2"]
