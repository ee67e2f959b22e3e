"""Brief captions by BLIP (Li et al. 2022) and BLIP-2 (Li et al. 2023), of whole images or of their objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from open_florence.geometry import clip, region_box
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists.hub import load_hub_model, open_samples
from open_florence.specialists.inputs import boxes_of
from open_florence.specialists.versions import with_options


class Captioner:
    """<CAPTION> of the image; with `crops` <DENSE_REGION_CAPTION> instead, a caption of each box of <OD>."""

    name = "captioner"

    def __init__(
        self,
        model: str = "Salesforce/blip-image-captioning-base",
        *,
        crops: bool = False,
        most_tokens: int = 40,
        batch_size: int = 8,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """A caption has at most `most_tokens` tokens. Raises OpenFlorenceError, see `load_hub_model`."""
        self._model = load_hub_model(
            model,
            "AutoModelForImageTextToText",
            kinds=("blip", "blip-2"),
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        self._crops, self._most = crops, most_tokens
        self.tasks: tuple[str, ...] = ("<DENSE_REGION_CAPTION>",) if crops else ("<CAPTION>",)
        self.needs: tuple[str, ...] = ("<OD>",) if crops else ()
        self.version = with_options(self._model.version, crops=crops, most_tokens=most_tokens)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """One annotation for each sample of which, or with `crops` of whose boxes, the model had something to say.

        The score of a caption is the geometric mean of its tokens' probabilities; of a region it is the `label_score`,
        and its `score` is that of the box. `complete` is False where a caption was cut at its greatest length.
        """
        images = open_samples(samples)
        if self._crops:
            return [self._regions(image, sample) for image, sample in zip(images, samples, strict=True)]
        return [
            [Annotation("<CAPTION>", said.text, score=said.score, complete=said.whole)] if said.text else []
            for said in self._say(images)
        ]

    def _regions(self, image: Image.Image, sample: Sample) -> list[Annotation]:
        boxes = boxes_of(sample.annotations)
        said = self._say([image.crop(_pixels_of(box, image.size)) for box in boxes])
        pairs = [(box, one) for box, one in zip(boxes, said, strict=True) if one.text]
        if not pairs:
            return []
        regions = tuple(replace(box, label=one.text, label_score=one.score) for box, one in pairs)
        return [Annotation("<DENSE_REGION_CAPTION>", regions=regions, complete=all(one.whole for _, one in pairs))]

    def _say(self, images: Sequence[Image.Image]) -> list[Caption]:
        processor = self._model.processor
        pixels = [dict(processor.image_processor(images=image, return_tensors="pt")) for image in images]
        captions = []
        for output in self._model.run(pixels, self._generate):
            ids, probabilities = output["ids"][0], output["probabilities"][0]
            words = ids != processor.tokenizer.pad_token_id
            mean = float(probabilities[words].mean()) if bool(words.any()) else 0.0
            text = " ".join(processor.tokenizer.decode(ids, skip_special_tokens=True).split())
            whole = len(ids) < self._most or int(ids[-1]) in self._ends | {processor.tokenizer.pad_token_id}
            captions.append(Caption(text, math.exp(mean), whole))
        return captions

    def _generate(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """The most probable token after each other: ids (B, T), and the logarithms of their probabilities (B, T)."""
        output = self._model.network.generate(
            pixel_values=pixel_values,
            max_new_tokens=self._most,
            min_new_tokens=0,
            do_sample=False,
            num_beams=1,
            return_dict_in_generate=True,
            output_logits=True,
        )
        logits = torch.stack(output.logits, dim=1).float()  # (B, T, V)
        ids = output.sequences[:, -logits.shape[1] :]  # (B, T): without the prompt
        chosen = logits.log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]  # (B, T)
        return {"ids": ids, "probabilities": chosen}

    @property
    def _ends(self) -> set[int]:
        """The tokens that end a caption."""
        network = self._model.network
        text = network.config.text_config
        named = [network.generation_config.eos_token_id, text.eos_token_id, getattr(text, "sep_token_id", None)]
        return {end for ends in named for end in (ends if isinstance(ends, list) else [ends]) if end is not None}


class Caption(NamedTuple):
    """What was said of one image or crop."""

    text: str
    score: float
    whole: bool


def _pixels_of(box: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels (x1, y1, x2, y2) that a box touches in an image of `size` (W, H); at least one."""
    (x1, y1), (x2, y2) = clip(region_box(box.parts).reshape(2, 2), size)
    left, top = min(math.floor(x1), size[0] - 1), min(math.floor(y1), size[1] - 1)
    return left, top, max(left + 1, math.ceil(x2)), max(top + 1, math.ceil(y2))
