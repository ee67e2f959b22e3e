"""How the vision tower starts: random, contrastively pretrained, or by the dense stage; moving or frozen (Table 12).

    python benchmarks/experiments/initialisation.py --out runs/experiments

Each start gets the same number of images; then one joint training on the four tasks from a random language model.
"""

import random
from pathlib import Path

import torch
import typer
from world import TRANSFER, Run, calibrate, compare, examples, learn, learn_to_see, measure, new_model, processor_for

from open_florence.model.embedding import DualEncoder
from open_florence.model.florence import Florence
from open_florence.training.config import TrainConfig
from open_florence.training.contrastive import ContrastiveBatch, ContrastiveObjective, contrastive_batch, init_from
from open_florence.training.trainer import Trainer

FROZEN = 10**9
"""Steps without a moving tower: all."""


def main(out: Path = Path("runs/experiments"), seeds: int = 2, first: int = 300, steps: int = 500) -> None:
    """One line a run in OUT/initialisation.jsonl; started again, finished runs are kept."""

    def arm(start: str, frozen: bool = False):  # type: ignore[no-untyped-def]
        def run(seed: int, folder: Path) -> dict[str, float]:
            model, _ = new_model(seed)
            if start == "contrastive":
                learn_contrastively(model, folder, first, seed)
            elif start == "dense":
                learn_to_see(model, folder, first, seed)
            calibrate(model, seed)
            settings = {"freeze_tower": FROZEN} if frozen else {}
            learn(model, Run(steps, TRANSFER, seed=seed, **settings), folder)  # type: ignore[arg-type]
            return measure(model)

        return run

    arms = {
        "random": arm("random"),
        "contrastive": arm("contrastive"),
        "contrastive, frozen": arm("contrastive", frozen=True),
        "dense": arm("dense"),
    }
    compare("initialisation", arms, range(seeds), out)


def learn_contrastively(model: Florence, folder: Path, steps: int, seed: int) -> None:
    """The contrastive stage of the tower, in place, on scenes and their captions."""
    processor = processor_for(64)
    torch.manual_seed(seed)
    encoder = DualEncoder.from_florence(model, embedding_dim=96)

    def batch_at(step: int) -> ContrastiveBatch:
        seen = examples((seed + 1 << 32) + step * 16, 16, 64)
        return contrastive_batch(seen, processor, {"<DETAILED_CAPTION>": 1.0}, max_text=100, rng=random.Random(step))

    config = TrainConfig(
        steps, 1e-3, muon_scale=2.0, warmup=50, decay=steps // 4, seed=seed, ema=0.99, log_every=200, save_every=10**9
    )
    Trainer(ContrastiveObjective(encoder), config, batch_at, folder / "contrastive").run()  # type: ignore[arg-type]
    init_from(model, encoder)


if __name__ == "__main__":
    typer.run(main)
