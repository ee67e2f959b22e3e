"""What is each part of the engine worth, and what does human audit add? By labels alone: nothing more is trained.

python benchmarks/engine/parts.py --out runs/loop

For every seed that `loop.py` has run, the arms of that file make labels from the same three detectors and the same
model, that of the first round: with and without filters, fusion, the rates by class, and the model as a witness;
and with 10, 50 and 200 images judged by a person. All are judged on the same images, those that no person has judged in
any arm.
"""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

import torch
import typer
from loop import ARMS, SCENES, STEPS, fused, predict, quality, to_audit, train, world
from loop_table import interval
from noise import CLASSES, detectors

NAMES = ("engine", "no re-annotation", "no filters", "no fusion", "no guard", "audit 10", "audit 50", "audit 200")


def figures(seed: int, out: Path) -> dict[str, dict[str, float]]:
    """Arm -> precision, recall, F1, mean recall of the four rarest classes, recall of the rarest."""
    truth = world(seed * 10_000, 800, SCENES, out / "scenes")
    said = [[a] for a in [one[0] for one in detectors(truth, seed)[0].annotate(truth)]]
    for detector in detectors(truth, seed)[1:]:
        for heard, (annotation,) in zip(said, detector.annotate(truth), strict=True):
            heard.append(annotation)
    labels = fused(ARMS["engine"], said, truth, set())
    student = predict(train(labels, None, STEPS[0], seed, True, out / "checkpoints"), truth, "student@round-1")
    with_student = [[*a, student[k]] for k, a in enumerate(said)]
    audited = {
        name: to_audit(with_student, set(), ARMS[name].audited, random.Random(f"{name}-{seed}")) for name in NAMES
    }
    left = [k for k in range(len(truth)) if not any(k in chosen for chosen in audited.values())]
    found = {}
    for name in NAMES:
        arm = ARMS[name]
        made = fused(arm, with_student if arm.reannotate else said, truth, audited[name])
        judged = quality([truth[k] for k in left], [made[k] for k in left])
        recalls = judged["recalls"]
        found[name] = {
            "precision": judged["precision"],
            "recall": judged["recall"],
            "F1": judged["f1"],
            "recall, 4 rarest": statistics.mean(recalls[c] for c in CLASSES[-4:]),
            "recall, rarest": recalls[CLASSES[-1]],
        }
    return found


def main(out: Path = Path("runs/loop"), seeds: str = "0,1,2") -> None:
    """Prints the table; a seed's figures are kept in OUT/parts-SEED.json."""
    torch.set_num_threads(1)
    all_figures = []
    for seed in map(int, seeds.split(",")):
        file = out / f"parts-{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(figures(seed, out)))
        all_figures.append(json.loads(file.read_text()))
    columns = list(all_figures[0]["engine"])
    print("| arm | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for name in NAMES:
        print(f"| {name} | " + " | ".join(interval([one[name][c] for one in all_figures]) for c in columns) + " |")


if __name__ == "__main__":
    typer.run(main)
