"""How well texts fit images, by a pair of encoders: CLIP (Radford et al. 2021) or SigLIP (Zhai et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from open_florence.specialists.hub import load_hub_model


class Similarity:
    """`similarity(images, texts) -> (I, T)`; no specialist, but what enhancement chooses texts of regions with."""

    def __init__(
        self,
        model: str = "openai/clip-vit-base-patch32",
        *,
        batch_size: int = 32,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Raises OpenFlorenceError, see `load_hub_model`."""
        self._model = load_hub_model(
            model,
            "AutoModel",
            kinds=("clip", "siglip", "siglip2"),
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        self.version = self._model.version

    def __call__(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float64]:
        """Cosines (I, T) between each image, RGB of any size, and each text.

        A text is cut where the model stops reading. The figures compare texts of one image by one model; what is a high
        cosine differs between models.
        """
        if not images or not texts:
            return np.zeros((len(images), len(texts)))
        processor = self._model.processor
        pixels = [dict(processor.image_processor(images=image, return_tensors="pt")) for image in images]
        words = [
            dict(processor.tokenizer([text], padding="max_length", truncation=True, return_tensors="pt"))
            for text in texts
        ]
        return self._unit(pixels, "get_image_features") @ self._unit(words, "get_text_features").T

    def _unit(self, inputs: Sequence[dict[str, Tensor]], method: str) -> NDArray[np.float64]:
        """The features (N, D) of the inputs, each of length 1."""

        def encode(**batch: Tensor) -> dict[str, Tensor]:
            return {"features": getattr(self._model.network, method)(**batch).pooler_output}

        rows = [answer["features"].double().numpy() for answer in self._model.run(inputs, encode)]
        features = np.concatenate(rows)
        unit: NDArray[np.float64] = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
        return unit
