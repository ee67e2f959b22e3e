"""What does fine-tuning on one task cost the others, with and without replay?

    python benchmarks/experiments/forgetting.py BCCD --out runs/experiments

The shipped `tiny` is fine-tuned on detection of blood cells (a folder of Pascal VOC files). With replay, every other
image of a batch is a scene with all its tasks, as in pretraining; the cells get as many images a step in both arms.
Judged on scenes (`scenes:validation`) and on the validation part of the cells.
"""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer
from world import compare

from open_florence.cli.finetune import split
from open_florence.data import read
from open_florence.evaluation import evaluate
from open_florence.images import open_image
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model
from open_florence.processor import Processor
from open_florence.scenes import SceneConfig, make_scene
from open_florence.schema import Sample
from open_florence.training.augment import Augmentation
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.config import TrainConfig
from open_florence.training.finetune import class_names, tasks_from_boxes
from open_florence.training.locations import fold_locations, smooth_locations
from open_florence.training.objectives import SequenceObjective
from open_florence.training.trainer import Trainer

SCENE_TASKS = (
    "<OD>",
    "<CAPTION_TO_PHRASE_GROUNDING>",
    "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<REGION_TO_CATEGORY>",
    "<CAPTION>",
    "<VQA>",
)
ROWS = {
    "scenes AP50": "od_ap50",
    "grounding": "grounding",
    "segmentation mIoU": "res_miou",
    "region to category": "region_category",
    "caption F1": "caption_f1",
    "VQA": "vqa",
}
CELLS = 4
"""Images of cells a step."""


def main(data: Path, out: Path = Path("runs/experiments"), seeds: int = 2, steps: int = 200) -> None:
    """One line a run in OUT/forgetting.jsonl; started again, finished runs are kept."""
    parts = split(list(read(data, on_error=print)))
    classes = class_names(parts["train"])

    def cells(rng: random.Random, side: int) -> Example:
        sample: Sample = rng.choice(parts["train"])
        view = Augmentation(flip_vertical=True, transpose=True)
        image, (found,) = view(open_image(sample.path), sample.annotations, (side, side), rng)
        return Example(np.asarray(image), tasks_from_boxes(found, classes, rng))

    def judged(predictor: Predictor) -> dict[str, float]:
        scenes = evaluate(predictor, "scenes:validation", limit=64, progress=False, tasks=SCENE_TASKS).metrics
        found = evaluate(predictor, parts["validation"], progress=False, tasks=["<OD>"]).metrics
        return {name: scenes[key] for name, key in ROWS.items()} | {"cells AP50": found["od_ap50"]}

    def before(seed: int, folder: Path) -> dict[str, float]:
        return judged(Predictor.from_pretrained("tiny"))

    def tuned(replay: bool):  # type: ignore[no-untyped-def]
        def run(seed: int, folder: Path) -> dict[str, float]:
            model, processor = load_model("tiny")
            side = processor.image_size

            def batch_at(step: int) -> Batch:
                rng = random.Random((seed << 32) + step)
                seen = [cells(rng, side) for _ in range(CELLS)]
                if replay:
                    made = [make_scene(rng.randrange(2**38), SceneConfig(size=side)) for _ in range(CELLS)]
                    seen += [Example(scene.image, scene.sample.annotations) for scene in made]
                weights = dict.fromkeys({a.task for e in seen for a in e.annotations}, 1.0)
                return collate(seen, processor, weights, targets_per_image=4, max_target=300, rng=rng)

            train(model, processor, batch_at, folder, seed, steps)
            return judged(Predictor(model, processor))

        return run

    arms = {"before": before, "cells only": tuned(False), "cells and scenes (replay)": tuned(True)}
    compare("forgetting", arms, range(seeds), out)


def train(model, processor: Processor, batch_at, folder: Path, seed: int, steps: int) -> None:  # type: ignore[no-untyped-def]
    """Plain fine-tuning with soft location targets."""
    place = (processor.tokenizer.location_start, processor.tokenizer.location_count)
    smooth_locations(model.language_model.shared, *place)
    config = TrainConfig(
        steps, 3e-4, muon_scale=2.0, warmup=30, decay=steps // 2, ema=0.99, sigma=3.0, sigma_end=2.0, sigma_steps=steps
    )
    config = replace(config, seed=seed, save_every=10**9)
    Trainer(SequenceObjective(model, place), config, batch_at, folder).run()
    fold_locations(model.language_model.shared)


if __name__ == "__main__":
    typer.run(main)
