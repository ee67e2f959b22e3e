"""Plumbing on real photographs: 16 images learnt by heart with all their tasks. Proves nothing about others.

    python benchmarks/experiments/overfit.py COCO --out runs/experiments/overfit

COCO is a folder with images/, instances.json and captions.json. Kept are the first 16 photos with a caption and two to
eight objects; their tasks are one caption, detection, one mask a region asked about, and open-vocabulary detection,
region proposal and region to category, which follow from the boxes. What is reported is measured on these same images.
"""

from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console

from open_florence.cli.finetune import read_labelled
from open_florence.data import write
from open_florence.evaluation import evaluate
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model, save_model
from open_florence.schema import Annotation, Sample
from open_florence.training.augment import Augmentation, left_to_right
from open_florence.training.finetune import FinetuneConfig, finetune

TASKS = ("<OD>", "<CAPTION>", "<REGION_TO_SEGMENTATION>")
PHOTOS = 16


def main(data: Path, out: Path = Path("runs/experiments/overfit"), steps: int = 2000, seed: int = 0) -> None:
    """Trains (resuming if begun) and prints the table of the images trained on."""
    photos = [photo for sample in read_labelled(data) if (photo := lesson(sample)) is not None][:PHOTOS]
    write(out / "photos.jsonl", photos)
    model, processor = load_model("tiny")
    config = FinetuneConfig(
        tasks=TASKS,
        steps=steps,
        batch_size=8,
        targets_per_image=4,
        augmentation=Augmentation(
            flip_horizontal=False, crop=(1.0, 1.0), brightness=0.0, contrast=0.0, colour=0.0, min_visible=0.0
        ),
        seed=seed,
    )
    model, processor = finetune(model, processor, photos, out / "run", config)
    save_model(model, processor, out / "checkpoint")
    report = evaluate(Predictor(model, processor, "overfit"), photos, tasks=TASKS)
    Console(width=140).print(report)
    report.save(out / "photos.md")


def lesson(sample: Sample) -> Sample | None:
    """One caption, the boxes and a mask of a sample; None without photo or caption, or with too many or few objects."""
    caption = next((a for a in sample.annotations if a.task == "<CAPTION>"), None)
    found = next((a for a in sample.annotations if a.task == "<OD>"), None)
    mask = next((a for a in sample.annotations if a.task == "<REGION_TO_SEGMENTATION>"), None)
    if not Path(sample.path).is_file() or caption is None or found is None or mask is None:
        return None
    if not 2 <= len(found.regions) <= 8:
        return None
    boxes: Annotation = replace(found, regions=left_to_right(found.regions))
    return replace(sample, annotations=(boxes, caption, mask))


if __name__ == "__main__":
    typer.run(main)
