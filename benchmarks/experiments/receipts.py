"""Reading receipts: OCR with regions on tiles of scanned receipts, trained from `tiny` and judged by the letter.

    python benchmarks/experiments/receipts.py SROIE --out runs/experiments/receipts

SROIE is a folder with img/ and box/. All receipts are read and split by content (`open-florence finetune`'s split);
tiles of 192 x 96 px at their own size, with the text lines that lie whole in them, are the examples. A tile's true text
is its lines in reading order, and the answer's likewise; the character error rate is over all letters of the test part.
"""

from pathlib import Path

import typer
from PIL import Image
from rich.console import Console

from open_florence.cli.finetune import read_labelled, split
from open_florence.data import write
from open_florence.evaluation import evaluate
from open_florence.generation import GenerationConfig
from open_florence.images import image_id, open_image
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model, save_model
from open_florence.schema import Annotation, Sample
from open_florence.tiles import crop, tiles
from open_florence.training.augment import Augmentation
from open_florence.training.finetune import FinetuneConfig, finetune

TILE = (192, 96)
TASKS = ("<OCR_WITH_REGION>", "<OCR>")


def main(data: Path, out: Path = Path("runs/experiments/receipts"), steps: int = 1500, seed: int = 0) -> None:
    """Cuts the tiles, trains (resuming if begun), and prints the table of the test part."""
    parts = {
        name: [tile for sample in samples for tile in cut(sample, out / "tiles")]
        for name, samples in split(read_labelled(data)).items()
    }
    for name, samples in parts.items():
        write(out / f"{name}.jsonl", samples)
        letters = sum(len(a.text) for s in samples for a in s.annotations if a.task == "<OCR>")
        print(f"{name}: {len(samples)} tiles, {letters} letters")
    model, processor = load_model("tiny")
    config = FinetuneConfig(
        tasks=TASKS,
        steps=steps,
        batch_size=8,
        targets_per_image=2,
        image_size=192,
        augmentation=Augmentation(crop=(0.9, 1.0), min_visible=0.95),
        max_target=400,
        seed=seed,
    )
    model, processor = finetune(model, processor, parts["train"], out / "run", config)
    save_model(model, processor, out / "checkpoint")
    settings = GenerationConfig(max_new_tokens=400)
    for name in ("train", "test"):
        predictor = Predictor(model, processor, "receipts")
        report = evaluate(predictor, parts[name][:200], tasks=TASKS, generation=settings)
        Console(width=140).print(report)
        report.save(out / f"{name}.md")


def cut(sample: Sample, folder: Path) -> list[Sample]:
    """The tiles of a receipt that hold a line, written as PNG."""
    image = open_image(sample.path)
    found = next(a for a in sample.annotations if a.task == "<OCR_WITH_REGION>")
    made = []
    for number, window in enumerate(tiles(sample.size, TILE, overlap=0.3)):
        piece, annotation = crop(image, found, window)
        if not annotation.regions:
            continue
        path = folder / f"{Path(sample.path).stem}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        square = Image.new("RGB", (TILE[0], TILE[0]), "white")  # two tiles high, so that letters keep their shape
        square.paste(piece)
        square.save(path)
        text = Annotation("<OCR>", "\n".join(region.label for region in annotation.regions), source=annotation.source)
        size = (float(TILE[0]), float(TILE[0]))
        made.append(Sample(image_id(square), str(path.absolute()), size, (annotation, text)))
    return made


if __name__ == "__main__":
    typer.run(main)
