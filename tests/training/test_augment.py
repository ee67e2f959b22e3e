import random

import numpy as np
from PIL import Image

from open_florence.geometry import region_box
from open_florence.schema import Annotation, Region
from open_florence.training.augment import Augmentation, left_to_right


def picture(x1: int, y1: int, x2: int, y2: int) -> tuple[Image.Image, Annotation]:
    """A white rectangle on black, 120 x 80 pixels, and its box."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    return Image.fromarray(pixels), Annotation("<OD>", regions=(Region.box(x1, y1, x2, y2, label="thing"),))


def test_pixels_and_boxes_move_together() -> None:
    augment = Augmentation(flip_vertical=True, transpose=True, crop=(0.7, 1.0), brightness=0, contrast=0, colour=0)
    image, annotation = picture(40, 30, 80, 50)
    for seed in range(60):
        view, (moved,) = augment(image, [annotation], (96, 96), random.Random(seed))
        assert view.size == (96, 96)
        rows, columns = np.nonzero(np.asarray(view)[..., 0] > 127)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(region_box(moved.regions[0].parts)) - seen).max() < 1.1
        assert moved.regions[0].label == "thing"


def test_a_region_that_the_crop_leaves_out_is_dropped() -> None:
    augment = Augmentation(flip_horizontal=False, crop=(0.3, 0.3), min_visible=0.5)
    image, annotation = picture(50, 30, 60, 40)
    kept = [len(augment(image, [annotation], (64, 64), random.Random(seed))[1][0].regions) for seed in range(50)]
    assert 0 < sum(kept) < 50
    asking = Annotation("<REGION_TO_CATEGORY>", text="thing", query=annotation.regions[0])
    asked = [len(augment(image, [asking], (64, 64), random.Random(seed))[1]) for seed in range(50)]
    assert asked == kept, "a question about a region that is gone is dropped with it"


def test_what_words_speak_of_is_neither_cropped_nor_mirrored() -> None:
    augment = Augmentation(flip_vertical=True, transpose=True, crop=(0.5, 0.5), brightness=0.3)
    image, annotation = picture(40, 30, 80, 50)
    for seed in range(10):
        _, (moved,) = augment(image, [annotation], (120, 80), random.Random(seed), "light")
        assert moved.regions == annotation.regions


def test_printed_words_are_cropped_but_never_mirrored() -> None:
    augment = Augmentation(crop=(0.9, 0.9), min_visible=0.1)
    image, _ = picture(40, 30, 80, 50)
    quad = Region("quad", (((40, 30), (80, 30), (80, 50), (40, 50)),), "WORD")
    for seed in range(20):
        _, (moved,) = augment(
            image, [Annotation("<OCR_WITH_REGION>", regions=(quad,))], (120, 80), random.Random(seed), "crop"
        )
        ((a, b, _, d),) = moved.regions[0].parts
        assert a[0] < b[0]
        assert a[1] < d[1]


def test_regions_are_ordered_from_left_to_right() -> None:
    regions = tuple(Region.box(x, y, x + 5, y + 5) for x, y in [(50, 0), (10, 40), (10, 0)])
    assert [r.parts[0][0] for r in left_to_right(regions)] == [(10, 0), (10, 40), (50, 0)]
