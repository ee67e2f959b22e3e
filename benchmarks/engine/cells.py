"""Thirty labelled images of blood cells: what does the engine make of the others?

python benchmarks/engine/cells.py BCCD --out runs/engine_cells --arm engine

BCCD is a folder of Pascal VOC files. A fifth of the images (the test part of `open-florence finetune`) is kept apart
from everything. Of the rest thirty keep their labels and the others' are hidden. Arms: "engine" runs rounds of the data
engine (twenty labelled images to learn from, ten for the audit); "few" trains on the thirty; "all" on every image's
human labels. All train for the same steps, with the same restarts. Judged: AP50 on the part kept apart, and the labels
that each makes of the hidden images, both with eight views.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import typer
from loop import objects

from open_florence.cli.finetune import read_labelled, split
from open_florence.data import read, write
from open_florence.data_engine.fusion.clusters import gather
from open_florence.evaluation import detection_ap
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model, save_model
from open_florence.inference.views import ViewPredictor
from open_florence.schema import Annotation, Sample
from open_florence.selection import region_score
from open_florence.training.augment import Augmentation
from open_florence.training.finetune import FinetuneConfig, finetune

TEACHING, AUDITED = 20, 10
CLASSES = ("RBC", "WBC", "Platelets")
LEAST = (0.0, 0.3, 0.5, 0.7)
"""Scores from which a label counts, as somebody would choose without knowing the truth."""
ENGINE = """\
images = ["images.txt"]
tasks = ["<OD>"]

[[specialist]]
name = "labels"
labels = "teaching.jsonl"

[[filter]]
name = "degenerate"

[[filter]]
name = "ontology"

[[filter]]
name = "nms"

[fusion]
audited = true

[train]
model = "tiny"
start = "last"
steps = {steps}
image_size = {side}
any_way_up = true
views = 8

[audit]
labels = "audited.jsonl"
images = {audited}
"""


def world(data: Path, seed: int) -> dict[str, list[Sample]]:
    """The parts: test, teaching, audited, hidden."""
    parts = split(read_labelled(data))
    rest = sorted([*parts["validation"], *parts["train"]], key=lambda sample: sample.id)
    random.Random(seed).shuffle(rest)
    few = TEACHING + AUDITED
    return {
        "test": parts["test"],
        "teaching": rest[:TEACHING],
        "audited": rest[TEACHING:few],
        "hidden": rest[few:],
    }


def look(checkpoint: Path, samples: Sequence[Sample]) -> list[Annotation]:
    """What the model finds, in eight views."""
    model, processor = load_model(checkpoint)
    predictor = ViewPredictor(Predictor(model, processor, "student", max_images=16), 8)
    return [answers[0] for answers in predictor.predict_batch([s.path for s in samples], ["<OD>"])]


def agreement(truth: Sequence[Sample], made: Sequence[Annotation], least: float = 0.0) -> dict[str, float]:
    """Precision, recall and F1 of labels against the hidden ones (IoU .5 and the class)."""
    right = said = there = 0
    for sample, annotation in zip(truth, made, strict=True):
        regions = [r for r in annotation.regions if region_score(r) >= least]
        there, said = there + len(objects(sample)), said + len(regions)
        for cluster in gather({"truth": objects(sample), "made": regions}):
            right += len({r.label for r in cluster.members.values()}) == 1 and len(cluster.members) == 2
    precision, recall = right / max(said, 1), right / max(there, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"precision": precision, "recall": recall, "f1": f1}


def ranks(truth: Sequence[Sample], found: Sequence[Annotation]) -> dict[str, object]:
    """AP50 with its interval, also by class."""
    table = detection_ap([objects(s) for s in truth], [a.regions for a in found])
    return {name or "all": [row.values["AP50"], row.intervals.get("AP50")] for name, row in table.items()}


def main(
    data: Path,
    out: Path = Path("runs/engine_cells"),
    arm: str = "engine",
    steps: int = 300,
    rounds: int = 3,
    side: int = 192,
    seed: int = 0,
) -> None:
    """One line a round in OUT/cells.jsonl; runs resume."""
    torch.set_num_threads(1)
    parts = world(data, seed)
    out.mkdir(parents=True, exist_ok=True)
    if arm == "engine":
        _engine(parts, out / "labels", steps, rounds, side)
    checkpoint: Path | None = None
    for number in range(1, rounds + 1):
        if arm == "engine":
            folder = out / "labels" / "rounds" / f"{number:03d}"
            checkpoint = folder / "checkpoint"
            exported = out / f"round-{number}.jsonl"
            _run("export", str(out / "labels"), "--round", str(number), "--format", "jsonl", "--out", str(exported))
            of_image = {sample.id: sample for sample in read(exported)}
            nothing = Annotation("<OD>")
            labels = [
                next(iter(of_image[s.id].annotations), nothing) if s.id in of_image else nothing
                for s in parts["hidden"]
            ]
        else:
            known = [*parts["teaching"], *parts["audited"], *(parts["hidden"] if arm == "all" else [])]
            checkpoint = _train(known, checkpoint, out / f"{arm}-{number}", steps, side)
            labels = look(checkpoint, parts["hidden"]) if arm == "few" else []
        record = {
            "arm": arm,
            "round": number,
            "labels": {str(least): agreement(parts["hidden"], labels, least) for least in LEAST if labels},
            "test": ranks(parts["test"], look(checkpoint, parts["test"])),
        }
        with (out / "cells.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)


def _train(known: Sequence[Sample], start: Path | None, folder: Path, steps: int, side: int) -> Path:
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "config.json").exists():
        model, processor = load_model(start or "tiny")
        augmentation = Augmentation(flip_vertical=True, transpose=True)
        config = FinetuneConfig(steps=steps, image_size=side, augmentation=augmentation)
        model, processor = finetune(model, processor, known, folder / "run", config)
        save_model(model, processor, checkpoint)
    return checkpoint


def _engine(parts: dict[str, list[Sample]], labels: Path, steps: int, rounds: int, side: int) -> None:
    """Begins the engine's folder where it is not there, and does what is left of the rounds."""
    labels.mkdir(parents=True, exist_ok=True)
    pool = [*parts["teaching"], *parts["audited"], *parts["hidden"]]
    (labels / "images.txt").write_text("".join(f"{sample.path}\n" for sample in pool))
    for name in ("teaching", "audited"):
        human = [replace(s, annotations=tuple(replace(a, source="human") for a in s.annotations)) for s in parts[name]]
        write(labels / f"{name}.jsonl", human)
    (labels / "ontology.toml").write_text("".join(f'[[class]]\nname = "{name}"\n' for name in CLASSES))
    (labels / "engine.toml").write_text(ENGINE.format(steps=steps, side=side, audited=AUDITED))
    done = len(list(labels.glob("rounds/*/manifest.json")))
    if done < rounds:
        _run("run", str(labels), "--rounds", str(rounds - done), "--force")


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "open_florence", "engine", *arguments], check=True)


if __name__ == "__main__":
    typer.run(main)
