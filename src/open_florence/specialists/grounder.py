"""The phrases of a caption found in its image, by Grounding DINO (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from open_florence.noun_phrases import noun_phrases, parser_name
from open_florence.schema import Annotation, Sample
from open_florence.specialists.detector import detections
from open_florence.specialists.hub import HubModel, box_regions, load_hub_model, open_samples
from open_florence.specialists.versions import with_options

KINDS = ("grounding-dino", "mm-grounding-dino")
CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")


class Grounder:
    """<CAPTION_TO_PHRASE_GROUNDING>: for each caption of a sample the boxes of its noun phrases, with their spans."""

    name = "grounder"
    tasks = ("<CAPTION_TO_PHRASE_GROUNDING>",)
    needs = CAPTIONS

    def __init__(
        self,
        model: str = "IDEA-Research/grounding-dino-tiny",
        *,
        threshold: float = 0.25,
        batch_size: int = 4,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """`threshold` is the least score of a box for its phrase. Raises OpenFlorenceError, see `load_hub_model`."""
        self._model = load_hub_model(
            model,
            "AutoModelForZeroShotObjectDetection",
            kinds=KINDS,
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        self._threshold = threshold
        self.version = with_options(self._model.version, threshold=threshold, parser=parser_name())

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """An annotation for each caption that stands in a sample's annotations, whose text and query it is.

        A region's label is its phrase, its score that of the phrase in that box. `complete` is False where the caption
        is longer than the model reads.
        """
        answers: list[list[Annotation]] = [[] for _ in samples]
        images = open_samples(samples)
        asked = [(index, caption) for index, sample in enumerate(samples) for caption in _captions(sample)]
        spans = [[phrase.span for phrase in noun_phrases(caption)] for _, caption in asked]
        prompts = [Prompt(_ended(caption), tuple(found)) for (_, caption), found in zip(asked, spans, strict=True)]
        scored = score_phrases(self._model, [images[index] for index, _ in asked], prompts)
        for (index, caption), places, answer in zip(asked, spans, scored, strict=True):
            boxes, scores, which = answer.above(self._threshold)
            labels = [caption[slice(*places[phrase])] for phrase in which]
            regions = box_regions(boxes, scores, labels, images[index].size, [places[phrase] for phrase in which])
            answers[index].append(Annotation(self.tasks[0], caption, regions, query=caption, complete=answer.complete))
        return answers


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked of Grounding DINO: a text, and the characters of each phrase in it."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PhraseScores:
    """How well each box of an image fits each phrase of a prompt."""

    boxes: Tensor
    """(Q, 4) in pixels: x1, y1, x2, y2."""
    scores: Tensor
    """(Q, P) from 0 to 1: of a phrase's tokens the one that fits best; 0 for a phrase that was not read."""
    complete: bool
    """Whether all phrases were read."""

    def above(self, threshold: float) -> tuple[Tensor, Tensor, list[int]]:
        """The boxes (N, 4) whose best phrase reaches `threshold`, their scores (N,), and which phrase that is."""
        if not self.scores.shape[1]:
            return self.boxes[:0], self.scores.new_zeros(0), []
        best, which = self.scores.max(dim=1)  # (Q,)
        kept = best >= threshold
        return self.boxes[kept], best[kept], which[kept].tolist()


def score_phrases(model: HubModel, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[PhraseScores]:
    """Grounding DINO's boxes for each image and its prompt, in order."""
    inputs, tokens = [], []
    for image, prompt in zip(images, prompts, strict=True):
        words = tokenize(model, prompt.text)
        offsets = words.pop("offset_mapping")
        tokens.append([_tokens(offsets, span) for span in prompt.spans])
        pixels = model.processor.image_processor(images=image, return_tensors="pt")
        inputs.append({**dict(pixels), **{name: torch.tensor([ids]) for name, ids in words.items()}})
    answers = []
    for image, phrases, output in zip(images, tokens, model.run(inputs, partial(detections, model)), strict=True):
        fit = output["logits"][0].sigmoid()  # (Q, T)
        columns = [fit[:, found].amax(dim=1) if found else torch.zeros(len(fit)) for found in phrases]
        scores = torch.stack(columns, dim=1) if columns else torch.zeros(len(fit), 0)  # (Q, P)
        answers.append(PhraseScores(corners(output["pred_boxes"][0], image.size), scores, all(phrases)))
    return answers


def tokenize(model: HubModel, text: str) -> dict[str, list[Any]]:
    """The tokens of a text as the model reads it, cut where it stops reading, with the characters of each token."""
    return dict(
        model.processor.tokenizer(
            text, truncation=True, max_length=model.network.config.max_text_len, return_offsets_mapping=True
        )
    )


def corners(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) as centre and size from 0 to 1 -> corners (N, 4) in pixels of an image of `size` (W, H)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1) * torch.tensor([*size, *size])


def _tokens(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> list[int]:
    """The tokens that hold a character of the span; special tokens, which hold none, never do."""
    return [index for index, (start, end) in enumerate(offsets) if max(start, span[0]) < min(end, span[1])]


def _captions(sample: Sample) -> list[str]:
    found = (annotation.text for annotation in sample.annotations if annotation.task in CAPTIONS)
    return list(dict.fromkeys(text for text in found if text.strip()))


def _ended(caption: str) -> str:
    """The caption with a full stop at its end, as the model was trained; no character before it moves."""
    return caption if caption.rstrip().endswith(".") else f"{caption}."
