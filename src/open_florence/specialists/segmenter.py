"""Masks of boxes by Segment Anything: SAM (Kirillov et al. 2023) and SAM 2 (Ravi et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from open_florence.geometry import region_box
from open_florence.masks import polygons
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists.hub import load_hub_model, open_samples
from open_florence.specialists.inputs import boxes_of
from open_florence.specialists.versions import with_options

SQUARE_KINDS = ("sam2", "sam2_video")
"""These stretch an image to a square; SAM scales it and fills the rest."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of each channel over ImageNet; all of these models were trained on pixels brought to mean 0 and deviation 1."""


class Segmenter:
    """<REGION_TO_SEGMENTATION>: polygons for each box of <OD>; the score is the IoU that the model expects."""

    name = "segmenter"
    tasks = ("<REGION_TO_SEGMENTATION>",)
    needs = ("<OD>",)

    def __init__(
        self,
        model: str = "facebook/sam-vit-base",
        *,
        threshold: float = 0.0,
        batch_size: int = 16,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """`threshold` is the least expected IoU; `batch_size` counts boxes of one image.

        Raises OpenFlorenceError, see `load_hub_model`.
        """
        self._model = load_hub_model(
            model,
            "AutoModelForMaskGeneration",
            "",  # the processor of SAM 2 cannot do without torchvision; what both do to an image is a few lines
            kinds=("sam", *SQUARE_KINDS),
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        self._threshold = threshold
        self.version = with_options(self._model.version, threshold=threshold)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """An annotation for each box of a sample's <OD>, in their order, with the box as its query.

        Polygons are in pixels of the image. There is none for a box whose mask is empty or expected to be worse than
        `threshold`.
        """
        answers = []
        for image, sample in zip(open_samples(samples), samples, strict=True):
            boxes = boxes_of(sample.annotations)
            masks = self._masks(image, boxes) if boxes else iter(())
            found = (self._annotation(box, mask, score) for box, (mask, score) in zip(boxes, masks, strict=True))
            answers.append([annotation for annotation in found if annotation is not None])
        return answers

    def _annotation(self, box: Region, mask: Tensor, score: float) -> Annotation | None:
        parts = polygons(mask.numpy()) if score >= self._threshold else ()
        if not parts:
            return None
        points = tuple(tuple((float(x), float(y)) for x, y in part) for part in parts)
        region = Region("polygon", points, score=score)
        return Annotation(self.tasks[0], regions=(region,), query=Region("box", box.parts))

    def _masks(self, image: Image.Image, boxes: Sequence[Region]) -> Iterator[tuple[Tensor, float]]:
        """The mask (H, W) of each box and the IoU expected of it. The image is looked at once."""
        network, side = self._model.network, self._side
        inner = (side, side) if self._model.kind in SQUARE_KINDS else _longest(image.size, side)  # (W, H) in the square
        scale = np.tile(np.divide(inner, image.size), 2)
        places = torch.tensor(np.stack([region_box(box.parts) for box in boxes]) * scale)  # (N, 4)
        with torch.inference_mode():
            embeddings = network.get_image_embeddings(self._model.place(_pixels(image, inner, side)))
            for some in torch.split(places, self._model.batch_size):
                output = network(
                    image_embeddings=embeddings, input_boxes=self._model.place(some[None]), multimask_output=False
                )
                logits = interpolate(output.pred_masks[0].float(), (side, side), mode="bilinear")  # (N, 1, S, S)
                logits = logits[..., : inner[1], : inner[0]]
                logits = interpolate(logits, (image.height, image.width), mode="bilinear")  # (N, 1, H, W)
                scores = output.iou_scores[0, :, 0].float().clamp(0, 1)  # (N,)
                yield from zip((logits[:, 0] > 0).cpu(), scores.tolist(), strict=True)

    @property
    def _side(self) -> int:
        """Of the square that the network sees, in pixels."""
        config = self._model.network.config
        side = config.vision_config.image_size if self._model.kind == "sam" else config.prompt_encoder_config.image_size
        return int(side)


def _longest(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height scaled so that the longer is `side`, rounded."""
    scale = side / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _pixels(image: Image.Image, inner: tuple[int, int], side: int) -> Tensor:
    """The image resized to `inner` (W, H), normalised, in the top-left corner of a square (1, 3, side, side)."""
    resized = np.asarray(image.resize(inner, Image.Resampling.BILINEAR), dtype=np.float32) / 255  # (H, W, 3)
    square = torch.zeros(1, 3, side, side)
    square[0, :, : inner[1], : inner[0]] = torch.from_numpy((resized - MEAN) / STD).permute(2, 0, 1)
    return square
