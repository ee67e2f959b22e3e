"""Any image a person may have -> the RGB image that the model sees, and the files of a folder that hold images.

Pillow opens them; what it leaves to its caller is done here: the rotation a camera noted in EXIF, transparency over
white, 16-bit and float values brought to 8 bits, and one sentence for whatever is not an image.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from open_florence.errors import OpenFlorenceError

ImageLike = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any]
"""What `open_image` takes: a path, the bytes of a file, an open file, a Pillow image, an array."""

_NOT_PICTURES = {
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
}  # Pillow knows their names but needs other programs to draw

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what sets the image upright."""


def open_image(source: ImageLike) -> Image.Image:
    """The image as 8-bit RGB, upright, transparency over white; of several frames the first.

    A Pillow image that is already so is returned itself. Arrays are (H, W), (H, W, 3) or (H, W, 4), their values 0 to
    255, floats 0 to 1 too, uint16 0 to 65535. 16-bit grey is scaled by its full range. 32-bit grey, which has none, is
    taken as it is where it lies in 0 to 255, floats in 0 to 1 too, and else stretched from its lowest to its highest.

    Raises OpenFlorenceError, naming the file, when there is none, it is no image, it is damaged, or it would unpack to
    more pixels than Pillow's `Image.MAX_IMAGE_PIXELS` allows.
    """
    return open_reduced(source, 0)[0]


def open_reduced(source: ImageLike, least: int) -> tuple[Image.Image, tuple[int, int]]:
    """What `open_image` gives, and its (width, height) in pixels; a JPEG file may come smaller than that size says.

    Its decoder then makes 1/2, 1/4 or 1/8 of it, the smallest whose two sides are `least` pixels or more: a share of
    the time, and nearly the pixels of resizing it whole. `least` 0 leaves every image whole. Raises OpenFlorenceError
    as `open_image` does.
    """
    name = name_of(source)
    try:
        with _silence:
            if isinstance(source, Image.Image):
                rgb = _to_rgb(source)
                return rgb, rgb.size
            if isinstance(source, np.ndarray):
                rgb = _to_rgb(_from_array(source))
                return rgb, rgb.size
            if isinstance(source, (str, os.PathLike)):
                with open(source, "rb") as file:
                    return _from_file(file, least)
            return _from_file(io.BytesIO(source) if isinstance(source, bytes) else source, least)
    except FileNotFoundError:
        raise OpenFlorenceError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise OpenFlorenceError(f"{name} is a folder, not an image") from None
    except UnidentifiedImageError:
        raise OpenFlorenceError(f"{name} is not an image") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise OpenFlorenceError(f"{name} would unpack to more than {limit:,} pixels, so it is refused") from None
    except Exception as error:  # a damaged file makes Pillow raise anything: OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OpenFlorenceError(f"{name} cannot be read as an image: {reason}") from error


def image_id(image: ImageLike) -> str:
    """32 hexadecimal digits of the size and the RGB pixels alone: a renamed or converted file is the same sample."""
    rgb = open_image(image)
    digest = hashlib.blake2b(f"{rgb.width}x{rgb.height}:".encode(), digest_size=16)
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def list_images(path: str | os.PathLike[str]) -> list[Path]:
    """The images in a folder and the folders inside it, known by their suffix; a file is its own list.

    In the order people expect (img2 before img10), the same on every machine. Names that begin with a dot, and folders
    that are links, are left out. Raises OpenFlorenceError when there is no such folder or no image in it.
    """
    root = Path(path)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise OpenFlorenceError(f"there is no folder {root}")
    suffixes = {end for end, format_ in Image.registered_extensions().items() if format_ in _formats()}
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
        ]
    if not found:
        raise OpenFlorenceError(f"there is no image in {root}")
    return sorted(found, key=lambda file: _natural(file.relative_to(root)))


class _Silence:
    """Keeps Pillow's warnings (large image, odd metadata) from people, who can do nothing about them.

    Filters belong to the whole process, so threads that read images at the same time share one change of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_silence = _Silence()


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name not in _NOT_PICTURES]


def name_of(source: ImageLike) -> str:
    """What an error calls it: its path, "the image" where it has none."""
    name = (
        source if isinstance(source, (str, os.PathLike)) else getattr(source, "filename", getattr(source, "name", ""))
    )
    return str(name) if isinstance(name, (str, os.PathLike)) and str(name) else "the image"


def _natural(path: Path) -> tuple[list[list[tuple[int, str] | str]], str]:
    """A sorting key that reads digits as numbers and ignores case, except between names that differ in case alone."""

    def key(part: str) -> list[tuple[int, str] | str]:
        pieces = re.split(r"([0-9]+)", part.casefold())  # text, digits, text, ...: like stands beside like
        return [(int(piece), piece) if index % 2 else piece for index, piece in enumerate(pieces)]

    return [key(part) for part in path.parts], str(path)


def _from_file(file: IO[bytes], least: int) -> tuple[Image.Image, tuple[int, int]]:
    with Image.open(file, formats=_formats()) as image:
        whole = image.size
        if least and image.format in ("JPEG", "MPO"):
            image.draft(image.mode, (least, least))
        reduced = image.size != whole
        if reduced and _orientation(image) >= 5:  # it lies on its side
            whole = whole[::-1]
        rgb = _to_rgb(image)
        if rgb is image:
            rgb = image.copy()  # lets go of the file and its metadata
            rgb.info = {}
        return rgb, whole if reduced else rgb.size


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.width or not image.height:
        raise ValueError(f"it is {image.width} x {image.height} pixels")
    image.load()  # before asking for the orientation: some formats apply it, and then forget it, here
    file_format, turn = image.format, _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    elif image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        rgb = Image.fromarray(_eight_bits(np.asarray(image), file_format)).convert("RGB")
    elif image.has_transparency_data:
        transparent = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", transparent.size, "white")
        rgb = Image.alpha_composite(white, transparent).convert("RGB")
    else:
        rgb = image.convert("RGB")
    rgb.info = {}  # the orientation is dealt with and must not be met again
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata raises anything, and is no reason to refuse the pixels
        return 1


def _eight_bits(values: NDArray[Any], file_format: str | None) -> NDArray[np.uint8]:
    """Grey values (H, W) of 16 or 32 bits -> 0 to 255, as `open_image` says."""
    if values.dtype.itemsize == 2:
        table = _scale(np.arange(65536), 0, 65535)
        return table.take(values)
    if values.dtype.kind == "i" and file_format in ("PNG", "PPM"):  # older Pillow widens their 16 bits to 32
        return _scale(values, 0, 65535)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    for top in (1, 255) if values.dtype.kind == "f" else (255,):
        if low >= 0 and high <= top:
            return _scale(values, 0, top)
    return _scale(values, low, high)


def _scale(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float32) - low) * (255 / ((high - low) or 1))
    levels: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)).astype(np.uint8)
    return levels


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"an array of shape {array.shape} is not (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0 or array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array)) if array.size else Image.new("RGB", (0, 0))
    if array.dtype == np.bool_:
        return Image.fromarray(array.astype(np.uint8) * np.uint8(255))
    if array.dtype.kind not in "iuf":
        raise ValueError(f"an array of {array.dtype} holds no pixels")
    low, high = float(array.min()), float(array.max())
    top = 65535 if array.dtype == np.uint16 else 1 if array.dtype.kind == "f" and high <= 1 else 255
    if not (low >= 0 and high <= top):
        raise ValueError(
            f"its values go from {low:g} to {high:g}, not from 0 to {'1 or ' * (array.dtype.kind == 'f')}255"
        )
    return Image.fromarray(_scale(array, 0, top))
