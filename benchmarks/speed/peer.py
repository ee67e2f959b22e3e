"""transformers' Florence-2 as people use it: the other side of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor

from open_florence.tasks import TASKS

GREEDY = {"do_sample": False, "num_beams": 1, "no_repeat_ngram_size": 0, "early_stopping": False}
BEAMS = {"do_sample": False, "num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True}
"""Said in full, because a checkpoint brings settings of its own."""


@dataclass
class Peer:
    """Its model and its processor. Reading annotations out of texts, which ours does as well, is spared it."""

    model: Any
    processor: Any

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> Peer:
        """From a checkpoint in its own layout."""
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model = transformers.Florence2ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
        return cls(model, transformers.AutoProcessor.from_pretrained(folder))

    def answers(self, images: Sequence[str], questions: Sequence[str], settings: dict[str, int]) -> Tensor:
        """Images read from files, one question about each, the answers generated as one batch and made text.

        A question is a sentence, or a task with its query behind it. Returns the ids (B, T) that were generated, the
        start token among them.
        """
        opened = [Image.open(path).convert("RGB") for path in images]
        batch = self.processor(text=list(questions), images=opened, return_tensors="pt", padding=True)
        with torch.inference_mode():
            ids = self.model.generate(**batch.to(self.model.dtype), **GREEDY, **settings)
        self.processor.batch_decode(ids)
        return ids

    def shared_answers(self, image: str, tasks: Sequence[str], settings: dict[str, int]) -> Tensor:
        """What one can write by hand: the image encoded once, and all tasks about it answered as one batch.

        The tasks are without a query. Returns what `answers` does.
        """
        opened = Image.open(image).convert("RGB")
        pixels = self.processor.image_processor(images=opened, return_tensors="pt").pixel_values
        questions = [f"<s>{TASKS[name].prompt}</s>" for name in tasks]
        words = self.processor.tokenizer(questions, add_special_tokens=False, padding=True, return_tensors="pt")
        language = self.model.model.language_model
        with torch.inference_mode():
            features = self.model.get_image_features(pixels.to(self.model.dtype)).pooler_output  # (1, 1 + N, d)
            embedded = torch.cat([features.expand(len(tasks), -1, -1), language.shared(words.input_ids)], 1)
            visual = words.attention_mask.new_ones(len(tasks), features.shape[1])
            seen = torch.cat([visual, words.attention_mask], 1)  # (B, S)
            encoded = language.encoder(inputs_embeds=embedded, attention_mask=seen)
            ids = self.model.generate(encoder_outputs=encoded, attention_mask=seen, **GREEDY, **settings)
        self.processor.batch_decode(ids)
        return ids


def exactly(count: int) -> dict[str, int]:
    """Settings for answers of so many tokens, <s> and </s> included."""
    return {"min_new_tokens": count, "max_new_tokens": count}
