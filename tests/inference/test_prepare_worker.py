"""One image opened and resized: a JPEG decoded smaller stays near the one decoded whole; failures are sentences."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from open_florence.inference import prepare_worker
from open_florence.inference.prepare_worker import DRAFT_ROOM, Outcome, Treatment, open_and_resize

SIDE = 32
LEAST = 2 * 61  # the smallest side that is decoded at half its size for SIDE


def encoded(image: Image.Image, file_format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft blobs of every colour."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def photograph(side: int) -> Image.Image:
    """Soft shapes with the grain of a sensor."""
    grain = np.random.default_rng(1).normal(0, 6, (side, side, 1))
    pixels = np.asarray(noise(64, 64).resize((side, side), Image.Resampling.BICUBIC)) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def drawn_text(side: int) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for y in range(0, side, 20):
        draw.text((3, y), "The quick brown fox jumps over 0123456789 lazy dogs. " * 6, fill="black")
    draw.ellipse((side // 4, side // 4, side // 2, side // 2), fill=(200, 10, 20))
    return image


@pytest.mark.parametrize(
    ("make", "bounds"),
    [(photograph, (0.8, 7, 18)), (drawn_text, (3, 25, 32)), (lambda side: noise(side, side), (3, 25, 32))],
    ids=["photograph", "text", "noise"],
)
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpegs_decoded_smaller_differ_little(make, bounds, factor, subsampling):
    side = 256
    file = encoded(make(factor * 487), quality=90, subsampling=subsampling)  # 487 = ceil(1.9 x 256)
    smaller, whole = (open_and_resize(file, Treatment(side, False, draft)) for draft in (True, False))
    assert smaller.size == whole.size == (factor * 487, factor * 487)
    change = np.abs(smaller.levels.astype(int) - whole.levels)
    assert 0 < change.mean() < bounds[0]
    assert np.percentile(change, 99.9) <= bounds[1]
    assert change.max() <= bounds[2]


def same(one: Outcome, other: Outcome) -> bool:
    return one[1:] == other[1:] and np.array_equal(one.levels, other.levels)


def test_what_is_not_decoded_smaller():
    large = noise(LEAST, LEAST)
    just = encoded(large)
    whole, smaller = Treatment(SIDE, False, False), Treatment(SIDE, False, True)
    assert LEAST // 2 - 1 < DRAFT_ROOM * SIDE <= LEAST // 2
    assert not same(open_and_resize(just, smaller), open_and_resize(just, whole))
    narrow = encoded(large.crop((0, 0, LEAST - 1, LEAST)))
    for source in (narrow, encoded(large, "PNG"), large, np.asarray(large)):
        assert same(open_and_resize(source, smaller), open_and_resize(source, whole))
    with_id = Treatment(SIDE, True, False)
    assert same(open_and_resize(just, with_id._replace(draft=True)), open_and_resize(just, with_id))


def test_the_reason_of_an_unexpected_exception(monkeypatch):
    def fail(source, least):
        raise MemoryError("too large")

    monkeypatch.setattr(prepare_worker, "open_reduced", fail)
    outcome = open_and_resize(Path("a.jpg"), Treatment(SIDE, False, False))
    assert outcome.reason == "a.jpg cannot be opened: MemoryError: too large"


def test_processes_import_no_torch():
    said = "import sys, open_florence.inference.prepare_worker; print('numpy' in sys.modules, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert run.stdout == "True False\n"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_original(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = encoded(noise(301, 200), exif=exif)
    smaller, whole = (open_and_resize(file, Treatment(SIDE, False, draft)) for draft in (True, False))
    assert smaller.size == whole.size == ((301, 200) if orientation < 5 else (200, 301))
    assert 0 < np.abs(smaller.levels.astype(int) - whole.levels).max() <= 32
