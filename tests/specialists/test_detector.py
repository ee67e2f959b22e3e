from types import SimpleNamespace

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample
from open_florence.specialists.detector import Detector
from open_florence.specialists.grounder import corners as to_corners

NAMES = {0: "cat", 1: "dog"}
BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
SMALL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "id2label": NAMES,
    "label2id": {name: index for index, name in NAMES.items()},
}


@pytest.fixture(scope="module")
def folders(save):
    torch.manual_seed(0)
    detr = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        use_pretrained_backbone=False,
        backbone_config=transformers.ResNetConfig(**BACKBONE, out_features=["stage4"]),
        num_queries=6,
        **SMALL,
    )
    rtdetr = transformers.RTDetrConfig(
        backbone_config=transformers.RTDetrResNetConfig(**BACKBONE, out_features=["stage2", "stage3", "stage4"]),
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        decoder_in_channels=[16, 16, 16],
        hidden_expansion=0.5,
        num_queries=8,
        num_denoising=0,
        **SMALL,
    )
    return {
        "detr": save(
            "detr",
            transformers.DetrForObjectDetection(detr),
            transformers.DetrImageProcessorPil(size={"shortest_edge": 48, "longest_edge": 96}),
        ),
        "rtdetr": save(
            "rtdetr",
            transformers.RTDetrForObjectDetection(rtdetr),
            transformers.RTDetrImageProcessorPil(size={"height": 64, "width": 64}),
        ),
    }


@pytest.mark.parametrize("family", ["detr", "rtdetr"])
def test_boxes_lie_in_the_image_and_do_not_depend_on_the_batch(family, folders, samples, check_batches, check_boxes):
    detector = Detector(folders[family], threshold=0.05)
    for sample, annotations in zip(samples, check_batches(detector), strict=True):
        [annotation] = annotations
        assert annotation.task == "<OD>"
        assert annotation.regions
        assert {region.label for region in annotation.regions} <= set(NAMES.values())
        check_boxes(annotations, sample.size)


@pytest.mark.parametrize("family", ["detr", "rtdetr"])
def test_a_threshold_nothing_reaches_gives_an_empty_answer(family, folders, samples):
    none, some = Detector(folders[family], threshold=1.0), Detector(folders[family], threshold=0.0)
    assert [[a.regions for a in answer] for answer in none.annotate(samples)] == [[()]] * len(samples)
    assert none.annotate([]) == []
    assert none.version != some.version


def planted(detector, boxes, logits):
    """The detector with a network that gives these boxes (Q, 4) and logits (Q, C) for every image."""
    network = detector._model.network
    network.forward = lambda pixel_values, **_: SimpleNamespace(
        logits=logits.repeat(len(pixel_values), 1, 1), pred_boxes=boxes.repeat(len(pixel_values), 1, 1)
    )
    return detector


@pytest.mark.parametrize(
    ("family", "logits"),
    [
        ("detr", [[-9.0, 3.0, 0.0], [-9.0, -9.0, 9.0], [2.0, -9.0, 0.0]]),  # the last column is "no object"
        ("rtdetr", [[-9.0, 3.0], [-9.0, -9.0], [2.0, -9.0]]),
    ],
)
def test_a_box_comes_back_in_the_right_pixels_with_its_label(family, logits, folders, make_sample, corners):
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1], [0.95, 0.25, 0.3, 0.5]])
    detector = planted(Detector(folders[family]), boxes, torch.tensor([logits]))
    wide, tall = (make_sample(size) for size in ((200, 100), (50, 400)))
    for [annotation], (width, height) in zip(detector.annotate([wide, tall]), (wide.size, tall.size), strict=True):
        dog, cat = annotation.regions
        assert (dog.label, cat.label) == ("dog", "cat")
        score = 1 / (1 + torch.tensor(-3.0).exp())
        assert dog.score == pytest.approx(float(score), abs=1e-4)
        assert corners(dog) == pytest.approx([0.4 * width, 0.3 * height, 0.6 * width, 0.7 * height], abs=1e-3)
        assert corners(cat) == pytest.approx([0.8 * width, 0, width, 0.5 * height], abs=1e-3)


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5), st.integers(1, 500), st.integers(1, 500))
def test_corners_and_centres_are_the_same_boxes(boxes, width, height):
    array = torch.tensor(boxes)
    x1, y1, x2, y2 = to_corners(array, (width, height)).unbind(1)
    back = torch.stack([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height], dim=1)
    assert torch.allclose(back, array, atol=1e-5)


def test_an_image_that_is_none_is_named(folders, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(OpenFlorenceError, match=r"broken\.jpg"):
        Detector(folders["detr"]).annotate([Sample("x", str(tmp_path / "broken.jpg"), (1.0, 1.0))])


def test_it_declares_what_it_is(folders):
    detector = Detector(folders["detr"])
    assert (detector.name, detector.tasks, detector.needs) == ("detector", ("<OD>",), ())
    assert detector.version.startswith("detr-")
