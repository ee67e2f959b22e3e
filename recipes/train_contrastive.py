"""Trains a tower and a text encoder on which texts belong to which scenes, and measures retrieval and zero-shot labels.

    python recipes/train_contrastive.py --out runs/contrastive        # a few minutes on one core
    open-florence embed photos --model runs/contrastive/checkpoint --text "a red circle"

The tower is that of `tiny`, on images of 80 pixels. Half of a batch are scenes with their captions; the other half are
scenes of one object, named by its shape, or by colour, texture and shape, in one of a few sentences. Killed and started
again with the same arguments, it goes on where it was. OUT/checkpoint gives embeddings; its tower can be the start of a
Florence-2 (`training.contrastive.init_from`).
"""

import random
from dataclasses import replace
from pathlib import Path

import torch
import typer
from rich.console import Console

from open_florence.evaluation.embedding import evaluate_retrieval, zero_shot_rows
from open_florence.evaluation.report import Report
from open_florence.inference.embedder import Embedder, save_embedder
from open_florence.model.config import PRESETS
from open_florence.model.embedding import DualEncoder
from open_florence.processor import Processor
from open_florence.scenes import HELDOUT_SEEDS, SceneConfig, corpus, make_scene
from open_florence.scenes.vocabulary import COLOURS, SHAPES
from open_florence.tasks.templates import TEMPLATES, fill
from open_florence.tokenizer import Tokenizer
from open_florence.training.batches import Example
from open_florence.training.config import TrainConfig
from open_florence.training.contrastive import ContrastiveBatch, ContrastiveObjective, contrastive_batch
from open_florence.training.run import without_dropout
from open_florence.training.trainer import Trainer

SINGLE = SceneConfig(max_objects=1, crowd=0.0, text=0.0)
"""One object and nothing else: what a class name can be about."""

MIXTURE = {"<DETAILED_CAPTION>": 2.0, "<CAPTION>": 1.0}
SINGLE_MIXTURE = {"<OD>": 1.0, "<DENSE_REGION_CAPTION>": 1.0}
"""What is said about ordinary scenes, and about those of one object: its shape, or its description."""

MAX_TEXT = 100
"""Tokens; the longest detailed caption of a crowd has about 80."""


def main(
    out: Path = Path("runs/contrastive"),
    steps: int = 340,
    batch_size: int = 128,
    image_size: int = 80,
    embedding_dim: int = 128,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Trains on endless scenes and prints R@1/5/10 and the accuracy of shapes and colours on held-out ones."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.train(sentences(), 600)
    processor = Processor(tokenizer, image_size=image_size)
    torch.manual_seed(seed)
    config = without_dropout(PRESETS["tiny"].with_vocabulary(len(tokenizer)))
    # Windows of 5 divide every grid of an 80-pixel image; those of 10 would be mostly padding. No weight knows them.
    model = DualEncoder(replace(config, vision=replace(config.vision, window=5)), embedding_dim)
    half = batch_size // 2

    def batch_at(step: int) -> ContrastiveBatch:
        first, rng = (seed << 32) + step * batch_size, random.Random((seed << 32) + step)
        examples = [example(first + i, SINGLE if i < half else SceneConfig()) for i in range(batch_size)]
        return contrastive_batch(examples, processor, MIXTURE | SINGLE_MIXTURE, max_text=MAX_TEXT, rng=rng)

    stage = TrainConfig(
        steps, learning_rate, muon_scale=2.0, warmup=40, decay=steps // 2, ema=0.98, seed=seed, log_every=20
    )
    Trainer(ContrastiveObjective(model), stage, batch_at, out / "run").run()
    save_embedder(model.eval(), processor, out / "checkpoint")
    report = measure(Embedder(model, processor, out.name))
    Console().print(report)
    report.save(out / "heldout.md")
    print(f"the checkpoint is in {out / 'checkpoint'}")


def sentences() -> list[str]:
    """What the tokenizer is trained on."""
    names = [fill(template, name) for template in TEMPLATES for name in (*SHAPES, *COLOURS)]
    return [*names * 10, *corpus(1000)]


def example(seed: int, config: SceneConfig) -> Example:
    """A scene with what may be said about it: names of objects only where there is one."""
    scene = make_scene(seed, config)
    wanted = SINGLE_MIXTURE if config is SINGLE else MIXTURE
    return Example(scene.image, tuple(a for a in scene.annotations if a.task in wanted))


def measure(embedder: Embedder) -> Report:
    """Retrieval by detailed captions on the 300 held-out scenes; shape and colour of 300 others of one object each.

    Zero-shot means that no classifier was trained; the words occur in the training's texts. None of those names a
    colour without a shape, so a colour's vector is the mean over sentences about all shapes.
    """
    retrieval = evaluate_retrieval(embedder, "scenes:heldout", task="<DETAILED_CAPTION>")
    scenes = [make_scene(seed, SINGLE) for seed in HELDOUT_SEEDS]
    images = embedder.images(scene.image for scene in scenes)  # (300, E)
    shapes = [scene.objects[0].name for scene in scenes]
    colours = [scene.objects[0].colour for scene in scenes]
    about_shapes = tuple(f"a {{}} {shape}" for shape in SHAPES)
    rows = [
        *retrieval.rows,
        *zero_shot_rows(images, shapes, embedder.classes(SHAPES), SHAPES, "shape", "zero-shot shape"),
        *zero_shot_rows(
            images, colours, embedder.classes(list(COLOURS), about_shapes), list(COLOURS), "colour", "zero-shot colour"
        ),
    ]
    return Report("held-out scenes", embedder.source, 2 * len(scenes), retrieval.seconds, tuple(rows))


if __name__ == "__main__":
    typer.run(main)
