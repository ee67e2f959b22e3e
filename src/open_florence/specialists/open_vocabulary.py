"""Objects of any classes, by name: OWLv2 (Minderer et al. 2023), OWL-ViT, and Grounding DINO (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import torch
from PIL import Image
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists.detector import detections
from open_florence.specialists.grounder import KINDS as PHRASE_KINDS
from open_florence.specialists.grounder import Prompt, score_phrases, tokenize
from open_florence.specialists.hub import box_regions, load_hub_model, open_samples
from open_florence.specialists.versions import with_options

QUERY_KINDS = ("owlv2", "owlvit")
PROMPT = "a photo of a {}"
"""How OWLv2 is asked for a class; the wording of its authors."""


class OpenVocabularyDetector:
    """<OD>: boxes of the classes that are asked for. A box has one label, the class that fits it best."""

    name = "open_vocabulary"
    tasks = ("<OD>",)
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        classes: Sequence[str],
        model: str = "google/owlv2-base-patch16-ensemble",
        *,
        threshold: float = 0.2,
        batch_size: int = 4,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """`classes` are the names to look for, `threshold` the least score of a box.

        Raises OpenFlorenceError without classes, for a class that Grounding DINO cannot be asked about (one that is
        blank, holds a full stop, or is longer than it reads), and as `load_hub_model` does.
        """
        self._classes = tuple(dict.fromkeys(classes))
        if not self._classes or not all(label.strip() for label in self._classes):
            raise OpenFlorenceError("an open-vocabulary detector needs classes, none of them blank")
        self._model = load_hub_model(
            model,
            "AutoModelForZeroShotObjectDetection",
            kinds=(*QUERY_KINDS, *PHRASE_KINDS),
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        self._threshold = threshold
        self.version = with_options(self._model.version, threshold=threshold, classes=self._classes)
        self._by_query = self._model.kind in QUERY_KINDS
        self._prompts = [] if self._by_query else list(self._class_prompts())

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """One <OD> for each sample, also where nothing was found. Boxes in pixels of the image."""
        images = open_samples(samples)
        found = self._query(images) if self._by_query else self._phrases(images)
        return [[Annotation("<OD>", regions=regions)] for regions in found]

    def _query(self, images: Sequence[Image.Image]) -> list[tuple[Region, ...]]:
        """OWLv2: each class is a query."""
        processor = self._model.processor
        texts = [PROMPT.format(label) for label in self._classes]
        words = processor.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")

        def forward(pixel_values: Tensor) -> dict[str, Tensor]:
            names = ("input_ids", "attention_mask")  # (B * C, T): the classes again for each image
            queries = {name: self._model.place(words[name].repeat(len(pixel_values), 1)) for name in names}
            return detections(self._model, pixel_values=pixel_values, **queries)

        pixels = [dict(processor.image_processor(images=image, return_tensors="pt")) for image in images]
        answers = []
        for image, output in zip(images, self._model.run(pixels, forward), strict=True):
            [found] = processor.image_processor.post_process_object_detection(
                SimpleNamespace(**output), threshold=self._threshold, target_sizes=[(image.height, image.width)]
            )
            labels = [self._classes[int(label)] for label in found["labels"]]
            answers.append(box_regions(found["boxes"], found["scores"], labels, image.size))
        return answers

    def _phrases(self, images: Sequence[Image.Image]) -> list[tuple[Region, ...]]:
        """Grounding DINO: the classes are the phrases of one prompt, or of several where they are many."""
        answers: list[tuple[Region, ...]] = [() for _ in images]
        for prompt in self._prompts:
            scored = score_phrases(self._model, images, [prompt] * len(images))
            for index, (image, answer) in enumerate(zip(images, scored, strict=True)):
                boxes, scores, which = answer.above(self._threshold)
                labels = [prompt.text[slice(*prompt.spans[phrase])] for phrase in which]
                answers[index] += box_regions(boxes, scores, labels, image.size)
        return [tuple(sorted(regions, key=lambda region: -(region.score or 0))) for regions in answers]

    def _class_prompts(self) -> Iterator[Prompt]:
        """The classes as "cat. dog.", each prompt with as many as the model reads."""
        most = self._model.network.config.max_text_len
        text, spans = "", []  # type: str, list[tuple[int, int]]
        for label in self._classes:
            if "." in label:
                raise OpenFlorenceError(f"Grounding DINO cannot be asked for {label!r}: a full stop ends a class")
            longer = f"{text} {label}." if text else f"{label}."
            if text and len(tokenize(self._model, longer)["input_ids"]) >= most:
                yield Prompt(text, tuple(spans))
                longer, spans = f"{label}.", []
            if len(tokenize(self._model, longer)["input_ids"]) >= most:
                raise OpenFlorenceError(f"the class {label!r:.60} is longer than the model reads")
            text = longer
            spans.append((len(text) - len(label) - 1, len(text) - 1))
        yield Prompt(text, tuple(spans))
