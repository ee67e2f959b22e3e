"""From annotated images to one training step's tensors.

Several (task, query) targets of one image share one vision encoding (K per image); rows are sorted by the length of
their target and cut into a few chunks, so that a caption of eighty tokens does not pad every one-word answer.
What is drawn depends on the generator passed in and nothing else, so a step can be repeated exactly.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from open_florence.processor import Processor
from open_florence.schema import Annotation, Size
from open_florence.tasks import find_task

IGNORE = -100


@dataclass(frozen=True)
class Example:
    """One image in memory and everything that is known of it."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    annotations: tuple[Annotation, ...]
    dense: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Labels of the training-only dense heads, by head (`training.dense`)."""

    @property
    def size(self) -> Size:
        """(width, height) in pixels, the frame of the annotations."""
        return float(self.image.shape[1]), float(self.image.shape[0])


class StepBatch(Protocol):
    """What the trainer asks of a batch, whatever an objective makes of it."""

    @property
    def pixel_values(self) -> Tensor:
        """(I, 3, H, W) float32."""

    @property
    def dropped(self) -> int:
        """What was left out of it, to be counted in the log."""

    def to(self, device: torch.device) -> StepBatch:
        """The same batch on another device."""


@dataclass(frozen=True)
class Chunk:
    """Rows of similar target length. B rows, L prompt tokens, T target tokens."""

    tasks: tuple[str, ...]
    input_ids: Tensor  # (B, L) long
    attention_mask: Tensor  # (B, L) long
    labels: Tensor  # (B, T) long, -100 where padded
    image_index: Tensor  # (B,) long: the row of pixel_values each target is about


@dataclass(frozen=True)
class Batch:
    """One step's input: I images, each with several targets."""

    pixel_values: Tensor  # (I, 3, H, W) float32
    chunks: tuple[Chunk, ...]
    dense: dict[str, Tensor]
    dropped: int = 0
    """Targets that were longer than the limit and left out: never silently cut."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        chunks = tuple(
            Chunk(c.tasks, *(t.to(device) for t in (c.input_ids, c.attention_mask, c.labels, c.image_index)))
            for c in self.chunks
        )
        dense = {name: t.to(device) for name, t in self.dense.items()}
        return Batch(self.pixel_values.to(device), chunks, dense, self.dropped)


def draw_annotations(
    annotations: Sequence[Annotation], weights: Mapping[str, float], count: int, rng: random.Random
) -> list[Annotation]:
    """Up to `count` annotations of different tasks, tasks drawn by weight, one annotation of each at random.

    When an image has fewer tasks than `count`, further annotations of the tasks it has are drawn.
    """
    by_task: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        if weights.get(annotation.task, 0) > 0:
            by_task.setdefault(annotation.task, []).append(annotation)
    drawn: list[Annotation] = []
    while by_task and len(drawn) < count:
        # Exponential keys: the tasks in the order of weighted sampling without replacement.
        order = sorted(by_task, key=lambda task: rng.expovariate(weights[task]))
        for task in order[: count - len(drawn)]:
            drawn.append(by_task[task].pop(rng.randrange(len(by_task[task]))))
        by_task = {task: rest for task, rest in by_task.items() if rest}
    return drawn


def collate(
    examples: Sequence[Example],
    processor: Processor,
    weights: Mapping[str, float],
    *,
    targets_per_image: int,
    max_target: int,
    rng: random.Random,
    chunk_shares: Sequence[float] = (0.4, 0.35, 0.25),
) -> Batch:
    """Draws each image's targets and builds the step's tensors.

    `weights` is the task mixture (task token -> weight, absent = never); targets of more than `max_target` tokens are
    left out and counted. `chunk_shares` are the shares of the rows, shortest targets first.
    """
    rows: list[tuple[list[int], str, str, int]] = []
    dropped = 0
    for index, example in enumerate(examples):
        for annotation in draw_annotations(example.annotations, weights, targets_per_image, rng):
            question = find_task(annotation.task).question(annotation.query, example.size)
            target = processor.target(annotation, example.size)
            if len(target) > max_target:
                dropped += 1
            else:
                rows.append((target, question, annotation.task, index))
    rows.sort(key=lambda row: len(row[0]))
    edges = np.round(np.cumsum([0.0, *chunk_shares]) * len(rows)).astype(int)
    edges[-1] = len(rows)
    chunks = tuple(_chunk(rows[a:b], processor) for a, b in itertools.pairwise(edges) if b > a)
    pixels = torch.from_numpy(
        processor.pixels([Image.fromarray(example.image) for example in examples])
    )  # (I, 3, S, S)
    names = examples[0].dense.keys()
    dense = {name: torch.from_numpy(np.stack([example.dense[name] for example in examples])) for name in names}
    return Batch(pixels, chunks, dense, dropped)


def dense_batch(examples: Sequence[Example], processor: Processor) -> Batch:
    """A batch for the vision-only stage: pixels and dense labels, no text."""
    return collate(examples, processor, {}, targets_per_image=0, max_target=0, rng=random.Random(0))


def _chunk(rows: Sequence[tuple[list[int], str, str, int]], processor: Processor) -> Chunk:
    input_ids, attention_mask = map(
        torch.from_numpy, processor.prompts([question for _, question, _, _ in rows])
    )  # (B, L) each
    width = max(len(target) for target, *_ in rows)
    labels = torch.full((len(rows), width), IGNORE, dtype=torch.long)  # (B, T)
    for row, (target, *_) in enumerate(rows):
        labels[row, : len(target)] = torch.tensor(target)
    image_index = torch.tensor([index for *_, index in rows])  # (B,)
    return Chunk(tuple(task for _, _, task, _ in rows), input_ids, attention_mask, labels, image_index)
