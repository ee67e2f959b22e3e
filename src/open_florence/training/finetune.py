"""Fine-tuning a checkpoint on labelled images: what one folder and one command are enough for.

An image teaches several tasks at once and is encoded once for all of them. Boxes teach more than detection: region
proposal, open-vocabulary detection and region to category follow from them, at no cost of labelling.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region, Sample
from open_florence.training import distributed
from open_florence.training.augment import FREEDOM, Augmentation, Freedom
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.config import TrainConfig
from open_florence.training.dense import DenseHeads, box_heads, cells_from_boxes, grid_of, unknown_cells
from open_florence.training.locations import fold_locations, smooth_locations
from open_florence.training.lora import LoraConfig, add_lora
from open_florence.training.objectives import SequenceObjective
from open_florence.training.positions import stretch_positions
from open_florence.training.trainer import Trainer

WEIGHTS = {
    "<OD>": 4.0,
    "<REGION_PROPOSAL>": 0.5,
    "<OPEN_VOCABULARY_DETECTION>": 1.0,
    "<REGION_TO_CATEGORY>": 1.0,
}
"""The mixture: how often detection is drawn beside the tasks derived from it. Every other task has weight 2."""

SMALL = 50_000_000
"""Parameters under which a model is ours and not published: it wants larger steps, and was trained with Muon."""


@dataclass(frozen=True)
class FinetuneConfig:
    """What a fine-tuning run may be told."""

    tasks: tuple[str, ...] = ("<OD>",)
    """What to learn, by token; every one must occur in the samples."""
    steps: int = 1500
    learning_rate: float | None = None
    """The peak; None: 5e-4 for small models of ours, 1e-5 for published ones, 2e-4 for their adapters."""
    batch_size: int = 6
    targets_per_image: int = 4
    image_size: int | None = None
    """Pixels a side; None keeps the checkpoint's. More sees smaller objects and costs time by the square."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    max_target: int = 300
    """Longest target in tokens; longer ones are left out and counted."""
    lora: LoraConfig | None = None
    """Train adapters only, which the model keeps apart (`lora.save_adapter`, `merge_lora`); None trains all weights."""
    replay: float = 0.0
    """Share of each batch's images that comes from the replay, so that what was known is not forgotten."""
    seed: int = 0
    evaluate_every: int = 0
    best: str | None = None
    """The validation figure by which the best weights are kept; None keeps the last."""


def tasks_from_boxes(detection: Annotation, classes: Sequence[str], rng: random.Random) -> tuple[Annotation, ...]:
    """The annotations that follow from an <OD> annotation, itself first."""
    regions = detection.regions
    derived = [detection]
    proposal = tuple(Region(r.kind, r.parts) for r in regions)
    derived.append(replace(detection, task="<REGION_PROPOSAL>", regions=proposal))
    asked = rng.choice(classes)
    found = tuple(r for r in regions if r.label == asked)
    derived.append(replace(detection, task="<OPEN_VOCABULARY_DETECTION>", query=asked, regions=found))
    if regions:
        region = rng.choice(regions)
        query = Region(region.kind, region.parts)
        derived.append(replace(detection, task="<REGION_TO_CATEGORY>", query=query, text=region.label, regions=()))
    return tuple(derived)


@dataclass(frozen=True)
class Lessons:
    """The examples of a run: samples of the wanted tasks, seen anew each time."""

    samples: Sequence[Sample]
    config: FinetuneConfig
    classes: Sequence[str]
    side: int
    grid: tuple[int, int]
    replay: Callable[[random.Random], Example] | None = None
    """Another source of examples; its images are `side` pixels wide and high."""
    weights: Sequence[float] | None = None
    """How often each sample is drawn, relative to the others; None draws all alike."""

    def batch(self, processor: Processor, number: int) -> Batch:
        """One of the run's batches: a function of its number and the seed alone."""
        config = self.config
        rng = random.Random(config.seed * 1_000_003 + number)
        examples = [self.example(rng) for _ in range(config.batch_size)]
        if self.replay is not None:
            count = max(1, round(config.batch_size * config.replay / (1 - config.replay)))
            replayed = [self.replay(rng) for _ in range(count)]
            examples += [replace(example, dense=self._unknown()) for example in replayed]
        weights = {a.task: WEIGHTS.get(a.task, 2.0) for example in examples for a in example.annotations}
        return collate(
            examples,
            processor,
            weights,
            targets_per_image=config.targets_per_image,
            max_target=config.max_target,
            rng=rng,
        )

    def example(self, rng: random.Random) -> Example:
        """One view of one image, with the annotations that stand the same treatment."""
        sample = rng.choice(self.samples) if self.weights is None else rng.choices(self.samples, self.weights)[0]
        known = [a for a in sample.annotations if a.task in self.config.tasks]
        freedom: Freedom = FREEDOM.get(rng.choice(known).task, "light")
        chosen = [a for a in known if FREEDOM.get(a.task, "light") == freedom]
        side = self.side
        image, moved = self.config.augmentation(open_image(sample.path), chosen, (side, side), rng, freedom)
        detection = next((a for a in moved if a.task == "<OD>"), None)
        if detection is None or not self.classes:
            return Example(np.asarray(image), moved, self._unknown())
        derived = tasks_from_boxes(detection, self.classes, rng)
        cells = cells_from_boxes(detection.regions, (float(side), float(side)), self.grid, self.classes)
        return Example(np.asarray(image), (*(a for a in moved if a.task != "<OD>"), *derived), cells)

    def _unknown(self) -> dict[str, NDArray[Any]]:
        return unknown_cells(self.grid) if self.classes else {}


def finetune(
    model: Florence,
    processor: Processor,
    samples: Sequence[Sample],
    folder: Path,
    config: FinetuneConfig,
    evaluate: Callable[[Florence, Processor], Mapping[str, float]] | None = None,
    replay: Callable[[random.Random], Example] | None = None,
    weights: Sequence[float] | None = None,
) -> tuple[Florence, Processor]:
    """Fine-tunes `model` in place on the annotations of `samples` and returns it with the processor to use.

    The run's state and log go to `folder`; killed and called again, it goes on where it was. `evaluate(model,
    processor)` is called every `config.evaluate_every` steps with the averaged weights in place, its figures logged;
    `replay(rng)` draws examples of `config.image_size` for the share `config.replay`; `weights` says how often each
    sample is drawn, relative to the others, so that rare classes can be seen more often. Of several processes
    (`distributed.join`) each draws batches of its own. Raises OpenFlorenceError when a task of `config.tasks` occurs
    nowhere, or no sample has a box to learn detection from.
    """
    kept = [k for k, sample in enumerate(samples) if any(a.task in config.tasks for a in sample.annotations)]
    weights = None if weights is None else [weights[k] for k in kept]
    samples = [samples[k] for k in kept]
    found = Counter(a.task for sample in samples for a in sample.annotations)
    for task in config.tasks:
        if not found[task]:
            raise OpenFlorenceError(f"none of the images has a {task} annotation to learn from")
    classes = class_names(samples) if "<OD>" in config.tasks else []
    if "<OD>" in config.tasks and not classes:
        raise OpenFlorenceError(f"none of the {len(samples)} images has a box to learn from")
    side = config.image_size or processor.image_size
    grid = grid_of(model.vision_tower, side)
    stretch_positions(model, grid_of(model.vision_tower, processor.image_size), grid)
    processor = replace(processor, image_size=side, image_seq_length=1 + grid[0] * grid[1])
    lessons = Lessons(samples, config, classes, side, grid, replay if config.replay else None, weights)

    tokenizer = processor.tokenizer
    locations = (tokenizer.location_start, tokenizer.location_count)
    shared = model.language_model.shared
    stage = stage_of(model, config)
    if config.lora is not None:
        add_lora(model, config.lora)
    else:
        smooth_locations(shared, *locations)
    heads = DenseHeads(box_heads(classes), model.config.vision.dims[-1]) if classes else None
    objective = SequenceObjective(model, locations, heads)
    watch = None if evaluate is None else lambda step: evaluate(model, processor)

    def batch_at(number: int) -> Batch:
        return lessons.batch(processor, number * distributed.world() + distributed.rank())

    Trainer(objective, stage, batch_at, folder, watch, best=config.best).run()
    fold_locations(shared)
    return model.eval(), processor


def class_names(samples: Sequence[Sample]) -> list[str]:
    """The labels of the samples' detections, most frequent first."""
    boxes = Counter(r.label for s in samples for a in s.annotations if a.task == "<OD>" for r in a.regions)
    return [label for label, _ in boxes.most_common()]


def stage_of(model: Florence, config: FinetuneConfig) -> TrainConfig:
    """The trainer's settings: warm-up, half of the steps constant, then a cosine to zero; softened locations."""
    small = sum(p.numel() for p in model.parameters()) < SMALL
    rate = config.learning_rate or (2e-4 if config.lora else 5e-4 if small else 1e-5)
    return TrainConfig(
        steps=config.steps,
        learning_rate=rate,
        muon_scale=2.0 if small and config.lora is None else 0.0,
        warmup=min(100, config.steps // 10),
        decay=config.steps // 2,
        dense_weight=0.5,
        dense_weight_end=0.1,
        sigma=4.0,
        sigma_end=2.0,
        sigma_steps=config.steps,
        seed=config.seed,
        evaluate_every=config.evaluate_every,
        save_every=200,
    )
