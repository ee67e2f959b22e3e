"""One training loop for every run: losses -> backward -> mean over processes -> clip -> step -> average, log, save.

A batch is a function of its number, so a run that was killed and resumed repeats nothing and skips nothing. Started
under `torchrun`, every process takes its own batches and a step is the mean over all of them.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from open_florence.errors import OpenFlorenceError
from open_florence.training import distributed
from open_florence.training.batches import StepBatch
from open_florence.training.blocks import checkpointed, freeze, stochastic_depth
from open_florence.training.config import TrainConfig
from open_florence.training.interrupts import Interrupts
from open_florence.training.logs import Meters, RunLog
from open_florence.training.objectives import DenseObjective, Objective, SequenceObjective
from open_florence.training.optimizer import Ema, learning_rate, make_optimizers
from open_florence.training.state import load_optimizer, load_tensors, write_durably

__all__ = ["DenseObjective", "Objective", "SequenceObjective", "TrainConfig", "Trainer"]

PATIENCE = 20
"""Steps in a row whose loss is not a number, after which a run stops."""


class Trainer:
    """Runs one stage. Everything a resumed run needs is in `folder`, written as a whole or not at all:

    state.pt (weights, averages, optimisers, step), log.jsonl, and best.safetensors when the best weights are kept.
    """

    def __init__(
        self,
        objective: Objective[Any],
        config: TrainConfig,
        batch_at: Callable[[int], StepBatch],
        folder: Path,
        evaluate: Callable[[int], Mapping[str, float]] | None = None,
        best: str | None = None,
    ) -> None:
        """`batch_at(number)` gives this process's micro-batch: `config.accumulate` a step, numbered from 0 on.

        `evaluate(step)` is called in the first process with the averaged weights in place. `best` names the figure of
        it, the higher the better, whose best weights are kept and are in place after the run. Parameters that are
        frozen stay frozen. Raises OpenFlorenceError for a name to freeze or a `best` that means nothing.
        """
        if best is not None and not (evaluate and config.evaluate_every):
            raise OpenFlorenceError(f"the best {best} can only be kept when the run is evaluated: set evaluate_every")
        self.objective, self.config, self.batch_at, self.folder = objective, config, batch_at, folder
        self.evaluate, self.best_name = evaluate, best
        self.device = next(objective.parameters()).device
        self.bf16 = config.bf16_on(self.device)
        self.frozen = freeze(objective, config.freeze)
        distributed.broadcast_parameters(objective)
        self.sharded = config.strategy == "fsdp" and distributed.world() > 1
        self.module = distributed.shard(objective) if self.sharded else objective
        if self.sharded:
            objective.cpu()  # where it waits for the averaged weights
        self.optimizers = make_optimizers(
            self.module,
            config.learning_rate,
            config.betas,
            config.weight_decay,
            {"vision_tower.": config.tower_scale},
            config.muon_scale,
            config.layer_decay,
        )
        self.ema = Ema(self.module, config.ema)
        self.meters, self.images, self.since = Meters(), 0, 0.0
        self.step, self.bad, self.best = 0, 0, -math.inf
        self.log: RunLog | None = None
        self.leads = distributed.rank() == 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def state_file(self) -> Path:
        """Where the run's state lies."""
        return self.folder / "state.pt"

    @property
    def best_file(self) -> Path:
        """Where the averaged weights of the best evaluation lie."""
        return self.folder / "best.safetensors"

    def run(self) -> None:
        """Trains to the last step, from the saved state if there is one.

        Ends with the averaged weights in place: those of the best evaluation if `best` was given. Ctrl-C or SIGTERM
        finishes the step, saves and raises KeyboardInterrupt. Raises OpenFlorenceError when the loss is not a number
        `PATIENCE` times in a row, or when the folder holds the state of another model.
        """
        if self.state_file.exists():
            self._load()
        config = self.config
        with self._prepared(), Interrupts() as interrupts:
            while self.step < config.steps:
                first = self.step * config.accumulate
                self._train_step([self.batch_at(first + i) for i in range(config.accumulate)])
                self.step += 1
                if self._is_due(config.log_every):
                    self._log()
                if self.evaluate and self._is_due(config.evaluate_every):
                    self._evaluate(self.evaluate)
                stop = distributed.total(interrupts.asked) > 0
                if stop or self._is_due(config.save_every):
                    self.save()
                if stop:
                    raise self._interruption()
        self._put_in_place()

    def _train_step(self, batches: Sequence[StepBatch]) -> None:
        """One step of the optimisers on the mean loss of all batches of all processes."""
        config, weights = self.config, [self.objective.weight(batch) for batch in batches]
        everything = max(distributed.total(sum(weights)), 1)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate(self.step) * group["lr_scale"]
        torch.manual_seed(config.seed * 1_000_003 + self.step + (distributed.rank() << 40))  # dropout repeats itself
        self.module.zero_grad(set_to_none=True)
        figures, loss = [], 0.0
        for batch, weight in zip(batches, weights, strict=True):
            batch = distributed.with_equal_chunks(batch) if self.sharded else batch
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                mean, named = self.module(batch.to(self.device), self.step, config)
            (mean * (weight * distributed.world() / everything)).backward()  # the processes' gradients are averaged
            loss += mean.item() * weight / everything
            figures.append(named)
            self.images += len(batch.pixel_values)
            self.meters.count("dropped", batch.dropped)
        if not self.sharded:  # where FSDP has done it
            distributed.average_gradients(self.module)
        norm = float(distributed.whole(nn.utils.clip_grad_norm_(self.module.parameters(), config.clip)))
        if not math.isfinite(distributed.total(loss) + norm):
            return self._skip()
        self.bad = 0
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.module, self.step)
        for named, weight in zip(figures, weights, strict=True):
            self.meters.add(named, weight)
        self.meters.add({"gradient norm": norm}, 1)

    def _skip(self) -> None:
        """Counts a step that cannot be taken: one bad batch does no harm, a run that has burst stops."""
        self.bad += 1
        self.meters.count("skipped", self.leads)
        if self.bad == PATIENCE:
            raise OpenFlorenceError(
                f"the loss was not a number in {PATIENCE} steps in a row, up to step {self.step + 1}: "
                f"the learning rate {self.config.learning_rate:g} may be too high"
            )

    def _rate(self, step: int) -> float:
        config = self.config
        return learning_rate(step, config.learning_rate, config.warmup, config.steps, config.decay)

    def _is_due(self, every: int) -> bool:
        """Whether something happens after this step: every so often, if at all, and at the end."""
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _log(self) -> None:
        """Writes what was gathered since the last line, in all processes, and starts to gather anew."""
        meters = self._joined_meters()
        images, now = distributed.total(self.images), time.perf_counter()
        if self.log is not None:
            speed = {"images/s": images / (now - self.since), "learning rate": self._rate(self.step - 1)}
            figures = speed | meters.means() | {"dropped": 0} | meters.counts
            self.log.write(self.step, figures)
            self.log.show(self.step, figures)
        self.meters, self.images, self.since = Meters(), 0, now

    def _joined_meters(self) -> Meters:
        """The meters of all processes in one."""
        joined = Meters()
        joined.load(distributed.gather(self.meters.state()))
        return joined

    def _evaluate(self, evaluate: Callable[[int], Mapping[str, float]]) -> None:
        began = time.perf_counter()
        with self._averaged():
            if self.log is not None:
                self.objective.eval()
                figures = dict(evaluate(self.step))
                self.log.write(self.step, {f"validation/{name}": value for name, value in figures.items()})
                print(
                    f"step {self.step}  validation  " + "  ".join(f"{k} {v:.4g}" for k, v in figures.items()),
                    flush=True,
                )
                self._keep_best(figures)
                self.objective.train()
        self.since += time.perf_counter() - began  # no time of training

    def _keep_best(self, figures: Mapping[str, float]) -> None:
        if self.best_name is None:
            return
        if self.best_name not in figures:
            raise OpenFlorenceError(f"the evaluation has no figure {self.best_name!r}, only {', '.join(figures)}")
        if not figures[self.best_name] > self.best:  # so that no "not a number" is ever the best
            return
        self.best = float(figures[self.best_name])
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self.objective.state_dict().items()}
        about = {"step": str(self.step), self.best_name: str(self.best)}
        write_durably(self.best_file, lambda path: save_file(weights, path, about))
        self.best_file.chmod(0o644)  # safetensors makes files that only their owner can read

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """While it lasts, the objective has the averaged weights."""
        if not self.sharded:
            self.ema.swap(self.objective)
            yield
            self.ema.swap(self.objective)
            return
        self.objective.to(self.device)
        parameters = dict(self.objective.named_parameters())
        for name, value in self.ema.values.items():
            parameters[name].data.copy_(distributed.whole(value))
        yield
        self.objective.cpu()

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        """While it lasts, the blocks do what the configuration says, and the log is open."""
        self.log = RunLog(self.folder, self.config.steps, self.step) if self.leads else None
        self.since = time.perf_counter()
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        self.module.train()
        try:
            with (
                checkpointed(self.module, self.config.checkpointing),
                stochastic_depth(self.module, self.config.drop_path),
            ):
                yield
        finally:
            for parameter in self.frozen:
                parameter.requires_grad_(True)
            if self.log is not None:
                self.log.close()
                self.log = None

    def _put_in_place(self) -> None:
        """Leaves the best weights, or the last averaged ones, in the objective of every process."""
        if self.sharded:
            with self._averaged():
                pass
            self.objective.to(self.device)
        else:
            self.ema.swap(self.objective)
        if distributed.gather(self.best)[0] == -math.inf:
            return
        if self.leads:
            try:
                load_tensors(self.objective.state_dict(), load_file(self.best_file))
            except (OSError, SafetensorError, KeyError, RuntimeError) as error:
                raise OpenFlorenceError(f"the best weights cannot be read from {self.best_file}: {error}") from error
        distributed.broadcast_parameters(self.objective)

    def _interruption(self) -> KeyboardInterrupt:
        if self.leads:
            done = f"stopped after step {self.step} of {self.config.steps}"
            print(
                f"{done} and saved in {self.folder}: started again in the same way, it goes on from there", flush=True
            )
        return KeyboardInterrupt()

    def save(self) -> None:
        """Writes the state beside the last one and puts it in its place in one move; all processes take part."""
        state = distributed.whole(
            {
                "step": self.step,
                "config": asdict(self.config),
                "objective": self.module.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "ema": self.ema.values,
                "meters": self._joined_meters().state(),
                "bad": self.bad,
                "best": self.best,
            }
        )
        if self.log is not None:
            self.log.sync()
        if self.leads:
            write_durably(self.state_file, lambda path: torch.save(state, path))

    def _load(self) -> None:
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise OpenFlorenceError(f"{self.state_file} is no saved state: remove it to begin anew") from error
        try:
            load_tensors(self.module.state_dict(), state["objective"])
            load_tensors(self.ema.values, state["ema"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                load_optimizer(optimizer, saved)
            self.step, self.bad, self.best = state["step"], state["bad"], state["best"]
            self.meters.load([state["meters"]] if self.leads else [])
        except (KeyError, RuntimeError, ValueError) as error:
            message = f"{self.state_file} is the state of another model or stage ({error}): take another folder"
            raise OpenFlorenceError(message) from error
