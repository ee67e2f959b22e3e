"""What is each aid of the recipe worth? The whole recipe against itself without one part.

python benchmarks/experiments/aids.py --out runs/experiments
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from world import TRANSFER, Run, calibrate, compare, learn, learn_to_see, measure, new_model

from open_florence.schema import Annotation, Region

FULL: dict[str, Any] = {"dense_weight": 0.2, "tower_scale": 0.3, "freeze_tower": 50}


def shuffled(annotation: Annotation, rng: random.Random) -> Annotation:
    """Objects in any order instead of left to right."""
    if annotation.task not in ("<OD>",):
        return annotation
    return replace(annotation, regions=tuple(rng.sample(annotation.regions, len(annotation.regions))))


def jittered(annotation: Annotation, rng: random.Random) -> Annotation:
    """Boxes whose corners are off by up to 2 % of the image (1.3 pixels) either way."""

    def moved(region: Region) -> Region:
        parts = tuple(
            tuple(tuple(min(64.0, max(0.0, v + rng.uniform(-1.3, 1.3))) for v in p) for p in part)
            for part in region.parts
        )
        return replace(region, parts=parts)

    if annotation.task not in ("<OD>", "<CAPTION_TO_PHRASE_GROUNDING>"):
        return annotation
    return replace(annotation, regions=tuple(moved(r) for r in annotation.regions))


def main(out: Path = Path("runs/experiments"), seeds: int = 1, dense: int = 300, steps: int = 500) -> None:
    """One line a run in OUT/aids.jsonl; started again, finished runs are kept."""

    def arm(
        see: bool = True, calibrated: bool = True, muon: float = 2.0, **changes: Any
    ) -> Callable[[int, Path], dict[str, float]]:
        def run(seed: int, folder: Path) -> dict[str, float]:
            model, _ = new_model(seed)
            heads = learn_to_see(model, folder, dense, seed, muon) if see else None
            if calibrated:
                calibrate(model, seed)
            settings = FULL | ({} if see else {"dense_weight": 0.0, "tower_scale": 1.0, "freeze_tower": 0}) | changes
            learn(model, Run(steps, TRANSFER, seed=seed, muon=muon, **settings), folder, heads)
            return measure(model)

        return run

    arms = {
        "whole recipe": arm(),
        "without the dense stage": arm(see=False),
        "plain table and hard targets": arm(smooth=False, sigma=0.0, sigma_end=0.0),
        "AdamW instead of Muon": arm(muon=0.0),
        "objects in random order": arm(change=shuffled),
        "tower frozen throughout": arm(freeze_tower=10**9, dense_weight=0.0),
        "boxes with noise": arm(change=jittered),
        "without the calibrated projector": arm(calibrated=False),
        "one target an image (4 x the images)": arm(targets=1, batch=96),
        "plain location table": arm(smooth=False),
        "hard location targets": arm(sigma=0.0, sigma_end=0.0),
        "tower not frozen at first, full rate": arm(tower_scale=1.0, freeze_tower=0),
        "no average of weights": arm(ema=0.0),
    }
    compare("aids", arms, range(seeds), out)


if __name__ == "__main__":
    typer.run(main)
