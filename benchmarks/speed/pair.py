"""transformers' Florence-2 and ours in one process, with the same weights, photos and questions."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before PyTorch is there; `threads.py` measures why

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint import VOCABULARY, checkpoint
from peer import Peer
from PIL import Image
from torch import Tensor

from open_florence.generation import GenerationConfig
from open_florence.inference.predictor import Predictor
from open_florence.model.florence import Memory
from open_florence.tasks import TASKS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLOSE = {"fp32": 1e-4, "bf16": 2e-2}
"""How far logits may be apart: the largest difference, as a part of the largest logit."""

EIGHT = [name for name, task in TASKS.items() if task.query == "none"]
"""The tasks that are asked about a whole image."""

END = 2


def dtypes(asked: str) -> list[str]:
    """The names of one, or of all for "both"."""
    return list(DTYPES) if asked == "both" else [asked]


def tokens(count: int, **changes: Any) -> GenerationConfig:
    """Our settings for answers of exactly `count` tokens, <s> and </s> included."""
    return GenerationConfig(max_new_tokens=count, suppressed=(END,), **changes)


@dataclass
class Pair:
    """Both sides, loaded as their users load them."""

    folder: Path
    dtype: str
    """One of `DTYPES`."""
    ours: Predictor
    theirs: Peer

    @classmethod
    def load(cls, shape: str, dtype: str, work: Path | None = None, backend: str = "torch") -> Pair:
        """Both sides with a shape of `checkpoint.SHAPES`, ours on one of our backends.

        Raises ValueError where their logits differ.
        """
        folder = checkpoint(shape, work)
        ours = Predictor.from_pretrained(folder, dtype=DTYPES[dtype], backend=backend)
        pair = cls(folder, dtype, ours, Peer.load(folder, DTYPES[dtype]))
        pair.check()
        return pair

    def check(self) -> None:
        """Compares the logits of two questions of different lengths, read at once and token by token."""
        photos = [photo(seed) for seed in (1, 2)]
        ids = torch.randint(3, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            batch = self.theirs.processor(text=EIGHT[:2], images=photos, return_tensors="pt", padding=True)
            expected = self.theirs.model(**batch.to(DTYPES[self.dtype]), decoder_input_ids=ids).logits
            features = self.ours.model.encode_image(torch.from_numpy(self.ours.processor.pixels(photos)))
            memory = self.memory(features, EIGHT[:2])
            cache = self.ours.model.new_cache()
            parts = [self.ours.model.decode(part, memory, cache) for part in ids.split([4, 1, 1], dim=1)]
        error = relative_error(torch.cat(parts, 1), expected)
        if error > CLOSE[self.dtype]:
            raise ValueError(f"the two models differ by {error:.1e} of the largest logit, so their speeds say nothing")

    def pixels(self, count: int) -> Tensor:
        """(count, 3, side, side) as both models are given it."""
        return torch.from_numpy(self.ours.processor.pixels([photo(seed) for seed in range(count)]))

    def memory(self, features: Tensor, tasks: Sequence[str]) -> Memory:
        """Ours, of one task without a query per row of the features (B, 1 + N, d)."""
        ids, mask = map(torch.from_numpy, self.ours.processor.prompts([TASKS[name].prompt for name in tasks]))
        return self.ours.model.encode(features, ids, mask)


def photo(seed: int) -> Image.Image:
    """Something with smooth parts and edges, 1024 x 768."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return Image.fromarray(coarse).resize((1024, 768), Image.Resampling.BICUBIC)


def photo_files(folder: Path, count: int) -> list[str]:
    """JPEG files in a folder, made where they are not there."""
    paths = [folder / f"photo-{seed}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        if not path.is_file():
            photo(seed).save(path, quality=90)
    return list(map(str, paths))


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Of logits (B, T, V): the end token, whose logit is made large on purpose, is left out."""
    kept = torch.arange(VOCABULARY) != END
    mine, other = ours[..., :VOCABULARY][..., kept].float(), theirs[..., :VOCABULARY][..., kept].float()
    return float((mine - other).abs().max() / other.abs().max())
