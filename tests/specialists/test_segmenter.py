from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from open_florence.geometry import mask_iou, polygon_to_box, rasterize, region_box
from open_florence.schema import Annotation, Region
from open_florence.specialists import segmenter as module
from open_florence.specialists.segmenter import Segmenter

DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}
SIDE = 64


@pytest.fixture(scope="module")
def folders(save):
    torch.manual_seed(0)
    prompts = {"hidden_size": 16, "image_size": SIDE, "mask_input_channels": 4}
    sam = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 8,
            "global_attn_indexes": [0],
            "mlp_dim": 16,
            "num_pos_feats": 8,
            "window_size": 4,
        },
        prompt_encoder_config={**prompts, "patch_size": 8},
        mask_decoder_config=DECODER,
    )
    hiera = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 1, 2],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 4],
        window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[4],
    )
    sam2 = transformers.Sam2Config(
        vision_config=transformers.Sam2VisionConfig(
            backbone_config=hiera,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=16,
        ),
        prompt_encoder_config={**prompts, "patch_size": 16},
        mask_decoder_config=DECODER,
    )
    return {"sam": save("sam", transformers.SamModel(sam)), "sam2": save("sam2", transformers.Sam2Model(sam2))}


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_polygons_lie_in_the_image_and_do_not_depend_on_the_batch(family, folders, samples):
    segmenter, one_by_one = Segmenter(folders[family], batch_size=8), Segmenter(folders[family], batch_size=1)
    answers = segmenter.annotate(samples)
    assert any(answers)
    for sample, annotations, others in zip(samples, answers, one_by_one.annotate(samples), strict=True):
        for annotation, other in zip(annotations, others, strict=True):
            [region], [same] = annotation.regions, other.regions
            assert annotation.task == "<REGION_TO_SEGMENTATION>"
            assert annotation.query == other.query
            assert annotation.query.parts in {box.parts for box in sample.annotations[1].regions}
            assert annotation.query.label == ""
            box = region_box(region.parts)
            assert (box >= 0).all()
            assert (box <= [*sample.size, *sample.size]).all()
            size = tuple(map(int, sample.size))
            assert mask_iou(rasterize(region.parts, size), rasterize(same.parts, size)) > 0.9
            assert region.score == pytest.approx(same.score, abs=1e-4)


@pytest.mark.parametrize("family", ["sam", "sam2"])
@pytest.mark.parametrize("size", [(200, 100), (60, 240), (64, 64)])
def test_a_box_is_asked_about_and_its_mask_comes_back_in_the_right_pixels(family, size, folders, make_sample):
    """The network answers with the box it was asked about, drawn in the square it sees."""
    box = Region.box(0.25 * size[0], 0.5 * size[1], 0.75 * size[0], 0.875 * size[1], label="dog", score=0.9)
    segmenter = Segmenter(folders[family])
    cells = 64  # of the mask

    def forward(image_embeddings, input_boxes, multimask_output):
        assert not multimask_output
        x1, y1, x2, y2 = (input_boxes[0, 0] / SIDE * cells).tolist()
        middle = torch.arange(cells) + 0.5
        inside = ((middle > y1) & (middle < y2))[:, None] & ((middle > x1) & (middle < x2))
        masks = torch.where(inside, 8.0, -8.0)[None, None, None]
        return SimpleNamespace(pred_masks=masks, iou_scores=torch.tensor([[[0.75]]]))

    segmenter._model.network.forward = forward
    [[annotation]] = segmenter.annotate([make_sample(size, Annotation("<OD>", regions=(box,)))])
    [region] = annotation.regions
    assert annotation.query == Region("box", box.parts)
    assert (region.kind, region.score) == ("polygon", 0.75)
    found = polygon_to_box(region.parts[0])
    assert found == pytest.approx(region_box(box.parts), abs=1.5 * max(size) / cells)


def test_an_empty_or_unsure_mask_gives_nothing(folders, samples, make_sample):
    segmenter = Segmenter(folders["sam"], threshold=0.5)

    def forward(image_embeddings, input_boxes, multimask_output):
        masks = torch.full((1, 2, 1, 16, 16), 8.0)
        masks[0, 0] = -8.0  # empty, and sure of it
        return SimpleNamespace(pred_masks=masks, iou_scores=torch.tensor([[[0.9], [0.4]]]))

    segmenter._model.network.forward = forward
    assert segmenter.annotate(samples[:1]) == [[]]
    assert segmenter.annotate([make_sample((30, 30))]) == [[]]
    assert segmenter.annotate([]) == []
    assert segmenter.version != Segmenter(folders["sam"]).version


@pytest.mark.parametrize("size", [(80, 50), (33, 97), (500, 20), (64, 64)])
def test_pixels_are_those_of_the_processor_of_sam(size):
    array = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(array)
    processor = transformers.SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    theirs = processor(images=image, return_tensors="pt")
    inner = module._longest(size, SIDE)
    assert list(inner)[::-1] == theirs["reshaped_input_sizes"][0].tolist()
    assert torch.allclose(module._pixels(image, inner, SIDE), theirs["pixel_values"], atol=1e-5)
