"""Every kind of image Pillow can hold becomes upright RGB; everything else is refused in one sentence."""

import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id, list_images, open_image

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)
RED, WHITE = (255, 0, 0), (255, 255, 255)


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Red, green and blue blobs, no two corners alike."""
    image = Image.new("RGB", (width, height), (20, 40, 60))
    draw = ImageDraw.Draw(image)
    draw.ellipse((1, 1, width // 2, height // 2), fill=(220, 30, 30))
    draw.rectangle((width // 2, height // 2, width - 2, height - 2), fill=(30, 200, 60))
    draw.line((0, height - 1, width, 0), fill=(40, 60, 230), width=2)
    return image


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def furthest(a: Image.Image, b: Image.Image) -> int:
    return max(high for _, high in ImageChops.difference(a, b).getextrema())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_colour_modes_keep_their_colours(mode):
    image = picture()
    source = image.convert("RGBA").convert(mode) if mode == "RGBa" else image.convert(mode)
    assert furthest(open_image(source), image) <= 6  # YCbCr and HSV round


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B"])
def test_grey_modes_keep_their_levels(mode):
    grey = Image.fromarray(RAMP)
    wanted = RAMP
    if mode == "1":
        source, wanted = grey.convert("1", dither=Image.Dither.NONE), np.where(RAMP >= 128, 255, 0)
    elif mode.startswith("I;16"):
        stored = RAMP.astype(np.uint16 if mode != "I;16B" else ">u2") * 257
        source = Image.frombytes(mode, (32, 8), stored.tobytes())
    elif mode == "La":
        source = grey.convert("LA").convert("La")
    else:
        source = grey.convert(mode)
    assert source.mode == mode
    assert (pixels(open_image(source)) == wanted[:, :, None]).all()


def test_lab_keeps_its_colours():
    lab = Image.merge("LAB", [Image.new("L", (4, 3), v) for v in (136, 208, 195)])  # CIE Lab 53, 80, 67: red
    assert furthest(open_image(lab), Image.new("RGB", (4, 3), RED)) < 12


def test_palettes():
    image = picture().quantize(200)
    assert (pixels(open_image(image)) == np.asarray(image.convert("RGB"))).all()
    assert open_image(picture().convert("PA")).size == (40, 24)


@pytest.mark.parametrize(
    "source",
    [
        Image.new("RGBA", (3, 2), (9, 9, 9, 0)),
        Image.new("LA", (3, 2), (9, 0)),
        encoded(Image.new("P", (3, 2), 0), "PNG", transparency=0),
        encoded(Image.new("P", (3, 2), 0), "PNG", transparency=bytes([0, 255, 255])),  # Pillow warns of this form
        encoded(Image.new("P", (3, 2), 0), "GIF", transparency=0),
        encoded(Image.new("RGB", (3, 2), RED), "PNG", transparency=RED),
        encoded(Image.new("L", (3, 2), 7), "PNG", transparency=7),
        np.zeros((2, 3, 4), np.uint8),
    ],
    ids=["RGBA", "LA", "P", "P with alphas", "GIF", "RGB with a colour key", "L with a level key", "array"],
)
def test_transparency_is_white(source):
    assert (pixels(open_image(source)) == 255).all()


def test_half_transparent_red_is_pink():
    assert open_image(Image.new("RGBA", (1, 1), (*RED, 128))).getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(orientation, file_format):
    upright = picture(48, 32)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that a camera would have undone
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if file_format == "JPEG" else {}
    options |= {"lossless": True} if file_format == "WEBP" else {}
    file = encoded(stored, file_format, exif=exif, **options)
    opened = open_image(file)
    assert opened.size == (48, 32)
    assert furthest(opened, upright) <= 8 * (file_format == "JPEG")
    assert open_image(opened) is opened  # nothing is left that would turn it again
    assert furthest(open_image(Image.open(io.BytesIO(file))), opened) == 0


def test_orientation_and_transparency_together():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGBA", (3, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (*RED, 255))
    opened = open_image(encoded(image, "PNG", exif=exif))
    assert opened.size == (2, 3)
    assert (opened.getpixel((1, 0)), opened.getpixel((0, 0))) == (RED, WHITE)


def test_damaged_metadata_is_no_reason_to_refuse():
    file = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert open_image(file).size == (40, 24)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_files_use_their_full_range(file_format):
    levels = np.array([[0, 257, 32896, 65535]], np.uint16)
    opened = open_image(encoded(Image.fromarray(levels), file_format))
    assert pixels(opened)[0, :, 0].tolist() == [0, 1, 128, 255]
    dark = open_image(encoded(Image.fromarray(levels // 257), file_format))
    assert pixels(dark).max() == 1  # dark it was, dark it stays


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (np.float32([[0, 12, 254.6]]), [0, 12, 255]),
        (np.float32([[-1, 0, 1]]), [0, 128, 255]),
        (np.float32([[np.nan, 300, 1300, np.inf]]), [0, 0, 255, 255]),
        (np.float32([[np.nan, np.nan]]), [0, 0]),
        (np.int32([[3, 200]]), [3, 200]),
        (np.int32([[-50, 0, 50]]), [0, 128, 255]),
        (np.int32([[70000, 70000]]), [0, 0]),
    ],
)
def test_32_bit_grey_files(values, wanted):
    opened = open_image(encoded(Image.fromarray(values), "TIFF"))
    assert pixels(opened)[0, :, 0].tolist() == wanted


@pytest.mark.parametrize(
    "array",
    [
        RAMP,
        RAMP[:, :, None],
        np.stack([RAMP] * 3, 2),
        np.stack([*[RAMP] * 3, np.full_like(RAMP, 255)], 2),
        RAMP.astype(np.uint16) * 257,
        RAMP.astype(np.int64),
        RAMP.astype(np.float64),
        RAMP.astype(np.float32) / 255,
        np.stack([RAMP / 255] * 3, 2),
        np.asfortranarray(np.stack([RAMP] * 3, 2))[:, :, ::-1],
    ],
)
def test_arrays(array):
    before = array.copy()
    assert (pixels(open_image(array)) == RAMP[:, :, None]).all()
    assert (array == before).all()


def test_boolean_array():
    assert (pixels(open_image(RAMP > 100))[:, :, 1] == np.where(RAMP > 100, 255, 0)).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 30), np.uint8), r"shape \(3, 20, 30\) is not \(H, W\), \(H, W, 3\) or \(H, W, 4\)"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (np.zeros((0, 5), np.uint8), "0 x 0 pixels"),
        (np.full((2, 2), 256), "from 256 to 256, not from 0 to 255"),
        (np.full((2, 2), -0.5), "from -0.5 to -0.5, not from 0 to 1 or 255"),
        (np.full((2, 2), np.nan), "from nan to nan"),
        (np.full((2, 2), 1j), "array of complex128"),
        (np.full((2, 2), "a"), "array of <U1"),
    ],
)
def test_arrays_that_are_no_image(array, message):
    with pytest.raises(OpenFlorenceError, match=f"the image cannot be read as an image: .*{message}"):
        open_image(array)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3000, 2)])
def test_thin_and_tiny(size):
    assert open_image(encoded(Image.new("L", size), "PNG")).size == size


def test_every_way_to_give_an_image(tmp_path):
    path = tmp_path / "ein Bild.png"
    picture().save(path)
    wanted = picture()
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), file, io.BytesIO(path.read_bytes()), Image.open(path)):
            assert furthest(open_image(source), wanted) == 0
    assert open_image(wanted) is wanted
    path.unlink()  # nothing holds it open


def test_first_frame_of_several():
    frames = [Image.new("RGB", (5, 4), colour) for colour in (RED, WHITE)]
    for file_format in ("GIF", "TIFF", "WEBP", "PNG"):
        file = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert furthest(open_image(file), frames[0]) <= 2


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"\0\0\0\rIHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + body + b"\0\0\0\0IEND\xaeB`\x82"


JPEG, PNG = encoded(picture(200, 150), "JPEG"), encoded(picture(), "PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_header(60000, 60000), "would unpack to more than 178,956,970 pixels, so it is refused"),
        (b"", "is not an image"),
        (b"hello, this is text", "is not an image"),
        (JPEG[: len(JPEG) // 2], "cannot be read as an image: image file is truncated"),
        (PNG[:60], "cannot be read as an image"),
        (PNG[:60] + b"\0" * 60 + PNG[120:], "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is not an image"),
    ],
    ids=["bomb", "empty", "text", "truncated jpeg", "truncated png", "damaged png", "a program that draws"],
)
def test_bad_files_are_refused_in_a_sentence(content, message, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (str(path), str(path)), (content, "the image")):
        with pytest.raises(OpenFlorenceError, match=message) as refusal:
            open_image(source)
        assert str(refusal.value).startswith(name)
        assert "\n" not in str(refusal.value)


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(OpenFlorenceError, match=r"there is no file .*absent\.png"):
        open_image(tmp_path / "absent.png")
    with pytest.raises(OpenFlorenceError, match=r"is a folder, not an image"):
        open_image(tmp_path)
    with pytest.raises(OpenFlorenceError, match="cannot be read"):
        open_image("a\0b.png")
    with pytest.raises(OpenFlorenceError, match="the image cannot be read"):
        open_image(None)


def test_a_pillow_image_whose_file_is_damaged(tmp_path):
    path = tmp_path / "half.jpg"
    path.write_bytes(JPEG[: len(JPEG) // 2])
    with Image.open(path) as image, pytest.raises(OpenFlorenceError, match=r"half\.jpg cannot be read"):
        open_image(image)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "JPEG2000", "ICO"])
def test_damaged_files_raise_nothing_else(file_format):
    whole = encoded(picture(), file_format)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 4))
    def damaged(changes: list[tuple[int, int]], cut: int) -> None:
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        with contextlib.suppress(OpenFlorenceError):
            assert open_image(bytes(content[: len(content) >> cut])).mode == "RGB"

    damaged()


def test_large_images_pass_without_pillows_warning(monkeypatch):
    """Between the limit and twice the limit Pillow warns; threads that read at once leave the filters as they were."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        threads = [threading.Thread(target=lambda: [open_image(PNG) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == filters
    assert seen == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(OpenFlorenceError, match="more than 800 pixels"):
        open_image(PNG)


def test_image_id_is_that_of_the_pixels(tmp_path):
    image = picture()
    first = image_id(image)
    assert len(first) == 32
    assert int(first, 16) >= 0
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    assert image_id(tmp_path / "a.png") == image_id(tmp_path / "b.bmp") == first
    assert image_id(np.asarray(image)) == image_id(image.convert("RGBA")) == first
    assert image_id(Image.new("RGB", (2, 8))) != image_id(Image.new("RGB", (8, 2)))
    changed = image.copy()
    changed.putpixel((0, 0), (21, 40, 60))
    assert image_id(changed) != first


def test_list_images(tmp_path):
    names = ["img10.png", "img2.JPG", "Img1.jpeg", "b/1.webp", "b/deep/x.tif", "a 3/2.bmp", "a 12/2.bmp", "IMG2.jpg"]
    others = ["notes.txt", "film.mpg", "page.pdf", ".hidden.png", "._img2.jpg", ".git/x.png", "noext", "vector.eps"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    wanted = ["a 3/2.bmp", "a 12/2.bmp", "b/1.webp", "b/deep/x.tif", "Img1.jpeg", "IMG2.jpg", "img2.JPG", "img10.png"]
    assert found == wanted
    assert list_images(str(tmp_path / "img10.png")) == [tmp_path / "img10.png"]


def test_list_images_says_when_there_are_none(tmp_path):
    with pytest.raises(OpenFlorenceError, match=r"there is no image in "):
        list_images(tmp_path)
    with pytest.raises(OpenFlorenceError, match=r"there is no folder .*absent"):
        list_images(tmp_path / "absent")


def test_list_images_ends_where_links_make_a_ring(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "1.png").touch()
    os.symlink(tmp_path, tmp_path / "inner" / "ring")
    (tmp_path / "linked.png").symlink_to(tmp_path / "inner" / "1.png")
    assert [path.name for path in list_images(tmp_path)] == ["1.png", "linked.png"]


def test_real_photos(data_folder: Path):
    photos = list_images(data_folder / "photos_skimage")
    assert len(photos) >= 10
    for path in photos:
        image = open_image(path)
        assert image.mode == "RGB"
        assert min(image.size) > 1
