"""Images and texts in, unit vectors out: what is alike lies near, and a text lies near the images it is true of.

A checkpoint of the contrastive stage (`training.contrastive`) has vectors for both. A plain Florence-2 was never
trained to give any; of an image it gives the mean visual token, which is good enough to find near duplicates, and of a
text nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.inference.predictor import source_name
from open_florence.inference.pretrained import find_folder, format_and_place, load_model
from open_florence.model.checkpoint import CheckpointError
from open_florence.model.embedding import DualEncoder, is_dual_encoder, read_dual_encoder, write_dual_encoder
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tasks.templates import TEMPLATES, fill

Embeddings = NDArray[np.float32]
"""(N, E): one unit vector a row."""


class Embedder:
    """A model and its processor, ready to give vectors: `embedder.images(["a.jpg", "b.jpg"])` is (2, E) float32."""

    def __init__(
        self, model: DualEncoder | Florence, processor: Processor, source: str = "", batch_size: int = 16
    ) -> None:
        """`source` is the model's name. `batch_size` images, or texts, are encoded at a time: it changes no vector."""
        self.model = model.eval()
        self.processor = processor
        self.source = source
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> Embedder:
        """A folder that `save_embedder` wrote, or any Florence-2 that `load_model` loads. Raises OpenFlorenceError."""
        source = source_name(name_or_folder)
        folder = find_folder(name_or_folder)
        try:
            contrastive = is_dual_encoder(folder)
        except CheckpointError as error:
            raise OpenFlorenceError(str(error)) from error
        if contrastive:
            return cls(*load_embedder(folder, dtype, device), source)
        return cls(*load_model(name_or_folder, dtype, device), source)

    @property
    def has_texts(self) -> bool:
        """Whether there are vectors of texts, in the same space as those of images."""
        return isinstance(self.model, DualEncoder)

    def images(self, images: Iterable[Any]) -> Embeddings:
        """Vectors (I, E) of images: paths, PIL images, arrays or bytes. Raises OpenFlorenceError for an unreadable one.

        Of a `DualEncoder` they are its own. Of a plain Florence-2 each is the mean visual token, as the projector gives
        it to the language model, scaled to length 1: not trained for this.
        """
        rows = [
            self._encode_images(torch.from_numpy(self.processor.pixels([open_image(image) for image in some])))
            for some in _chunks(images, self.batch_size)
        ]
        return _stack(rows)

    def texts(self, texts: Iterable[str]) -> Embeddings:
        """Vectors (T, E) of texts. Raises OpenFlorenceError for a checkpoint without texts and too long a text."""
        model = self._dual()
        limit = model.config.text.max_positions
        rows = []
        for some in _chunks(texts, self.batch_size):
            input_ids, mask = map(torch.from_numpy, self.processor.prompts(some))  # (B, L) each
            if input_ids.shape[1] > limit:
                longest = some[int(mask.sum(1).argmax())]
                raise OpenFlorenceError(
                    f"a text has {input_ids.shape[1]} tokens, and this model reads only {limit}: {longest[:60]!r}..."
                )
            with torch.inference_mode():
                rows.append(model.encode_text(input_ids.to(self._device), mask.to(self._device)))
        return _stack(rows)

    def classes(self, names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Embeddings:
        """Vectors (C, E) of class names: the mean over all templates, scaled to length 1 (prompt ensembling).

        A template is a sentence with "{}" for the name. Raises OpenFlorenceError as `texts` does.
        """
        if not names or not templates:
            raise OpenFlorenceError("classes need at least one name and one template")
        sentences = [fill(template, name) for name in names for template in templates]
        means = self.texts(sentences).reshape(len(names), len(templates), -1).mean(1)  # (C, E)
        unit: Embeddings = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    def classify(self, image: Any, labels: Sequence[str], templates: Sequence[str] = TEMPLATES) -> dict[str, float]:
        """How probable each label is among those given, the likeliest first; the probabilities sum to 1."""
        scale = self._dual().scale.item()
        cosines = (self.images([image]) @ self.classes(labels, templates).T)[0]  # (C,)
        probabilities = torch.from_numpy(scale * cosines).softmax(0).tolist()
        return dict(sorted(zip(labels, probabilities, strict=True), key=lambda item: -item[1]))

    def _encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, E)."""
        with torch.inference_mode():
            if isinstance(self.model, DualEncoder):
                return self.model.encode_image(pixels.to(self._device))
            return F.normalize(self.model.encode_image(pixels.to(self._device))[:, 0].float(), dim=-1)

    def _dual(self) -> DualEncoder:
        if not isinstance(self.model, DualEncoder):
            raise OpenFlorenceError(
                f"{self.source or 'this checkpoint'} has no text side: a plain Florence-2 gives embeddings of images "
                "only, and a checkpoint of the contrastive stage (recipes/train_contrastive.py) those of texts too"
            )
        return self.model

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def load_embedder(
    folder: str | Path, dtype: torch.dtype | str | None = None, device: torch.device | str | None = None
) -> tuple[DualEncoder, Processor]:
    """A dual encoder ready for use, and its processor, from a folder that `save_embedder` wrote.

    `dtype` and `device` as in `load_model`. Raises OpenFlorenceError for a folder that holds none.
    """
    kind, place = format_and_place(dtype, device)
    try:
        model = read_dual_encoder(folder, kind)
    except CheckpointError as error:
        raise OpenFlorenceError(str(error)) from error
    return model.to(place), Processor.from_folder(folder)


def save_embedder(model: DualEncoder, processor: Processor, folder: str | Path) -> None:
    """Write weights, configuration, tokenizer and image size so that `Embedder.from_pretrained` reads them.

    Raises OpenFlorenceError for a folder that cannot be written.
    """
    config = replace(model.config, image_size=processor.image_size)
    try:
        write_dual_encoder(folder, config, model.state_dict())
        processor.save(folder)
    except OSError as error:
        raise OpenFlorenceError(f"the model cannot be written to {folder}: {error.strerror or error}") from error


Item = TypeVar("Item")


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _stack(rows: Sequence[Tensor]) -> Embeddings:
    """Batches (B, E) as one array; (0, 0) of none."""
    if not rows:
        return np.zeros((0, 0), np.float32)
    return np.concatenate([row.float().cpu().numpy() for row in rows])
