"""`open-florence finetune`: a folder of labelled images and a checkpoint in, a checkpoint of your own out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from open_florence.cli.options import DeviceOption, ModelOption
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample

if TYPE_CHECKING:
    from open_florence.model.florence import Florence
    from open_florence.processor import Processor

SPLITS = {"test": 0.2, "validation": 0.1, "train": 0.7}
"""Shares of the images, chosen by content: the same image falls into the same part whatever else is in the folder."""


def finetune(
    data: Annotated[Path, typer.Argument(help="A VOC folder, or a .jsonl file of ours, with <OD> annotations.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the run and its checkpoint go; resumes if begun.")],
    model: ModelOption = "tiny",
    task: Annotated[str, typer.Option("--task", "-t", help="What to learn; for now only OD.")] = "OD",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 1500,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images a step.")] = 6,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=32, help="Pixels a side; the checkpoint's own unless given.")
    ] = None,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")] = 5e-4,
    flip_vertical: Annotated[
        bool, typer.Option("--any-way-up", help="Images have no up and down (microscope, aerial): flip and rotate.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Order of the images and their augmentation.")] = 0,
    device: DeviceOption = None,
) -> None:
    """Fine-tune on your own boxes: splits off a test part, trains, and ends with a table on the test part."""
    from rich.console import Console

    from open_florence.data import read, write
    from open_florence.evaluation import evaluate
    from open_florence.inference.predictor import Predictor
    from open_florence.inference.pretrained import load_model, save_model
    from open_florence.tasks import find_task
    from open_florence.training.augment import Augmentation
    from open_florence.training.finetune import FinetuneConfig, finetune_detection

    if find_task(task).token != "<OD>":
        raise OpenFlorenceError(f"only <OD> can be fine-tuned from the command line, not {find_task(task).token}")
    problems: list[str] = []
    parts = split(list(read(data.absolute(), on_error=problems.append)))
    for problem in problems:
        typer.echo(problem, err=True)
    out.mkdir(parents=True, exist_ok=True)
    for name, samples in parts.items():
        write(out / f"{name}.jsonl", samples)
    print(", ".join(f"{len(samples)} {name}" for name, samples in parts.items()), "images")

    def look(model: Florence, processor: Processor) -> dict[str, float]:
        return evaluate(Predictor(model, processor), parts["validation"], progress=False, tasks=["<OD>"]).metrics

    config = FinetuneConfig(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        image_size=image_size,
        augmentation=Augmentation(flip_vertical=flip_vertical, transpose=flip_vertical),
        seed=seed,
        evaluate_every=max(1, steps // 4) if parts["validation"] else 0,
    )
    loaded: tuple[Any, Any] = load_model(model, device=device)
    tuned, processor = finetune_detection(*loaded, parts["train"], out / "run", config, look)
    save_model(tuned, processor, out / "checkpoint")
    print(f"the checkpoint is in {out / 'checkpoint'}: open-florence annotate FOLDER --model {out / 'checkpoint'} ...")
    if parts["test"]:
        report = evaluate(Predictor(tuned, processor, out.name), parts["test"], tasks=["<OD>"])
        Console().print(report)
        report.save(out / "test.md")


def split(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples by part of `SPLITS`, decided by the hash of each image's id. Raises OpenFlorenceError without any."""
    if not samples:
        raise OpenFlorenceError("there is no labelled image to learn from")
    parts: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for sample in samples:
        place = int(hashlib.sha256(sample.id.encode()).hexdigest()[:8], 16) / 16**8
        for name, share in SPLITS.items():
            if place < share or name == "train":
                parts[name].append(sample)
                break
            place -= share
    return parts
