"""One training loop for every run: losses by name -> backward -> clip -> step -> average, log, save, resume.

A batch is a function of the step number, so a run that was killed and resumed repeats nothing and skips nothing.
Started under `torchrun`, every process takes its own batch and the gradients are averaged (data parallel).
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from open_florence.training.batches import StepBatch
from open_florence.training.config import TrainConfig
from open_florence.training.objectives import DenseObjective, Objective, SequenceObjective
from open_florence.training.optimizer import Ema, learning_rate, make_optimizers

__all__ = ["DenseObjective", "Objective", "SequenceObjective", "TrainConfig", "Trainer"]


class Trainer:
    """Runs one stage. Everything a resumed run needs is in `folder`/state.pt, written as a whole or not at all."""

    def __init__(
        self,
        objective: Objective[Any],
        config: TrainConfig,
        batch_at: Callable[[int], StepBatch],
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

    def _train_step(self, batch: StepBatch) -> dict[str, float]:
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
