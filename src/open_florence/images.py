"""Any image a person may have -> an RGB image the model can see.

Pillow opens it; what Pillow leaves to its caller is done here: the EXIF rotation, transparency over white, 16-bit and
float values scaled to 8 bits, and one sentence for every file that is not an image.
"""

from __future__ import annotations

import hashlib
from typing import Any

from PIL import Image, ImageOps


def open_image(source: Any) -> Image.Image:
    """The image as RGB."""
    image = source if isinstance(source, Image.Image) else Image.open(source)
    return ImageOps.exif_transpose(image).convert("RGB")


def image_id(image: Image.Image) -> str:
    """A content hash."""
    image = image.convert("RGB")
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()[:32]
