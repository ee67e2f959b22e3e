"""Fine-tuning a checkpoint on boxes with class names: what one folder of labelled images is enough for.

Every image teaches several tasks at once, all derived from the same boxes (detection, region proposal, open-vocabulary
detection, region to category), so the vision encoding of an image is paid for once and used four times.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region, Sample
from open_florence.training.augment import Augmentation, left_to_right
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.dense import DenseHeads, box_heads, cells_from_boxes, grid_of
from open_florence.training.locations import fold_locations, smooth_locations
from open_florence.training.trainer import SequenceObjective, TrainConfig, Trainer

DETECTION_MIXTURE = {
    "<OD>": 4.0,
    "<REGION_PROPOSAL>": 0.5,
    "<OPEN_VOCABULARY_DETECTION>": 1.0,
    "<REGION_TO_CATEGORY>": 1.0,
}


@dataclass(frozen=True)
class FinetuneConfig:
    """What a fine-tuning run may be told."""

    steps: int = 1500
    learning_rate: float = 5e-4
    batch_size: int = 6
    targets_per_image: int = 4
    image_size: int | None = None
    """Pixels a side; None keeps the checkpoint's. More sees smaller objects and costs time by the square."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    max_target: int = 300
    """Longest target in tokens; longer ones are left out and counted."""
    seed: int = 0
    evaluate_every: int = 0


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


def detection_of(sample: Sample) -> Annotation:
    """The sample's <OD> annotation; raises OpenFlorenceError naming the image when it has none."""
    for annotation in sample.annotations:
        if annotation.task == "<OD>":
            return replace(annotation, regions=left_to_right(annotation.regions))
    raise OpenFlorenceError(f"{sample.path} has no <OD> annotation to learn from")


def finetune_detection(
    model: Florence,
    processor: Processor,
    samples: Sequence[Sample],
    folder: Path,
    config: FinetuneConfig,
    evaluate: Callable[[Florence, Processor], Mapping[str, float]] | None = None,
) -> tuple[Florence, Processor]:
    """Fine-tunes `model` in place on the <OD> annotations of `samples` and returns it with the processor to use.

    The run's state and log go to `folder`; killed and called again, it goes on where it was. `evaluate(model,
    processor)` is called every `config.evaluate_every` steps with the averaged weights in place, its figures logged.
    Raises OpenFlorenceError when there is nothing to learn from.
    """
    classes = [label for label, _ in Counter(r.label for s in samples for r in detection_of(s).regions).most_common()]
    if not classes:
        raise OpenFlorenceError(f"none of the {len(samples)} samples has a box to learn from")
    side = config.image_size or processor.image_size
    grid = grid_of(model.vision_tower, side)
    processor = replace(processor, image_size=side, image_seq_length=1 + grid[0] * grid[1])

    def example(rng: random.Random) -> Example:
        sample = rng.choice(samples)
        image, detection = config.augmentation(open_image(sample.path), detection_of(sample), (side, side), rng)
        dense = cells_from_boxes(detection.regions, (float(side), float(side)), grid, classes)
        return Example(np.asarray(image), tasks_from_boxes(detection, classes, rng), dense)

    def batch_at(step: int) -> Batch:
        rng = random.Random(config.seed * 1_000_003 + step)
        examples = [example(rng) for _ in range(config.batch_size)]
        return collate(
            examples,
            processor,
            DETECTION_MIXTURE,
            targets_per_image=config.targets_per_image,
            max_target=config.max_target,
            rng=rng,
        )

    tokenizer = processor.tokenizer
    heads = DenseHeads(box_heads(classes), model.config.vision.dims[-1])
    shared = model.language_model.shared
    smooth_locations(shared, tokenizer.location_start, tokenizer.location_count)
    stage = TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        warmup=min(100, config.steps // 10),
        decay=config.steps // 2,
        dense_weight=0.5,
        dense_weight_end=0.1,
        sigma=6.0,
        sigma_end=2.0,
        sigma_steps=config.steps,
        seed=config.seed,
        evaluate_every=config.evaluate_every,
        save_every=200,
    )
    objective = SequenceObjective(model, (tokenizer.location_start, tokenizer.location_count), heads)
    watch = None if evaluate is None else lambda step: evaluate(model, processor)
    Trainer(objective, stage, batch_at, folder, watch).run()
    fold_locations(shared)
    return model.eval(), processor
