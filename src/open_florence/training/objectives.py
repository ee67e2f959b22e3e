"""What a stage minimises: the dense losses of the vision-only stage, or the paper's one objective over all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from open_florence.model.florence import Florence, Memory
from open_florence.training.batches import IGNORE, Batch, Chunk, StepBatch
from open_florence.training.config import TrainConfig
from open_florence.training.dense import DenseHeads
from open_florence.training.grounding import WordHeads
from open_florence.training.locations import sequence_loss

AnyBatch = TypeVar("AnyBatch", bound=StepBatch)

WORD_ROWS = 4
"""Rows of a chunk that the word heads read: enough, and a small part of the step."""


class Objective(nn.Module, ABC, Generic[AnyBatch]):
    """What a stage minimises: the trained parameters, and the losses of a batch."""

    @abstractmethod
    def losses(self, batch: AnyBatch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise, a mean over the batch, and the figures to log, by name.

        `step` counts from 0 the steps of the optimiser. Figures are means as well, each a plain number.
        """

    def weight(self, batch: AnyBatch) -> int:
        """What the loss of a batch is the mean over, counted: its images, unless an objective says otherwise.

        The trainer weighs the micro-batches of a step and the batches of all processes by it, so that the loss of a
        step is the mean over everything in it and not a mean of means.
        """
        return len(batch.pixel_values)

    def forward(self, batch: AnyBatch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """`losses`, called as a module is, so that hooks on the module see it."""
        return self.losses(batch, step, config)


class DenseObjective(Objective[Batch]):
    """The vision-only stage: the tower and its dense heads."""

    def __init__(self, tower: nn.Module, heads: DenseHeads) -> None:
        super().__init__()
        self.vision_tower, self.heads = tower, heads

    def losses(self, batch: Batch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """The sum of the heads' losses."""
        losses = self.heads.losses(self.vision_tower(batch.pixel_values), batch.dense)
        return torch.stack(list(losses.values())).sum(), {name: loss.item() for name, loss in losses.items()}


class SequenceObjective(Objective[Batch]):
    """The paper's objective (section 3.2) over all tasks at once, several targets sharing one vision encoding."""

    def __init__(
        self,
        model: Florence,
        locations: tuple[int, int],
        heads: DenseHeads | None = None,
        words: WordHeads | None = None,
    ) -> None:
        """`locations` is the id of the first location token and their number; `heads` and `words` are the aids."""
        super().__init__()
        self.model, self.locations, self.heads, self.words = model, locations, heads, words

    def weight(self, batch: Batch) -> int:
        """The target tokens of the batch."""
        return sum(int((chunk.labels != IGNORE).sum()) for chunk in batch.chunks)

    def losses(self, batch: Batch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy of the target tokens plus the weighted dense losses; logged by task."""
        model, (start, count) = self.model, self.locations
        progress = min(1.0, step / max(config.sigma_steps, 1))
        sigma = config.sigma * (config.sigma_end / config.sigma) ** progress if config.sigma else 0.0
        with torch.set_grad_enabled(torch.is_grad_enabled() and step >= config.freeze_tower):
            grid = model.vision_tower(batch.pixel_values)  # (I, C, h, w)
        features = model.projector(grid)  # (I, 1 + N, d)
        by_task: defaultdict[str, list[float]] = defaultdict(list)
        total, tokens, grounded = features.new_zeros((), dtype=torch.float32), 0, []
        for chunk in batch.chunks:
            memory = model.encode(features[chunk.image_index], chunk.input_ids, chunk.attention_mask)
            logits = model.decode(model.shift_right(chunk.labels), memory)  # (B, T, V)
            if self.words is not None and chunk.tasks:
                grounded.append(self._word_loss(memory, chunk, batch, features.shape[1], sigma))
            loss = sequence_loss(logits, chunk.labels, start, count, sigma)  # (B, T)
            lengths = (chunk.labels != IGNORE).sum(1)  # (B,)
            total, tokens = total + loss.sum(), tokens + int(lengths.sum())
            # An empty chunk (`distributed.with_equal_chunks`) has a row but no task.
            for task, value in zip(chunk.tasks, (loss.detach().sum(1) / lengths).tolist(), strict=False):
                by_task[task].append(value)
        total = total / max(tokens, 1)
        figures = {"loss": total.item(), **{task: sum(v) / len(v) for task, v in by_task.items()}}
        if self.heads is not None and step >= config.freeze_tower:
            dense = torch.stack(list(self.heads.losses(grid, batch.dense).values())).sum()
            share = step / config.steps
            weight = config.dense_weight * (1 - share) + config.dense_weight_end * share
            figures["dense"] = dense.item()
            total = total + weight * dense
        if grounded:
            words = torch.stack(grounded).mean()
            figures["words"] = words.item()
            total = total + config.word_weight * words
        if self.words is not None:  # a head without a label has a gradient of zero: sharded processes expect the same
            total = total + 0 * torch.stack([parameter.sum() for parameter in self.words.parameters()]).sum()
        return total, figures

    def _word_loss(self, memory: Memory, chunk: Chunk, batch: Batch, visual: int, sigma: float) -> Tensor:
        """The word heads on a few rows of a chunk: the first of each image, for all its rows see the same image."""
        assert self.words is not None
        images = chunk.image_index.tolist()
        rows = [images.index(image) for image in sorted(set(images))][:WORD_ROWS]
        labels = {name: label[chunk.image_index[rows]] for name, label in batch.dense.items()}
        table = self.model.language_model.shared.weight  # (V, d)
        return self.words.loss(memory.hidden[rows, :visual], table, labels, sigma)
