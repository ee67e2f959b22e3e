"""Perceptual hashes survive copying; the search for near hashes finds what comparing every pair finds."""

import io
import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from open_florence.data.near_duplicates import SAME_PICTURE, distance, near_duplicates, nearest, perceptual_hash
from open_florence.errors import OpenFlorenceError
from open_florence.images import list_images
from open_florence.scenes import make_scene

HASH = st.integers(0, 2**64 - 1)


@st.composite
def hashes(draw: st.DrawFn) -> list[int]:
    """A few hashes and copies of them with some bits turned."""
    several = draw(st.lists(HASH, max_size=6))
    for original in list(several):
        for bits in draw(st.lists(st.sets(st.integers(0, 63), max_size=8), max_size=3)):
            several.append(original ^ sum(1 << bit for bit in bits))
    return draw(st.permutations(several))


@given(hashes(), st.integers(0, 63))
@example([0, 2**64 - 1, 0, 1], 63)
@example([7, 7, 7], 0)
def test_as_every_pair_compared(several, most):
    pairs = itertools.combinations(range(len(several)), 2)
    assert near_duplicates(several, most) == [(i, j) for i, j in pairs if (several[i] ^ several[j]).bit_count() <= most]


@given(HASH, hashes())
def test_the_nearest(one, several):
    found = nearest(one, several)
    if not several:
        assert found is None
        return
    distances = [distance(one, other) for other in several]
    assert found == (distances.index(min(distances)), min(distances))


def test_large_groups_of_equal_hashes_in_pieces(monkeypatch):
    several = [5] * 60 + [6] * 3 + list(range(1 << 20, 1 << 40, 1 << 33))
    whole = near_duplicates(several, 2)
    monkeypatch.setattr("open_florence.data.near_duplicates.MOST_AT_ONCE", 50)
    assert near_duplicates(several, 2) == whole
    assert len(whole) >= 63 * 62 / 2


def test_memory_does_not_grow_with_the_pairs_compared():
    several = np.random.default_rng(0).integers(0, 2**64, 8000, dtype=np.uint64).tolist()
    tracemalloc.start()
    assert near_duplicates(several, 6) == []
    assert tracemalloc.get_traced_memory()[1] < 120e6  # all 32 million pairs were 256 MB an array
    tracemalloc.stop()


@pytest.mark.parametrize("most", [-1, 64])
def test_distances_there_are_not(most):
    with pytest.raises(OpenFlorenceError, match="between 0 and 63"):
        near_duplicates([1, 2], most)


def copies(image: Image.Image) -> list[Image.Image]:
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=40)
    return [small, image.resize((224, 224)), image.resize((image.width * 2, image.height * 2)), Image.open(file)]


def check(images: list[Image.Image]) -> None:
    originals = [perceptual_hash(image) for image in images]
    assert near_duplicates(originals) == []
    for image, original in zip(images, originals, strict=True):
        assert 0 <= original < 2**64
        assert max(distance(original, perceptual_hash(copy)) for copy in copies(image)) <= SAME_PICTURE


def test_copies_of_scenes():
    check([Image.fromarray(np.asarray(make_scene(seed).image)) for seed in range(12)])


def test_copies_of_photos(data_folder: Path):
    photos = list_images(data_folder / "photos_skimage")[:6]
    check([Image.open(path).convert("RGB").resize((480, 360)) for path in photos])


def test_every_way_to_give_an_image(tmp_path):
    image = Image.fromarray(np.asarray(make_scene(0).image))
    image.save(tmp_path / "a.png")
    assert perceptual_hash(tmp_path / "a.png") == perceptual_hash(np.asarray(image)) == perceptual_hash(image)
    with pytest.raises(OpenFlorenceError, match="there is no file"):
        perceptual_hash(tmp_path / "absent.png")
