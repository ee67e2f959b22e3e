"""Carries out a plan: stage after stage on one model, each resumable, each in a folder of its own.

What is learnt from is passed in: a function from (source, stage) to something that draws examples. So this knows
neither files nor formats, and a recipe in Python can hand over whatever it makes up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from open_florence.model.config import FlorenceConfig
from open_florence.model.embedding import DualEncoder
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.scenes.dense import DENSE_HEADS
from open_florence.training import distributed
from open_florence.training.batches import Batch, Example, collate, dense_batch
from open_florence.training.calibrate import calibrate_projector
from open_florence.training.contrastive import ContrastiveBatch, ContrastiveObjective, contrastive_batch, init_from
from open_florence.training.dense import DenseHeads, grid_of
from open_florence.training.locations import fold_locations, smooth_locations
from open_florence.training.objectives import DenseObjective, Objective, SequenceObjective
from open_florence.training.plan import SCENES, DataConfig, RunConfig, StageConfig
from open_florence.training.positions import stretch_positions
from open_florence.training.trainer import Trainer

Draw = Callable[[random.Random], Example]
"""One example, whose image is as wide and high as the stage wants it."""

Sources = Callable[[DataConfig, StageConfig, int, tuple[int, int]], Draw]
"""(data, stage, pixels a side, (rows, columns) of the last grid) -> what draws the stage's examples."""

Evaluate = Callable[[Florence, Processor], Mapping[str, float]]


def run_plan(
    model: Florence,
    processor: Processor,
    plan: RunConfig,
    folder: Path,
    sources: Sources,
    evaluate: Evaluate | None = None,
) -> tuple[Florence, Processor]:
    """Trains `model` in place through all stages and returns it with the processor of the last.

    Each stage keeps its state and log in `folder`/NAME; called again, finished stages are passed through and the
    unfinished one goes on. Of several processes (`distributed.join`) each draws batches of its own.
    `evaluate(model, processor)` is called as each stage's `train.evaluate_every` says.
    """
    rank, world = distributed.rank(), distributed.world()
    if plan.from_scratch:
        torch.manual_seed(plan.seed)
        endless = all(data.source == SCENES for stage in plan.stage for data in stage.data)
        config = without_dropout(model.config) if endless else model.config
        model = Florence(config).to(next(model.parameters()).device)
    heads: DenseHeads | None = None
    for number, stage in enumerate(plan.stage):
        side = stage.image_size or processor.image_size
        grid = grid_of(model.vision_tower, side)
        stretch_positions(model, grid_of(model.vision_tower, processor.image_size), grid)
        processor = replace(processor, image_size=side, image_seq_length=1 + grid[0] * grid[1])
        draw = mixed([(data.weight, sources(data, stage, side, grid)) for data in stage.data])

        def examples(
            step: int, draw: Draw = draw, stage: StageConfig = stage, number: int = number
        ) -> tuple[list[Example], random.Random]:
            rng = random.Random(f"{plan.seed} {number} {step * world + rank}")
            return [draw(rng) for _ in range(stage.batch_size)], rng

        if heads is None and (stage.objective == "dense" or stage.dense_heads):
            table: Any = DENSE_HEADS  # whose kinds are strings to the scenes
            heads = DenseHeads(table, model.config.vision.dims[-1]).to(next(model.parameters()).device)
        _run_stage(model, processor, plan, stage, folder / stage.name, examples, heads, evaluate)
    return model.eval(), processor


def _run_stage(
    model: Florence,
    processor: Processor,
    plan: RunConfig,
    stage: StageConfig,
    folder: Path,
    examples: Callable[[int], tuple[list[Example], random.Random]],
    heads: DenseHeads | None,
    evaluate: Evaluate | None,
) -> None:
    tokenizer = processor.tokenizer
    locations = (tokenizer.location_start, tokenizer.location_count)
    shared = model.language_model.shared
    config = replace(stage.train, seed=plan.seed)
    best = plan.evaluation.best if config.evaluate_every and evaluate else None

    def sequences(step: int) -> Batch:
        drawn, rng = examples(step)
        return collate(
            drawn,
            processor,
            stage.mixture,
            targets_per_image=stage.targets_per_image,
            max_target=stage.max_target,
            rng=rng,
        )

    def pairs(step: int) -> ContrastiveBatch:
        drawn, rng = examples(step)
        return contrastive_batch(drawn, processor, stage.mixture, max_text=stage.max_target, rng=rng)

    def watch(step: int) -> Mapping[str, float]:
        assert evaluate is not None
        return evaluate(model, processor)

    objective: Objective[Any]
    if stage.objective == "dense":
        assert heads is not None
        objective = DenseObjective(model.vision_tower, heads)
        Trainer(objective, config, lambda step: dense_batch(examples(step)[0], processor), folder).run()
        return
    if stage.objective == "contrastive":
        torch.manual_seed(plan.seed)
        encoder = DualEncoder.from_florence(model)
        Trainer(ContrastiveObjective(encoder), config, pairs, folder).run()
        init_from(model, encoder)
        return
    if stage.calibrate:
        calibrate_projector(model, dense_batch(examples(0)[0], processor).pixel_values)
    if stage.soft_locations:
        smooth_locations(shared, *locations)
    objective = SequenceObjective(model, locations, heads if stage.dense_heads else None)
    Trainer(objective, config, sequences, folder, watch if evaluate else None, best=best).run()
    fold_locations(shared)


def mixed(sources: list[tuple[float, Draw]]) -> Draw:
    """Draws from one of the sources, each as often as its weight says."""
    weights = [weight for weight, _ in sources]
    draws = [draw for _, draw in sources]
    return lambda rng: rng.choices(draws, weights)[0](rng)


def without_dropout(config: FlorenceConfig) -> FlorenceConfig:
    """Nothing can be learnt by heart from data that never run out, and dropout would only slow things down."""
    text = replace(config.text, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    return replace(config, text=text, vision=replace(config.vision, drop_path=0.0))
