"""`open-florence train`: a run of several stages, described by one TOML file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from open_florence.cli.finetune import read_labelled
from open_florence.cli.options import DeviceOption
from open_florence.schema import Sample

if TYPE_CHECKING:
    from open_florence.model.florence import Florence
    from open_florence.processor import Processor
    from open_florence.training.batches import Example
    from open_florence.training.plan import DataConfig, StageConfig
    from open_florence.training.run import Draw


def train(
    config: Annotated[Path, typer.Argument(help="The run as a TOML file; docs/train.md has one to start from.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the run and its checkpoint go; resumes if begun.")],
    device: DeviceOption = None,
) -> None:
    """Train in stages, each with its own image size, tasks, data, steps and learning rate, as a TOML file says."""
    from rich.console import Console

    from open_florence.evaluation import evaluate
    from open_florence.inference.predictor import Predictor
    from open_florence.inference.pretrained import load_model, save_model
    from open_florence.training.distributed import join
    from open_florence.training.plan import read_plan
    from open_florence.training.run import run_plan

    plan = read_plan(config)
    rank, _ = join()
    looking = plan.evaluation
    model, processor = load_model(plan.model, device=device)
    wanted = list(looking.tasks) or None

    def look(model: Florence, processor: Processor) -> dict[str, float]:
        predictor = Predictor(model, processor)
        return evaluate(predictor, looking.data, limit=looking.limit, tasks=wanted, progress=False).metrics

    model, processor = run_plan(model, processor, plan, out, sources_of(plan.seed), look)
    if rank:
        return
    save_model(model, processor, out / "checkpoint")
    print(f"the checkpoint is in {out / 'checkpoint'}: open-florence evaluate --model {out / 'checkpoint'} ...")
    report = evaluate(Predictor(model, processor, out.name), looking.data, limit=looking.limit, tasks=wanted)
    Console().print(report)
    report.save(out / "evaluation.md")


def sources_of(seed: int):  # type: ignore[no-untyped-def]
    """What a plan's data become: scenes are made, files are read once and kept for the stages after."""
    read: dict[str, list[Sample]] = {}

    def source(data: DataConfig, stage: StageConfig, side: int, grid: tuple[int, int]) -> Draw:
        from open_florence.training.plan import SCENES

        if data.source == SCENES:
            return scenes(data, stage, side, grid)
        if data.source not in read:
            read[data.source] = read_labelled(Path(data.source))
        return labelled(read[data.source], data, stage, side, grid)

    return source


def scenes(data: DataConfig, stage: StageConfig, side: int, grid: tuple[int, int]) -> Draw:
    """Draws scenes never seen before; with labels for dense heads where the stage has them."""
    from dataclasses import replace

    from open_florence.scenes import TRAINING_SEEDS, dense_labels, make_scene
    from open_florence.training.batches import Example

    config = replace(data.scenes, size=side)
    dense = stage.dense_heads or stage.objective == "dense"

    def draw(rng: random.Random) -> Example:
        made = make_scene(rng.choice(TRAINING_SEEDS), config)
        return Example(made.image, made.sample.annotations, dense_labels(made, grid) if dense else {})

    return draw


def labelled(samples: list[Sample], data: DataConfig, stage: StageConfig, side: int, grid: tuple[int, int]) -> Draw:
    """Draws views of labelled images, with the annotations of the stage's tasks."""
    from dataclasses import replace

    from open_florence.errors import OpenFlorenceError
    from open_florence.training.augment import Augmentation
    from open_florence.training.finetune import FinetuneConfig, Lessons, class_names

    tasks = tuple(stage.mixture)
    usable = [sample for sample in samples if any(a.task in tasks for a in sample.annotations)]
    if not usable:
        raise OpenFlorenceError(f"stage {stage.name}: {data.source} has none of the stage's tasks, {', '.join(tasks)}")
    still = Augmentation(flip_horizontal=False, crop=(1.0, 1.0), brightness=0, contrast=0, colour=0, min_visible=0)
    moving = Augmentation(flip_vertical=data.any_way_up, transpose=data.any_way_up)
    config = FinetuneConfig(tasks=tasks, augmentation=moving if data.augment else still)
    lessons = Lessons(usable, config, class_names(usable), side, grid)
    return lambda rng: replace(lessons.example(rng), dense={})
