"""Annotations as supervision's Detections and back."""

from dataclasses import replace

import numpy as np
import pytest
import supervision as sv

from open_florence.data.supervision import from_detections, to_detections
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import mask_iou, rasterize
from open_florence.schema import Annotation, Region

SIZE = (100.0, 80.0)
CAT = Region.box(10.5, 20, 30, 40, label="cat", score=0.5)
DOG = replace(Region.box(0, 0, 100, 80, label="dog"), label_score=0.25)
QUAD = Region("quad", (((10.0, 10.0), (30.0, 12.0), (29.0, 22.0), (9.0, 20.0)),), "STOP")
RING = Region("polygon", (((20.0, 20.0), (60.0, 20.0), (60.0, 70.0)), ((5.0, 5.0), (9.0, 5.0), (9.0, 9.0))), "cat")


def test_boxes_keep_place_name_and_score() -> None:
    found = to_detections(Annotation("<OD>", regions=(CAT, DOG, replace(CAT, score=None))))
    assert found.xyxy.tolist() == [[10.5, 20, 30, 40], [0, 0, 100, 80], [10.5, 20, 30, 40]]
    assert found.data["class_name"].tolist() == ["cat", "dog", "cat"]
    assert found.class_id.tolist() == [0, 1, 0]
    assert found.confidence.tolist() == [0.5, 0.25, 1.0]
    assert found.mask is None


def test_classes_number_the_labels() -> None:
    annotation = Annotation("<OD>", regions=(CAT,))
    assert to_detections(annotation, ["dog", "cat"]).class_id.tolist() == [1]
    with pytest.raises(OpenFlorenceError, match="'cat' is not among the classes dog, bird"):
        to_detections(annotation, ["dog", "bird"])


def test_detections_without_scores_have_no_confidence() -> None:
    assert to_detections(Annotation("<OD>", regions=(QUAD,))).confidence is None


@pytest.mark.parametrize("regions", [(), (CAT, replace(CAT, label="dog", score=0.125)), (QUAD, QUAD)])
def test_round_trip(regions: tuple[Region, ...]) -> None:
    annotation = Annotation("<OD>", regions=regions, source="human")
    assert from_detections(to_detections(annotation), SIZE, source="human") == annotation


def test_polygons_are_masks_and_polygons_again() -> None:
    found = to_detections(Annotation("<OD>", regions=(RING, CAT)), size=SIZE)
    assert found.mask.shape == (2, 80, 100)
    assert found.mask[1].sum() == 20 * 20  # the pixels whose middle is in the box
    back = from_detections(found, SIZE)
    assert [(region.kind, region.label, len(region.parts)) for region in back.regions] == [
        ("polygon", "cat", 2),
        ("polygon", "cat", 1),
    ]
    truth = rasterize([np.array(part) for part in RING.parts], (100, 80))
    assert mask_iou(rasterize([np.array(part) for part in back.regions[0].parts], (100, 80)), truth) > 0.95
    with pytest.raises(OpenFlorenceError, match="size is needed"):
        to_detections(Annotation("<OD>", regions=(RING,)))


def test_detections_of_another_detector() -> None:
    boxes = np.array([[-5.0, 10.0, 50.0, 90.0]])
    found = sv.Detections(xyxy=boxes, class_id=np.array([1]), confidence=np.array([0.75]))
    expected = Region.box(0, 10, 50, 80, label="cat", score=0.75)
    assert from_detections(found, SIZE, ["dog", "cat"], source="yolo").regions == (expected,)
    with pytest.raises(OpenFlorenceError, match="name no classes"):
        from_detections(found, SIZE)
    with pytest.raises(OpenFlorenceError, match="not one of the 1 given"):
        from_detections(found, SIZE, ["dog"])


def test_an_empty_mask_is_no_region() -> None:
    masks = np.zeros((1, 80, 100), dtype=bool)
    found = sv.Detections(xyxy=np.array([[0.0, 0.0, 1.0, 1.0]]), mask=masks, class_id=np.array([0]))
    assert from_detections(found, SIZE, ["cat"]).regions == ()


def test_what_supervision_draws_and_filters() -> None:
    found = to_detections(Annotation("<OD>", regions=(RING, CAT)), size=SIZE)
    assert len(found[found.data["class_name"] == "cat"]) == 2
    scene = sv.MaskAnnotator().annotate(np.zeros((80, 100, 3), dtype=np.uint8), found)
    assert scene.any()
