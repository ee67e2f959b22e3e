"""Masks: runs as pycocotools reads and writes them, outlines that are the mask exactly, polygons that nearly are."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from open_florence.geometry import mask_iou, polygon_area, rasterize
from open_florence.masks import decode_rle, join, joined, outlines, polygons, simplify

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


def encoded(mask: np.ndarray) -> dict:
    """A mask as pycocotools compresses it."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@given(MASKS)
def test_compressed_runs(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rle(encoded(mask)), mask)


def test_long_runs_and_negative_differences() -> None:
    mask = np.zeros((900, 700), dtype=bool)
    mask[3:, 5:400], mask[10:12, 600] = True, True
    np.testing.assert_array_equal(decode_rle(encoded(mask)), mask)


def test_plain_runs_go_down_the_columns() -> None:
    mask = decode_rle({"size": [2, 3], "counts": [1, 2, 3]})
    np.testing.assert_array_equal(mask, [[False, True, False], [True, False, False]])


BAD_RUNS = [
    ({"size": [2, 3], "counts": [1, 2]}, "hold 3 pixels, its size is 3 x 2"),
    ({"size": [2], "counts": [2]}, "not .height, width."),
    ({"size": [2, -3], "counts": [6]}, "not .height, width."),
    ({"size": [2, 3], "counts": [1, -1, 6]}, "no numbers"),
    ({"size": [2, 3], "counts": [1, 2.5, 2.5]}, "no numbers"),
    ({"size": [2, 3]}, "no numbers"),
    ({"counts": [6]}, "not .height, width."),
    ({"size": [2, 3], "counts": " "}, "no numbers|pixels"),
    ({"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, "pixels"),  # a few bytes that would fill the memory
]


@pytest.mark.parametrize(("rle", "said"), BAD_RUNS)
def test_bad_runs(rle: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode_rle(rle)


@given(MASKS)
def test_outlines_are_the_mask(mask: np.ndarray) -> None:
    filled = np.zeros_like(mask)
    for line in outlines(mask):
        filled ^= rasterize([line], (mask.shape[1], mask.shape[0]))
    np.testing.assert_array_equal(filled, mask)


@given(MASKS)
def test_any_mask_has_polygons_inside_it(mask: np.ndarray) -> None:
    found = polygons(mask)
    assert (len(found) > 0) == mask.any()
    for polygon in found:
        assert len(polygon) >= 3
        assert polygon.min() >= 0
        assert (polygon <= (mask.shape[1], mask.shape[0])).all()


def test_holes_stay_open_and_islands_in_them_stay() -> None:
    mask = np.zeros((40, 50), dtype=bool)
    mask[2:38, 3:47], mask[8:30, 10:40], mask[12:20, 15:30], mask[0, 49] = True, False, True, True
    found = polygons(mask)
    assert len(found) == 2  # the frame with its hole, and the island; the speck is left out
    filled = rasterize(found, (50, 40))
    mask[0, 49] = False
    np.testing.assert_array_equal(filled, mask)


def test_stairs_become_a_line() -> None:
    mask = np.tri(60, dtype=bool)
    (polygon,) = polygons(mask)
    assert len(polygon) < 20 < len(outlines(mask)[0])
    assert mask_iou(rasterize([polygon], (60, 60)), mask) > 0.95


@given(arrays(np.float64, st.tuples(st.integers(3, 30), st.just(2)), elements=st.integers(0, 20)), st.floats(0, 5))
def test_simplified_lines_stay_near(line: np.ndarray, tolerance: float) -> None:
    kept = simplify(line, tolerance)
    assert len(kept) >= 3
    assert {tuple(point) for point in kept} <= {tuple(point) for point in line}
    ends = np.roll(kept, -1, axis=0)
    for point in line:
        along = np.clip(((point - kept) * (ends - kept)).sum(1) / np.maximum(((ends - kept) ** 2).sum(1), 1e-12), 0, 1)
        assert np.hypot(*(point - kept - along[:, None] * (ends - kept)).T).min() <= tolerance + 1e-9


def test_parts_joined_to_one_polygon_fill_the_same() -> None:
    squares = [np.array([[x, y], [x + 5, y], [x + 5, y + 6], [x, y + 6]], dtype=float) for x, y in [(1, 1), (9, 3)]]
    assert polygon_area(join(*squares)) == 60
    np.testing.assert_array_equal(rasterize([joined(squares)], (20, 20)), rasterize(squares, (20, 20)))


def test_polygons_of_the_masks_of_coco(data_folder: Path) -> None:
    document = json.loads((data_folder / "coco_subset" / "instances.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    overlaps = []
    for record in document["annotations"][:200]:
        size = sizes[record["image_id"]]
        runs = coco_mask.frPyObjects(record["segmentation"], *size)
        mask = coco_mask.decode(coco_mask.merge(runs) if isinstance(runs, list) else runs).astype(bool)
        np.testing.assert_array_equal(decode_rle(encoded(mask)), mask)
        flat = [polygon.ravel().tolist() for polygon in polygons(mask)]
        again = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *size))).astype(bool)
        overlaps.append(mask_iou(mask, again))
    assert min(overlaps) > 0.95
    assert np.mean(overlaps) > 0.99
