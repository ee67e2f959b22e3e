"""Trains the small model; run by torchrun in test_distributed.py, and by its tests in one process."""

import random
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
import conftest
from open_florence.training.batches import Batch, collate
from open_florence.training.config import TrainConfig
from open_florence.training.distributed import average_gradients, join
from open_florence.training.objectives import SequenceObjective
from open_florence.training.trainer import Trainer

EXACT = {"warmup": 1, "log_every": 1, "precision": "float32", "ema": 0.5}
SETTINGS = {
    "ddp": TrainConfig(steps=2, **EXACT),
    "fsdp": TrainConfig(steps=2, **EXACT, strategy="fsdp", checkpointing=True, evaluate_every=1),
    "muon": TrainConfig(steps=2, **EXACT, strategy="fsdp", muon_scale=1.0, freeze_tower=1),
    "resumed": TrainConfig(steps=2, **EXACT, strategy="fsdp", muon_scale=1.0),
}


def train(name: str, folder: Path, rank: int = 0, world: int = 1, steps: int = 0) -> Trainer:
    """Trains to the end, or `steps`, on the same three images a step, of which each process has a part."""
    processor = conftest.processor.__wrapped__()
    model = conftest.model.__wrapped__(processor)
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.0

    def batch_at(step: int) -> Batch:
        rng = random.Random(step)
        examples = [conftest._square(rng) for _ in range(3)]
        mine = examples if world == 1 else [examples[:1], examples[1:]][rank]  # unlike in tokens and in chunks
        mixture = {"<CAPTION>": 1.0, "<OD>": 1.0}
        shares = (1.0,) if rank == 0 else (0.5, 0.5)
        return collate(mine, processor, mixture, targets_per_image=2, max_target=60, rng=rng, chunk_shares=shares)

    def evaluate(step: int) -> dict[str, float]:
        return {"worse and worse": -step, "norm": sum(p.norm().item() for p in model.parameters())}

    config = SETTINGS[name]
    if steps:
        config = TrainConfig(**{**vars(config), "steps": steps})
    objective = SequenceObjective(model, (processor.tokenizer.location_start, processor.tokenizer.location_count))
    best = "worse and worse" if config.evaluate_every else None
    trainer = Trainer(objective, config, batch_at, folder / name, evaluate, best)
    trainer.run()
    torch.save(objective.state_dict(), folder / name / f"final{rank}.pt")
    return trainer


def gradients_of(rank: int) -> list[list[float] | None]:
    """Averaged gradients of three parameters: both processes have the first's, one the second's, none the third's."""
    parameters = torch.nn.ParameterList(torch.zeros(2) for _ in range(3))
    parameters[0].grad = torch.full((2,), 1.0 + rank)
    if rank == 1:
        parameters[1].grad = torch.ones(2)
    average_gradients(parameters)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank, world = join()
    torch.save(gradients_of(rank), folder / f"gradients{rank}.pt")
    for name in SETTINGS:
        train(name, folder, rank, world)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
