"""A miniature of pretraining for experiments: small scenes, a small Florence-2, four measures, tables that resume.

Scenes of 64 x 64 px with one or two objects of twelve shapes and twelve colours, without words; a model of 1.5
million parameters. A run takes three to five minutes on one core, so an arm can have several seeds. What holds here is
a hint about the full size, no more.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from open_florence.evaluation import attribute_f1, detection_ap, grounding_accuracy, mask_miou, mask_overlaps
from open_florence.evaluation.intervals import Tally
from open_florence.evaluation.scenes import ATTRIBUTES
from open_florence.generation import GenerationConfig
from open_florence.inference.predictor import Predictor
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.scenes import DENSE_HEADS, SceneConfig, corpus, dense_labels, make_scene
from open_florence.schema import Annotation
from open_florence.tokenizer import Tokenizer
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.calibrate import calibrate_projector
from open_florence.training.config import TrainConfig
from open_florence.training.dense import DenseHeads
from open_florence.training.locations import fold_locations, smooth_locations
from open_florence.training.objectives import DenseObjective, SequenceObjective
from open_florence.training.plan import LEVELS, Level
from open_florence.training.trainer import Trainer

SCENES = SceneConfig(size=64, max_objects=2, occlusion=0.1, text=0.0, crowd=0.0, photometric=0.0, zipf=0.3)
TEST_SEEDS = range(2**40 + 1000, 2**40 + 1200)
"""Scenes that no run is trained on; the held-out set of the shipped checkpoint is another."""

TRANSFER = {
    "<CAPTION>": 1.0,
    "<OD>": 1.0,
    "<CAPTION_TO_PHRASE_GROUNDING>": 1.0,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 1.0,
}
"""The four tasks that the paper's ablations are judged by, learnt jointly."""

MEASURES = {
    "caption F1": "<CAPTION>",
    "detection AP50": "<OD>",
    "grounding@.5": "<CAPTION_TO_PHRASE_GROUNDING>",
    "segmentation mIoU": "<REFERRING_EXPRESSION_SEGMENTATION>",
}


def mixture(*levels: Level) -> dict[str, float]:
    """Every task of the levels, each level with the same weight."""
    return {task: 1.0 / len(LEVELS[level]) for level in levels for task in LEVELS[level]}


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer of all experiments, trained on the texts of scenes."""
    return Tokenizer.train(corpus(2000), 800)


def new_model(seed: int, side: int = 64) -> tuple[Florence, Processor]:
    """A model with random weights and its processor; (side / 8) x (side / 8) visual tokens."""
    torch.manual_seed(seed)
    vision = VisionConfig(
        dims=(32, 48, 64, 96),
        depths=(1, 1, 2, 1),
        heads=(1, 2, 2, 3),
        groups=(1, 2, 2, 3),
        projection_dim=96,
        window=8,
        patch_strides=(4, 2, 1, 1),
        drop_path=0.0,
    )
    text = TextConfig(2048, 96, 2, 2, encoder_heads=3, decoder_heads=3, encoder_ffn=384, decoder_ffn=384, init_std=0.05)
    text = replace(text, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    config = FlorenceConfig(vision, text, image_size=side).with_vocabulary(len(tokenizer()))
    return Florence(config), processor_for(side)


def processor_for(side: int) -> Processor:
    """The processor for images of this side."""
    return Processor(tokenizer(), image_size=side, image_seq_length=1 + (side // 8) ** 2)


@dataclass(frozen=True)
class Run:
    """One stage of training on fresh scenes."""

    steps: int
    mixture: Mapping[str, float]
    rate: float = 1.5e-3
    muon: float = 2.0
    batch: int = 24
    targets: int = 4
    side: int = 64
    seed: int = 0
    sigma: float = 25.0
    sigma_end: float = 3.0
    dense_weight: float = 0.0
    tower_scale: float = 1.0
    freeze_tower: int = 0
    smooth: bool = True
    ema: float = 0.99
    change: Callable[[Annotation, random.Random], Annotation] | None = None
    """What happens to each annotation before it is learnt: another prompt, another order."""


def examples(first: int, count: int, side: int, labels: bool = False) -> list[Example]:
    """Scenes from a seed on."""
    config = replace(SCENES, size=side)
    made = [make_scene(first + i, config) for i in range(count)]
    grid = (side // 8, side // 8)
    return [Example(s.image, s.sample.annotations, dense_labels(s, grid) if labels else {}) for s in made]


def learn_to_see(model: Florence, folder: Path, steps: int, seed: int, muon: float = 2.0) -> DenseHeads:
    """The dense vision stage; returns the heads, for the sequence stage to keep."""
    heads = DenseHeads(DENSE_HEADS, model.config.vision.dims[-1])
    processor = processor_for(64)

    def batch_at(step: int) -> Batch:
        seen = examples((seed + 1 << 32) + step * 16, 16, 64, labels=True)
        return collate(seen, processor, {}, targets_per_image=0, max_target=0, rng=random.Random(0))

    config = TrainConfig(
        steps, 2e-3, muon_scale=muon, warmup=50, decay=steps // 4, seed=seed, ema=0.99, log_every=200, save_every=10**9
    )
    Trainer(DenseObjective(model.vision_tower, heads), config, batch_at, folder / "dense").run()
    return heads


def learn(model: Florence, run: Run, folder: Path, heads: DenseHeads | None = None) -> None:
    """Trains the model in place on the sequences of fresh scenes; every run with one seed sees the same scenes."""
    processor = processor_for(run.side)

    def batch_at(step: int) -> Batch:
        rng = random.Random((run.seed << 32) + step)
        seen = examples((run.seed + 101 << 32) + step * run.batch, run.batch, run.side, labels=heads is not None)
        if run.change is not None:
            change = run.change
            seen = [replace(e, annotations=tuple(change(a, rng) for a in e.annotations)) for e in seen]
        return collate(seen, processor, run.mixture, targets_per_image=run.targets, max_target=160, rng=rng)

    place = tokenizer()
    if run.smooth:
        smooth_locations(model.language_model.shared, place.location_start, place.location_count)
    config = TrainConfig(
        run.steps,
        run.rate,
        muon_scale=run.muon,
        warmup=min(100, run.steps // 10),
        decay=run.steps // 2,
        ema=run.ema,
        tower_scale=run.tower_scale,
        freeze_tower=run.freeze_tower,
        dense_weight=run.dense_weight,
        dense_weight_end=run.dense_weight / 4,
        sigma=run.sigma,
        sigma_end=run.sigma_end,
        sigma_steps=run.steps,
        seed=run.seed,
        log_every=200,
        save_every=10**9,
    )
    objective = SequenceObjective(model, (place.location_start, place.location_count), heads)
    Trainer(objective, config, batch_at, folder / "sequence").run()
    fold_locations(model.language_model.shared)


def calibrate(model: Florence, seed: int) -> None:
    """Sets the projector from a few scenes (`training.calibrate`)."""
    pixels = collate(
        examples(seed + 7 << 32, 32, 64), processor_for(64), {}, targets_per_image=0, max_target=0, rng=random.Random(0)
    ).pixel_values
    calibrate_projector(model, pixels)


def measure(
    model: Florence, side: int = 64, ask: Callable[[Annotation], tuple[str, object]] | None = None, count: int = 200
) -> dict[str, float]:
    """`MEASURES` on the first test scenes, greedy; `ask` says how a question is put (its task and query otherwise)."""
    predictor = Predictor(model.eval(), processor_for(side), max_images=32, max_rows=128)
    asked: dict[str, list[tuple[Annotation, Annotation]]] = {task: [] for task in TRANSFER}
    config = replace(SCENES, size=side)
    for start in range(0, count, 32):
        made = [make_scene(seed, config) for seed in TEST_SEEDS[start : min(start + 32, count)]]
        questions = []
        for scene in made:
            of_task = {a.task: a for a in reversed(scene.sample.annotations)}  # the first of each task
            questions.append([of_task[task] for task in TRANSFER if task in of_task])
        requests = [
            (scene.image, [(a.task, a.query) if ask is None else ask(a) for a in some])
            for scene, some in zip(made, questions, strict=True)
        ]
        found = predictor.predict_each(requests, generation=GenerationConfig(max_new_tokens=80))  # type: ignore[arg-type]
        for some, answers in zip(questions, found, strict=True):
            for truth, answer in zip(some, answers, strict=True):
                asked[truth.task].append((truth, answer))
    model.train()
    return {name: _judge(task, asked[task], side) for name, task in MEASURES.items()}


def _judge(task: str, pairs: Sequence[tuple[Annotation, Annotation]], side: int) -> float:
    truth, found = [t for t, _ in pairs], [f for _, f in pairs]
    regions = [a.regions for a in truth], [a.regions for a in found]
    if task == "<OD>":
        return detection_ap(*regions, intervals=False)[""].values["AP50"]
    if task == "<CAPTION>":
        tally: Tally = attribute_f1([a.text for a in truth], [a.text for a in found], ATTRIBUTES)
    elif task == "<CAPTION_TO_PHRASE_GROUNDING>":
        tally = grounding_accuracy(*regions)
    else:
        tally = mask_miou(mask_overlaps(*regions, [(float(side), float(side))] * len(pairs)))
    return tally.value


Arm = Callable[[int, Path], dict[str, float]]
"""(seed, folder for its state) -> measures."""


def compare(name: str, arms: Mapping[str, Arm], seeds: Sequence[int], out: Path) -> None:
    """Runs every arm with every seed, one line of OUT/NAME.jsonl each, and prints the table; finished runs are kept."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in seeds:
        for arm, function in arms.items():
            if any(r["arm"] == arm and r["seed"] == seed for r in records):
                continue
            started = time.perf_counter()
            values = function(seed, out / name / f"{arm.replace(' ', '_').replace('/', '-')}-{seed}")
            record = {"arm": arm, "seed": seed, "seconds": time.perf_counter() - started, **values}
            records.append(record)
            with file.open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(f"{name}: {arm}, seed {seed}: {json.dumps(values)}", flush=True)
    print(table(records))


def table(records: Sequence[dict[str, object]]) -> str:
    """Mean over seeds, and half the width of the 95 % t interval of that mean, as Markdown."""
    names = [key for key in records[0] if key not in ("arm", "seed", "seconds")]
    lines = ["| arm | seeds | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    for arm in dict.fromkeys(str(r["arm"]) for r in records):
        own = [r for r in records if r["arm"] == arm]
        cells = [interval([float(r[n]) for r in own]) for n in names]  # type: ignore[arg-type]
        lines.append(f"| {arm} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> str:
    """Mean ± half width of the 95 % t interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    quantile = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}[len(values)]
    return f"{mean:.3f} ± {quantile * statistics.stdev(values) / math.sqrt(len(values)):.3f}"
