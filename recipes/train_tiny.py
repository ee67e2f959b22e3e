"""Trains the `tiny` checkpoint that ships in the package, from random weights, on scenes.

    python recipes/train_tiny.py --out runs/tiny
    torchrun --nproc-per-node 2 recipes/train_tiny.py --out runs/tiny      # two one-thread processes

Three steps: a byte-level BPE on the scenes' own texts, a vision-only stage with dense heads, then all tasks at once.
Killed and started again with the same arguments, it goes on where it was. What it leaves in OUT/checkpoint is a plain
Florence-2: the dense heads are gone and the smooth location table is folded into the embedding.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import typer

from open_florence.evaluation import evaluate
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import save_model
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.scenes import DENSE_HEADS, SceneConfig, corpus, dense_labels, make_scene
from open_florence.scenes.vocabulary import BACKGROUNDS, COLOURS, LEXICON, SHAPES, TEXTURES
from open_florence.tokenizer import Tokenizer
from open_florence.training.batches import Batch, Example, collate, dense_batch
from open_florence.training.calibrate import calibrate_projector
from open_florence.training.config import TrainConfig
from open_florence.training.dense import DenseHeads, grid_of
from open_florence.training.distributed import join
from open_florence.training.grounding import WordHeads
from open_florence.training.locations import fold_locations, smooth_locations
from open_florence.training.objectives import DenseObjective, SequenceObjective
from open_florence.training.run import without_dropout
from open_florence.training.trainer import Trainer

MIXTURE = {
    "<OD>": 1.5,
    "<CAPTION_TO_PHRASE_GROUNDING>": 1.2,
    "<OPEN_VOCABULARY_DETECTION>": 1.2,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 1.0,
    "<DENSE_REGION_CAPTION>": 1.0,
    "<OCR>": 0.9,
    "<OCR_WITH_REGION>": 0.9,
    "<REGION_TO_OCR>": 0.9,
    "<REGION_TO_SEGMENTATION>": 0.8,
    "<REGION_TO_CATEGORY>": 0.7,
    "<REGION_TO_DESCRIPTION>": 0.7,
    "<REGION_PROPOSAL>": 0.6,
    "<CAPTION>": 0.6,
    "<DETAILED_CAPTION>": 0.6,
    "<MORE_DETAILED_CAPTION>": 0.4,
    "<VQA>": 0.6,
}
"""The task mixture: how often each task is drawn, relative to the others."""

TARGETS_PER_IMAGE = 6
MAX_TARGET = 160


def main(
    out: Path = Path("runs/tiny"),
    dense_steps: int = 4000,
    steps: int = 5500,
    decay: int = 1800,
    dense_batch_size: int = 16,
    batch_size: int = 6,
    vocab: int = 1200,
    seed: int = 0,
    evaluate_every: int = 2000,
) -> None:
    """Trains `tiny`; `dense_steps` and `steps` are the lengths of the two stages, `decay` the end of the second."""
    torch.set_num_threads(1)
    rank, world = join()
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.train(corpus(4000), vocab)
    torch.manual_seed(seed)
    model = Florence(without_dropout(PRESETS["tiny"].with_vocabulary(len(tokenizer))))
    heads = DenseHeads(DENSE_HEADS, model.config.vision.dims[-1])
    side = model.config.image_size
    grid = grid_of(model.vision_tower, side)
    sequence_length = 1 + grid[0] * grid[1]
    processor = Processor(tokenizer, image_size=side, image_seq_length=sequence_length, location_window=25)
    scenes = SceneConfig(size=side)
    # Characters are the slowest to learn, and only the dense stage can teach them: more words, fewer objects.
    lettered = replace(scenes, text=1.0, words=(0.1, 0.2, 0.3, 0.4), max_objects=4)

    def examples(config: SceneConfig, first: int, step: int, count: int) -> list[Example]:
        first += (seed << 32) + (step * world + rank) * count
        made = [make_scene(first + i, config) for i in range(count)]
        return [Example(scene.image, scene.sample.annotations, dense_labels(scene, grid)) for scene in made]

    def dense_batch_at(step: int) -> Batch:
        return dense_batch(examples(lettered, 0, step, dense_batch_size), processor)

    def sequence_batch_at(step: int) -> Batch:
        return collate(
            examples(scenes, 1 << 36, step, batch_size),
            processor,
            MIXTURE,
            targets_per_image=TARGETS_PER_IMAGE,
            max_target=MAX_TARGET,
            rng=random.Random((seed << 32) + step * world + rank),
        )

    def look(step: int) -> dict[str, float]:
        return evaluate(Predictor(model, processor), "scenes:validation", limit=48, progress=False).metrics

    dense = TrainConfig(dense_steps, 2e-3, muon_scale=2.0, warmup=100, decay=dense_steps // 4, seed=seed)
    Trainer(DenseObjective(model.vision_tower, heads), dense, dense_batch_at, out / "dense").run()
    sequence = TrainConfig(
        steps,
        1e-3,
        muon_scale=2.0,
        warmup=300,
        decay=decay,
        tower_scale=0.3,
        freeze_tower=300,
        dense_weight=0.2,
        dense_weight_end=0.05,
        word_weight=0.05,
        sigma=10.0,
        sigma_end=2.5,
        sigma_steps=6000,
        seed=seed,
        evaluate_every=evaluate_every,
    )
    calibrate_projector(model, dense_batch_at(0).pixel_values)
    smooth_locations(model.language_model.shared, tokenizer.location_start, tokenizer.location_count)
    locations = (tokenizer.location_start, tokenizer.location_count)
    watch: Callable[[int], dict[str, float]] | None = look if evaluate_every else None
    words = WordHeads(scene_words(tokenizer), locations, model.config.text.d_model)
    objective = SequenceObjective(model, locations, heads, words)
    Trainer(objective, sequence, sequence_batch_at, out / "sequence", watch).run()
    fold_locations(model.language_model.shared)
    if rank == 0:
        save_model(model.eval(), processor, out / "checkpoint", layout="native", dtype=torch.float16)
        print(f"the checkpoint is in {out / 'checkpoint'}")


def scene_words(tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    """The word of every class of the dense labels, as it stands in an answer: at its start, and after a space."""
    classes = {
        "shape": SHAPES,
        "colour": tuple(COLOURS),
        "texture": TEXTURES,
        "word": LEXICON,
        "background_type": BACKGROUNDS,
        "background_colour": tuple(COLOURS),
    }

    def only_token(text: str) -> int:
        ids = tokenizer.encode(text, wrap=False)
        return ids[0] if len(ids) == 1 else -1

    return [
        (name, [only_token(space + word) for word in names]) for name, names in classes.items() for space in ("", " ")
    ]


if __name__ == "__main__":
    typer.run(main)
