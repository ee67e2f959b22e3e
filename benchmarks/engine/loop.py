"""Does the loop improve labels, and does the model trained on them beat the same steps on the labels it began with?

python benchmarks/engine/loop.py --out runs/loop --seeds 3 --arms engine,raw,perfect

Scenes of 128 px with a long tail of twelve classes, labelled by three noisy detectors (`noise.py`), no human label. The
model starts from the shipped checkpoint, which knows the shapes and none of the names they go by here. An arm is a way
to make the labels of a round; all arms train for the same steps, from the same start. One line a round in
OUT/loop.jsonl; an arm that is finished is not run again.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import typer
from noise import CLASSES, NAMES, detectors
from PIL import Image

from open_florence.data_engine.audit.balance import image_weights
from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.fusion import Fusion, by_source, learn
from open_florence.data_engine.fusion.clusters import gather
from open_florence.evaluation import detection_ap
from open_florence.geometry import region_box
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model, save_model
from open_florence.inference.views import ViewPredictor
from open_florence.scenes import SceneConfig, make_scene
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import Selection
from open_florence.training.finetune import FinetuneConfig, finetune

SCENES = SceneConfig(size=128, zipf=1.5, text=0.0, crowd=0.0)
TEST = replace(SCENES, zipf=0.7)
"""Test scenes have more of the rare classes, so that their figures mean something."""
STEPS = (500, 300, 300, 300)
"""Steps of the four rounds."""


@dataclass(frozen=True)
class Arm:
    """A way to make the labels of a round."""

    labels: str = "fused"
    """"fused": what the sources agree on; "union": everything they say, duplicates suppressed; "one": what the first
    detector says; "perfect": the truth."""
    keep: float = 0.5
    """The least probability of being something; 0 filters nothing."""
    reannotate: bool = True
    """Whether the model's own predictions are one more source in the next round."""
    rare: bool = True
    """The guard of rare classes: rates of their own, and images that hold them drawn more often."""
    audited: int = 0
    """Images a person labels in every round, those the sources agree least on and as many at random."""


ARMS = {
    "engine": Arm(),
    "raw": Arm("one", reannotate=False, rare=False),
    "perfect": Arm("perfect", reannotate=False),
    "no re-annotation": Arm(reannotate=False),
    "no filters": Arm(keep=0.0),
    "no fusion": Arm("union"),
    "no guard": Arm(rare=False),
    "audit 10": Arm(audited=10),
    "audit 50": Arm(audited=50),
    "audit 200": Arm(audited=200),
}


def world(first: int, count: int, config: SceneConfig, folder: Path) -> list[Sample]:
    """Scenes on disk with their true boxes, under the names of this world."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for seed in range(first, first + count):
        scene = make_scene(seed, config)
        path = folder / f"{seed}.png"
        if not path.exists():
            Image.fromarray(scene.image).save(path)
        boxes = next(a for a in scene.sample.annotations if a.task == "<OD>").regions
        truth = Annotation("<OD>", regions=tuple(replace(r, label=NAMES[r.label]) for r in boxes), source="truth")
        samples.append(replace(scene.sample, path=str(path), annotations=(truth,)))
    return samples


def objects(sample: Sample) -> tuple[Region, ...]:
    """The regions of the <OD> annotation."""
    return next(a.regions for a in sample.annotations if a.task == "<OD>")


def fused(arm: Arm, said: Sequence[Sequence[Annotation]], truth: Sequence[Sample], audited: set[int]) -> list[Sample]:
    """The labels of a round, from what the sources said about each image."""
    if arm.labels == "perfect":
        return list(truth)
    if arm.labels == "one":
        return [replace(s, annotations=(a[0],)) for s, a in zip(truth, said, strict=True)]
    if arm.labels == "union":
        return [replace(s, annotations=(_union(a),)) for s, a in zip(truth, said, strict=True)]
    told = [objects(sample) if k in audited else None for k, sample in enumerate(truth)]
    fusion = Fusion(learn(said, truth=told, per_class=arm.rare), keep=arm.keep)
    labels = []
    for k, (sample, heard) in enumerate(zip(truth, said, strict=True)):
        candidates = [Candidate(str(n), a) for n, a in enumerate(heard)]
        kept = fusion(replace(sample, annotations=()), candidates)[0].annotation
        labels.append(sample if k in audited else replace(sample, annotations=(kept,)))
    return labels


def _union(annotations: Sequence[Annotation]) -> Annotation:
    """Everything that any source says with a score of .4 or more, duplicates of one class suppressed."""
    regions = tuple(region for a in annotations for region in a.regions)
    chosen, _ = Selection(threshold=0.4, nms=0.5).apply(Annotation("<OD>", regions=regions, source="union"))
    return replace(chosen, regions=tuple(sorted(chosen.regions, key=lambda r: r.parts[0])))


def to_audit(said: Sequence[Sequence[Annotation]], done: set[int], count: int, rng: random.Random) -> set[int]:
    """Images for a person to label: half those with the most boxes that not all sources see, half at random."""
    doubt = {}
    for k, heard in enumerate(said):
        clusters = gather(by_source(heard))
        doubt[k] = sum(len(c.members) < len(heard) for c in clusters)
    left = [k for k in doubt if k not in done]
    chosen = sorted(left, key=lambda k: -doubt[k])[: count // 2]
    rest = [k for k in left if k not in chosen]
    return {*chosen, *rng.sample(rest, min(count - len(chosen), len(rest)))}


def quality(truth: Sequence[Sample], labels: Sequence[Sample]) -> dict[str, object]:
    """Precision, recall, F1 (IoU .5 and the right class, one to one), mean IoU, and recall by class."""
    right = said = 0
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    overlaps: list[float] = []
    for true, made in zip(truth, labels, strict=True):
        a, b = objects(true), objects(made)
        said += len(b)
        there.update(r.label for r in a)
        for cluster in gather({"truth": a, "made": b}):
            if len(cluster.members) == 2:
                pair = cluster.members["truth"], cluster.members["made"]
                overlaps.append(_iou(*pair))
                if pair[0].label == pair[1].label and overlaps[-1] >= 0.5:
                    right += 1
                    found[pair[0].label] += 1
    precision, recall = right / max(said, 1), right / there.total()
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-9),
        "iou": sum(overlaps) / max(len(overlaps), 1),
        "recalls": {name: found[name] / max(there[name], 1) for name in CLASSES},
    }


def _iou(a: Region, b: Region) -> float:
    p, q = region_box(a.parts), region_box(b.parts)
    w, h = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
    both = max(w, 0.0) * max(h, 0.0)
    return float(both / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - both))


def train(labels: Sequence[Sample], start: Path | None, steps: int, seed: int, rare: bool, cache: Path) -> Path:
    """The checkpoint trained on the labels; one that was trained on just these before is taken from `cache`."""
    record = [[r.to_json() for r in objects(sample)] for sample in labels]
    text = json.dumps([record, str(start), steps, seed, rare])
    folder = cache / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / "checkpoint" / "config.json").exists():
        model, processor = load_model(start or "tiny")
        config = FinetuneConfig(
            steps=steps, batch_size=8, image_size=128, targets_per_image=2, seed=seed, learning_rate=5e-4
        )
        weights = image_weights(labels, 0.1) if rare else None
        model, processor = finetune(model, processor, labels, folder / "run", config, weights=weights)
        save_model(model, processor, folder / "checkpoint")
    return folder / "checkpoint"


def predict(checkpoint: Path, samples: Sequence[Sample], source: str) -> list[Annotation]:
    """What the model finds in two views of each image; names it has made up are outside the ontology."""
    model, processor = load_model(checkpoint)
    predictor = ViewPredictor(Predictor(model, processor, source, max_images=32, max_rows=64), 2)
    answers = [some[0] for some in predictor.predict_batch([s.path for s in samples], ["<OD>"])]
    return [replace(a, source=source, regions=tuple(r for r in a.regions if r.label in CLASSES)) for a in answers]


def test_ap(truth: Sequence[Sample], found: Sequence[Annotation]) -> dict[str, object]:
    """AP50 on the test scenes, also by class."""
    ranks = detection_ap([objects(s) for s in truth], [a.regions for a in found], intervals=False)
    return {
        "ap50": ranks[""].values["AP50"],
        "ap75": ranks[""].values["AP75"],
        "aps": {name: ranks[name].values["AP50"] for name in CLASSES if name in ranks},
    }


def run(name: str, seed: int, images: int, out: Path, rounds: int) -> None:
    """All rounds of one arm with one seed."""
    arm = ARMS[name]
    truth = world(seed * 10_000, images, SCENES, out / "scenes")
    test = world(2**40 + 70_000, 300, TEST, out / "test")
    said: list[list[Annotation]] = [[] for _ in truth]
    for detector in detectors(truth, seed):
        for heard, (annotation,) in zip(said, detector.annotate(truth), strict=True):
            heard.append(annotation)
    rng = random.Random(f"{name}-{seed}")
    audited: set[int] = set()
    checkpoint: Path | None = None
    student: list[Annotation] | None = None
    for number in range(1, rounds + 1):
        started = time.perf_counter()
        heard = [[*a, student[k]] if student and arm.reannotate else a for k, a in enumerate(said)]
        audited |= to_audit(heard, audited, arm.audited, rng) if arm.audited else set()
        labels = fused(arm, heard, truth, audited)
        checkpoint = train(labels, checkpoint, STEPS[number - 1], seed, arm.rare, out / "checkpoints")
        student = predict(checkpoint, truth, f"student@round-{number}")
        after = fused(arm, [[*a, student[k]] if arm.reannotate else a for k, a in enumerate(said)], truth, audited)
        record = {
            "arm": name,
            "seed": seed,
            "round": number,
            "seconds": time.perf_counter() - started,
            "trained_on": quality(truth, labels),
            "student": quality(truth, [replace(s, annotations=(a,)) for s, a in zip(truth, student, strict=True)]),
            "merged": quality(truth, after),
            "test": test_ap(test, predict(checkpoint, test, "student")),
            "audited": len(audited),
        }
        with (out / "loop.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        figures = {key: round(record[key]["f1"], 3) for key in ("trained_on", "student", "merged")}
        print(name, seed, number, figures, round(record["test"]["ap50"], 3), f"{record['seconds']:.0f} s", flush=True)


def main(
    out: Path = Path("runs/loop"),
    arms: str = "engine,raw,perfect",
    seeds: str = "0,1,2",
    images: int = 800,
    rounds: int = 4,
) -> None:
    """Runs what is not yet in OUT/loop.jsonl."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "loop.jsonl"
    for seed in map(int, seeds.split(",")):
        for name in arms.split(","):
            lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            if not any((r["arm"], r["seed"], r["round"]) == (name, seed, rounds) for r in lines):
                run(name, seed, images, out, rounds)


if __name__ == "__main__":
    typer.run(main)
