"""One training loop for every run: losses by name -> backward -> clip -> step -> average, log, save, resume.

A batch is a function of the step number, so a run that was killed and resumed repeats nothing and skips nothing.
Started under `torchrun`, every process takes its own batch and the gradients are averaged (data parallel).
"""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from open_florence.model.florence import Florence, Memory
from open_florence.training.batches import IGNORE, Batch, Chunk
from open_florence.training.dense import DenseHeads
from open_florence.training.grounding import WordHeads
from open_florence.training.locations import sequence_loss
from open_florence.training.optimizer import Ema, learning_rate, make_optimizers

WORD_ROWS = 4
"""Rows of a chunk that the word heads read: enough, and a small part of the step."""


@dataclass(frozen=True)
class TrainConfig:
    """One stage of a run."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 0
    """Steps of the cosine to zero at the end; steps - warmup gives the paper's schedule."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    muon_scale: float = 0.0
    """Muon's learning rate for the matrices of the blocks as a multiple of `learning_rate`; 0 is AdamW for them too."""
    clip: float = 1.0
    ema: float = 0.998
    tower_scale: float = 1.0
    """Factor on the learning rate of the vision tower."""
    freeze_tower: int = 0
    """Steps during which the vision tower does not move: a language model that knows nothing would only harm it."""
    dense_weight: float = 1.0
    dense_weight_end: float = 1.0
    """Weight of the dense losses, going from the first figure to the second in a straight line."""
    word_weight: float = 0.3
    """Weight of the word heads' loss."""
    sigma: float = 0.0
    sigma_end: float = 0.0
    sigma_steps: int = 1
    """Width in bins of the soft location targets, going geometrically from `sigma` to `sigma_end` in `sigma_steps`."""
    seed: int = 0
    log_every: int = 50
    save_every: int = 500
    evaluate_every: int = 0


class Objective(nn.Module, ABC):
    """What a stage minimises: the trained parameters, and the losses of a batch."""

    @abstractmethod
    def losses(self, batch: Batch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise and the figures to log, by name."""


class DenseObjective(Objective):
    """The vision-only stage: the tower and its dense heads."""

    def __init__(self, tower: nn.Module, heads: DenseHeads) -> None:
        super().__init__()
        self.vision_tower, self.heads = tower, heads

    def losses(self, batch: Batch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """The sum of the heads' losses."""
        losses = self.heads.losses(self.vision_tower(batch.pixel_values), batch.dense)
        return torch.stack(list(losses.values())).sum(), {name: loss.item() for name, loss in losses.items()}


class SequenceObjective(Objective):
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

    def losses(self, batch: Batch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy of the target tokens plus the weighted dense losses; logged by task."""
        model, (start, count) = self.model, self.locations
        model.vision_tower.requires_grad_(step >= config.freeze_tower)
        progress = min(1.0, step / max(config.sigma_steps, 1))
        sigma = config.sigma * (config.sigma_end / config.sigma) ** progress if config.sigma else 0.0
        grid = model.vision_tower(batch.pixel_values)  # (I, C, h, w)
        features = model.projector(grid)  # (I, 1 + N, d)
        by_task: defaultdict[str, list[float]] = defaultdict(list)
        total, tokens, grounded = features.new_zeros((), dtype=torch.float32), 0, []
        for chunk in batch.chunks:
            memory = model.encode(features[chunk.image_index], chunk.input_ids, chunk.attention_mask)
            logits = model.decode(model.shift_right(chunk.labels), memory)  # (B, T, V)
            if self.words is not None:
                grounded.append(self._word_loss(memory, chunk, batch, features.shape[1], sigma))
            loss = sequence_loss(logits, chunk.labels, start, count, sigma)  # (B, T)
            lengths = (chunk.labels != IGNORE).sum(1)  # (B,)
            total, tokens = total + loss.sum(), tokens + int(lengths.sum())
            for task, value in zip(chunk.tasks, (loss.detach().sum(1) / lengths).tolist(), strict=True):
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
        return total, figures

    def _word_loss(self, memory: Memory, chunk: Chunk, batch: Batch, visual: int, sigma: float) -> Tensor:
        """The word heads on a few rows of a chunk: the first of each image, for all its rows see the same image."""
        assert self.words is not None
        images = chunk.image_index.tolist()
        rows = [images.index(image) for image in sorted(set(images))][:WORD_ROWS]
        labels = {name: label[chunk.image_index[rows]] for name, label in batch.dense.items()}
        table = self.model.language_model.shared.weight  # (V, d)
        return self.words.loss(memory.hidden[rows, :visual], table, labels, sigma)


class Trainer:
    """Runs one stage. Everything a resumed run needs is in `folder`/state.pt, written as a whole or not at all."""

    def __init__(
        self,
        objective: Objective,
        config: TrainConfig,
        batch_at: Callable[[int], Batch],
        folder: Path,
        evaluate: Callable[[int], Mapping[str, float]] | None = None,
    ) -> None:
        """`batch_at(step)` gives this process's batch; `evaluate(step)` sees the averaged weights."""
        self.objective, self.config, self.batch_at, self.folder = objective, config, batch_at, folder
        self.evaluate = evaluate
        self.device = next(objective.parameters()).device
        if dist.is_initialized():  # every process starts from the first one's weights
            for parameter in objective.parameters():
                dist.broadcast(parameter.data, 0)
        self.optimizers = make_optimizers(
            objective,
            config.learning_rate,
            config.betas,
            config.weight_decay,
            {"vision_tower.": config.tower_scale},
            config.muon_scale,
        )
        self.ema = Ema(objective, config.ema)
        self.step = 0
        self.leads = not dist.is_initialized() or dist.get_rank() == 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def state_file(self) -> Path:
        """Where the run's state lies."""
        return self.folder / "state.pt"

    def run(self) -> None:
        """Trains to the last step, from the saved state if there is one; ends with the averaged weights in place."""
        if self.state_file.exists():
            self._load()
        self.objective.train()
        figures: defaultdict[str, list[float]] = defaultdict(list)
        images, since = 0, time.perf_counter()
        try:
            while self.step < self.config.steps:
                batch = self.batch_at(self.step).to(self.device)
                for name, value in self._train_step(batch).items():
                    figures[name].append(value)
                self.step += 1
                images += len(batch.pixel_values)
                if self.step % self.config.log_every == 0:
                    seconds = time.perf_counter() - since
                    self._log({"images/s": images / seconds} | {k: sum(v) / len(v) for k, v in figures.items()})
                    figures.clear()
                    images, since = 0, time.perf_counter()
                if self.step % self.config.save_every == 0:
                    self.save()
                if (
                    self.evaluate
                    and self.leads
                    and self.config.evaluate_every
                    and self.step % self.config.evaluate_every == 0
                ):
                    self._evaluate(self.evaluate)
                    since = time.perf_counter()
        finally:
            self.save()
        self.ema.swap(self.objective)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        config = self.config
        rate = learning_rate(self.step, config.learning_rate, config.warmup, config.steps, config.decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout repeats itself when a run is resumed
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss, figures = self.objective.losses(batch, self.step, config)
        self.objective.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if dist.is_initialized():
            self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.objective, self.step)
        return figures | {"gradient norm": float(norm), "learning rate": rate}

    def _average_gradients(self) -> None:
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        # A head without a label in this batch has no gradient, but may have one in another process.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        pieces = torch.split(flat / dist.get_world_size(), [gradient.numel() for gradient in gradients])
        for parameter, piece in zip(trained, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def _evaluate(self, evaluate: Callable[[int], Mapping[str, float]]) -> None:
        self.ema.swap(self.objective)
        self.objective.eval()
        try:
            self._log({f"validation/{name}": value for name, value in evaluate(self.step).items()})
        finally:
            self.ema.swap(self.objective)
            self.objective.train()

    def _log(self, figures: Mapping[str, float]) -> None:
        if not self.leads:
            return
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, **figures}) + "\n")
        print(
            f"step {self.step}/{self.config.steps}  " + "  ".join(f"{k} {v:.4g}" for k, v in figures.items()),
            flush=True,
        )

    def save(self) -> None:
        """Writes the state beside the last one and puts it in its place in one move."""
        if not self.leads:
            return
        state = {
            "step": self.step,
            "config": asdict(self.config),
            "objective": self.objective.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "ema": self.ema.values,
        }
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_file)

    def _load(self) -> None:
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        self.objective.load_state_dict(state["objective"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.ema.values = state["ema"]
        self.step = state["step"]
