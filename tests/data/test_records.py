"""What all readers share: boxes cut at the edge, sizes settled, images found."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from open_florence.data.records import box_within, find_image, identify
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id

NUMBER = st.floats(-50, 150)


@given(NUMBER, NUMBER, NUMBER, NUMBER)
def test_a_box_is_inside_or_nowhere(x1: float, y1: float, x2: float, y2: float) -> None:
    overlaps = min(x2, 80) > max(x1, 0) and min(y2, 60) > max(y1, 0)
    if not overlaps:
        with pytest.raises(ValueError, match=r"its box, .* has no area in the image"):
            box_within((80.0, 60.0), (x1, y1, x2, y2), name="its box")
        return
    (low, high), *_ = box_within((80.0, 60.0), (x1, y1, x2, y2)).parts
    assert low == (max(x1, 0.0), max(y1, 0.0))
    assert high == (min(x2, 80.0), min(y2, 60.0))


def test_the_size_is_the_images_where_it_is_there(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 6), "red").save(picture)
    assert identify(picture, None, "a") == (image_id(picture), (8.0, 6.0))
    assert identify(None, (9.0, 6.0), "a") == ("a", (9.0, 6.0))
    with pytest.raises(ValueError, match=r"it says the image has 9 x 6 pixels, but .*a\.png has 8 x 6"):
        identify(picture, (9.0, 6.0), "a")
    with pytest.raises(ValueError, match="it says no image size, and its image is not there"):
        identify(None, None, "a")
    picture.write_bytes(b"no picture")
    with pytest.raises(OpenFlorenceError, match=r"a\.png is not an image"):
        identify(picture, None, "a")


def test_the_first_folder_that_has_one_of_the_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.jpg").write_bytes(b"")
    folders = (tmp_path, tmp_path / "images" / ".." / "images")
    assert find_image(folders, "a.jpg", "", "b.jpg") == tmp_path / "images" / "b.jpg"
    assert find_image(folders, "a.jpg", "images") is None  # a folder is no image
