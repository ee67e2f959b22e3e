"""`open-florence finetune`: a folder of labelled images and a checkpoint in, a checkpoint of your own out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from open_florence.cli.options import DeviceOption, ModelOption
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample

if TYPE_CHECKING:
    from open_florence.inference.predictor import Predictor
    from open_florence.model.florence import Florence
    from open_florence.processor import Processor
    from open_florence.training.batches import Example

SPLITS = {"test": 0.2, "validation": 0.1, "train": 0.7}
"""Shares of the images, chosen by content: the same image falls into the same part whatever else is in the folder."""

BEST = {
    "<OD>": "od_ap50",
    "<CAPTION>": "caption_cider",
    "<DETAILED_CAPTION>": "detailed_caption_cider",
    "<MORE_DETAILED_CAPTION>": "more_detailed_caption_cider",
    "<OCR>": "ocr_words",
    "<OCR_WITH_REGION>": "ocr_f1",
    "<REGION_TO_OCR>": "region_ocr_words",
    "<VQA>": "vqa",
    "<DENSE_REGION_CAPTION>": "dense_f1",
    "<REGION_PROPOSAL>": "proposal_recall",
    "<CAPTION_TO_PHRASE_GROUNDING>": "grounding",
    "<OPEN_VOCABULARY_DETECTION>": "ovd",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "res_miou",
    "<REGION_TO_SEGMENTATION>": "r2s_miou",
    "<REGION_TO_CATEGORY>": "region_category",
    "<REGION_TO_DESCRIPTION>": "region_description",
}
"""The figure of each task by which the best weights are kept: that of the first task asked for."""

SHOWN = 60
"""Images of the test part on the sample page."""


def finetune(
    data: Annotated[Path, typer.Argument(help="Labelled images in any format of `open-florence data`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the run and its checkpoint go; resumes if begun.")],
    model: ModelOption = "tiny",
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help='What to learn, as "OD,CAPTION"; OD unless given.')
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 1500,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images a step.")] = 6,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=32, help="Pixels a side; the checkpoint's own unless given.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak; chosen by the size of the model unless given.")
    ] = None,
    any_way_up: Annotated[
        bool, typer.Option("--any-way-up", help="Images have no up and down (microscope, aerial): flip and rotate.")
    ] = False,
    lora: Annotated[int | None, typer.Option("--lora", min=1, help="Train only LoRA adapters of this rank.")] = None,
    replay: Annotated[
        str | None, typer.Option("--replay", help='"scenes", or data as DATA, mixed in so that less is forgotten.')
    ] = None,
    replay_share: Annotated[float, typer.Option(help="Share of the replay in a batch.", min=0.05, max=0.9)] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Order of the images and their augmentation.")] = 0,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Random weights in the model's shape: what is pretraining worth?")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Fine-tune on your own images: keeps a test part aside, trains, keeps the best, ends with a table and a page."""
    from open_florence.data import write
    from open_florence.evaluation import evaluate
    from open_florence.inference.predictor import Predictor
    from open_florence.inference.pretrained import load_model, save_model
    from open_florence.tasks import find_task
    from open_florence.training.augment import Augmentation
    from open_florence.training.distributed import join
    from open_florence.training.finetune import FinetuneConfig
    from open_florence.training.finetune import finetune as train
    from open_florence.training.lora import LoraConfig, merge_lora, save_adapter

    tasks = tuple(find_task(name).token for value in task or ["OD"] for name in value.split(",") if name.strip())
    parts = split(read_labelled(data))
    rank, _ = join()
    if rank == 0:
        for name, samples in parts.items():
            write(out / f"{name}.jsonl", samples)
        print(", ".join(f"{len(samples)} {name}" for name, samples in parts.items()), "images")

    florence, processor = load_model(model, device=device)
    if from_scratch:
        florence = untrained(florence, seed)
    side = image_size or processor.image_size
    config = FinetuneConfig(
        tasks=tasks,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        image_size=image_size,
        augmentation=Augmentation(flip_vertical=any_way_up, transpose=any_way_up),
        lora=None if lora is None else LoraConfig(rank=lora, alpha=2.0 * lora),
        replay=replay_share if replay else 0.0,
        seed=seed,
        evaluate_every=max(1, steps // 5) if parts["validation"] else 0,
        best=BEST[tasks[0]] if parts["validation"] else None,
    )

    def look(model: Florence, processor: Processor) -> dict[str, float]:
        return evaluate(Predictor(model, processor), parts["validation"], progress=False, tasks=tasks).metrics

    source = replayed(replay, side) if replay else None
    tuned, processor = train(florence, processor, parts["train"], out / "run", config, look, source)
    if rank:
        return
    if config.lora is not None:
        save_adapter(tuned, out / "adapter", model, processor=processor)
        merge_lora(tuned)
    save_model(tuned, processor, out / "checkpoint")
    print(f"the checkpoint is in {out / 'checkpoint'}: open-florence annotate FOLDER --model {out / 'checkpoint'} ...")
    judge(Predictor(tuned, processor, out.name), parts["test"], tasks, out, views=8 if any_way_up else 1)


def judge(predictor: Predictor, samples: Sequence[Sample], tasks: Sequence[str], out: Path, views: int) -> None:
    """Prints and saves the table of the test part, and a page of its images; boxes by several views as well."""
    from rich.console import Console

    from open_florence.evaluation import evaluate
    from open_florence.inference.views import ViewPredictor

    if not samples:
        return
    report = evaluate(predictor, samples, tasks=tasks)
    Console().print(report)
    report.save(out / "test.md")
    if views > 1 and "<OD>" in tasks:
        agreed = evaluate(ViewPredictor(predictor, views), samples, tasks=["<OD>"])
        Console().print(agreed)
        agreed.save(out / f"test-{views}-views.md")
    sample_page(predictor, samples, tasks, out / "samples")


def read_labelled(data: Path) -> list[Sample]:
    """The samples of any format; what is left out is said on stderr. Raises OpenFlorenceError where there is none."""
    from open_florence.data import read

    problems: list[str] = []
    samples = list(read(data.absolute(), on_error=problems.append))
    for problem in problems:
        typer.echo(problem, err=True)
    if not samples:
        raise OpenFlorenceError(f"there is no labelled image to learn from in {data}")
    return samples


def split(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples by part of `SPLITS`, decided by the hash of each image's id."""
    parts: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for sample in samples:
        place = int(hashlib.sha256(sample.id.encode()).hexdigest()[:8], 16) / 16**8
        for name, share in SPLITS.items():
            if place < share or name == "train":
                parts[name].append(sample)
                break
            place -= share
    return parts


def untrained(model: Florence, seed: int) -> Florence:
    """A model of the same shape with random weights."""
    import torch

    from open_florence.model.florence import Florence

    torch.manual_seed(seed)
    return Florence(model.config).to(next(model.parameters()).device)


def replayed(source: str, side: int) -> Callable[[random.Random], Example]:
    """Draws examples of `side` x `side` pixels from scenes or from labelled images."""
    import numpy as np

    from open_florence.images import open_image
    from open_florence.training.augment import Augmentation
    from open_florence.training.batches import Example

    if source == "scenes":
        from open_florence.scenes import SceneConfig, make_scene

        def scene(rng: random.Random) -> Example:
            made = make_scene(rng.randrange(2**38), SceneConfig(size=side))
            return Example(made.image, made.sample.annotations)

        return scene
    samples = read_labelled(Path(source))
    view = Augmentation()

    def image(rng: random.Random) -> Example:
        sample = rng.choice(samples)
        picture, annotations = view(open_image(sample.path), sample.annotations, (side, side), rng, "light")
        return Example(np.asarray(picture), annotations)

    return image


def sample_page(predictor: Predictor, samples: Sequence[Sample], tasks: Sequence[str], folder: Path) -> None:
    """What the model says of some images beside what is true, as a page in `folder`/report; needs the extra `draw`."""
    from open_florence.data import write
    from open_florence.report import write_report

    shown = samples[:SHOWN]
    asked = [[a for a in sample.annotations if a.task in tasks] for sample in shown]
    requests: list[tuple[str, Any]] = [
        (sample.path, [(a.task, a.query) for a in some]) for sample, some in zip(shown, asked, strict=True)
    ]
    answers = predictor.predict_each(requests)
    both = [
        replace(sample, annotations=(*found, *some)) for sample, found, some in zip(shown, answers, asked, strict=True)
    ]
    write(folder / "annotations.jsonl", both)
    print(f"a page with {len(shown)} images of the test part: {write_report(folder)}")
