"""Does pretraining on several granularities help, as in the paper's figure 7 (section 4.4)?

    python benchmarks/experiments/granularity.py --out runs/experiments

Three mixtures (image-level only, + region, + pixel), the same scenes and number of targets, then one joint transfer to
caption, detection, grounding and segmentation. The language model starts from random weights; the tower, as the
paper's does, from a pretraining of its own (the dense stage, the same in all arms).
"""

from pathlib import Path

import typer
from world import TRANSFER, Level, Run, calibrate, compare, learn, learn_to_see, measure, mixture, new_model


def main(
    out: Path = Path("runs/experiments"), seeds: int = 2, see: int = 300, pretrain: int = 450, transfer: int = 150
) -> None:
    """One line a run in OUT/granularity.jsonl; started again, finished runs are kept."""

    def arm(*levels: Level):  # type: ignore[no-untyped-def]
        def run(seed: int, folder: Path) -> dict[str, float]:
            model, _ = new_model(seed)
            learn_to_see(model, folder, see, seed)
            calibrate(model, seed)
            start = Run(pretrain, mixture(*levels), seed=seed, tower_scale=0.3, freeze_tower=50)
            learn(model, start, folder / "pretrain")
            learn(model, Run(transfer, TRANSFER, seed=seed + 10, rate=1e-3, sigma=6.0), folder / "transfer")
            return measure(model)

        return run

    arms = {
        "image": arm("image"),
        "image + region": arm("image", "region"),
        "image + region + pixel": arm("image", "region", "pixel"),
    }
    compare("granularity", arms, range(seeds), out)


if __name__ == "__main__":
    typer.run(main)
