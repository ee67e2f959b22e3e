import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.dense import DenseHeads
from open_florence.training.optimizer import Ema, learning_rate, parameter_groups
from open_florence.training.trainer import DenseObjective, SequenceObjective, TrainConfig, Trainer

MakeExample = Callable[[random.Random], Example]


@pytest.fixture
def batch_at(processor: Processor, square: MakeExample) -> Callable[[int], Batch]:
    def make(step: int) -> Batch:
        rng = random.Random(step)
        examples = [square(rng) for _ in range(4)]
        mixture = {"<CAPTION>": 1.0, "<OD>": 1.0}
        return collate(examples, processor, mixture, targets_per_image=2, max_target=60, rng=rng)

    return make


def objective_of(model: Florence, processor: Processor) -> SequenceObjective:
    locations = (processor.tokenizer.location_start, processor.tokenizer.location_count)
    return SequenceObjective(model, locations, DenseHeads({"object": ("binary", 1)}, 32))


def test_the_loss_of_a_batch_is_cross_entropy_over_all_its_tokens(
    model: Florence, processor: Processor, batch_at: Callable[[int], Batch]
) -> None:
    batch = batch_at(0)
    loss, figures = objective_of(model, processor).losses(batch, 0, TrainConfig(steps=10, dense_weight=0))
    total, count = torch.zeros(()), 0
    for chunk in batch.chunks:
        for row in range(len(chunk.tasks)):
            labels = chunk.labels[row : row + 1, : int((chunk.labels[row] >= 0).sum())]
            length = int(chunk.attention_mask[row].sum())
            logits = model(
                batch.pixel_values[chunk.image_index[row]][None],
                chunk.input_ids[row : row + 1, :length],
                chunk.attention_mask[row : row + 1, :length],
                labels,
            )
            total = total - logits[0].log_softmax(-1)[range(labels.shape[1]), labels[0]].sum()
            count += labels.shape[1]
    assert figures["loss"] == pytest.approx(total.item() / count, rel=1e-4)
    assert loss.item() == pytest.approx(figures["loss"], rel=1e-4), "the dense losses have no weight here"


def test_it_learns_where_the_square_is(
    model: Florence, processor: Processor, batch_at: Callable[[int], Batch], tmp_path: Path
) -> None:
    config = TrainConfig(steps=150, learning_rate=3e-3, warmup=10, decay=50, sigma=10, sigma_end=3, sigma_steps=100)
    objective = objective_of(model, processor)
    before = objective.losses(batch_at(10_000), 0, TrainConfig(steps=1))[1]["loss"]
    Trainer(objective, config, batch_at, tmp_path).run()
    after = objective.losses(batch_at(10_000), 0, TrainConfig(steps=1))[1]["loss"]
    assert after < 0.4 * before


def test_the_frozen_tower_does_not_move(
    model: Florence, processor: Processor, batch_at: Callable[[int], Batch], tmp_path: Path
) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(steps=3, freeze_tower=3, weight_decay=0.0, ema=0.0)
    Trainer(objective_of(model, processor), config, batch_at, tmp_path).run()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not any(name.startswith("vision_tower") for name in moved)
    assert any(name.startswith("language_model") for name in moved)


def test_the_vision_stage_learns_the_dense_labels(
    model: Florence, batch_at: Callable[[int], Batch], tmp_path: Path
) -> None:
    objective = DenseObjective(model.vision_tower, DenseHeads({"object": ("binary", 1)}, 32))
    config = TrainConfig(steps=60, learning_rate=3e-3, warmup=5, decay=20)
    Trainer(objective, config, batch_at, tmp_path).run()
    assert objective.losses(batch_at(10_000), 0, config)[1]["object"] < 0.05


RUN = """
import random, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[3])
import conftest
from open_florence.training.batches import collate
from open_florence.training.trainer import SequenceObjective, TrainConfig, Trainer

torch.set_num_threads(1)
processor = conftest.processor.__wrapped__()
model = conftest.model.__wrapped__(processor)

def batch_at(step):
    rng = random.Random(step)
    examples = [conftest._square(rng) for _ in range(2)]
    mixture = {"<CAPTION>": 1.0, "<OD>": 1.0}
    return collate(examples, processor, mixture, targets_per_image=2, max_target=60, rng=rng)

config = TrainConfig(steps=int(sys.argv[2]), save_every=3, log_every=1, warmup=5)
locations = (processor.tokenizer.location_start, processor.tokenizer.location_count)
Trainer(SequenceObjective(model, locations), config, batch_at, Path(sys.argv[1])).run()
torch.save(model.state_dict(), Path(sys.argv[1]) / "final.pt")
"""


def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    def start(folder: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", RUN, str(tmp_path / folder), "40", str(Path(__file__).parent)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    whole.communicate()
    assert whole.returncode == 0
    killed = start("killed")
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("step 17/"):
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "final.pt").exists()
    resumed = start("killed")
    output, _ = resumed.communicate()
    assert resumed.returncode == 0
    assert output.startswith(("step 16/", "step 13/", "step 19/")), "it goes on from the last state saved"
    expected = torch.load(tmp_path / "whole" / "final.pt")
    weights = torch.load(tmp_path / "killed" / "final.pt")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


TWO = """
import random, sys
from pathlib import Path
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[2])
import conftest
from open_florence.training.batches import collate
from open_florence.training.trainer import SequenceObjective, TrainConfig, Trainer

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
processor = conftest.processor.__wrapped__()
model = conftest.model.__wrapped__(processor)

def batch_at(step):
    rng = random.Random(2 * step + rank)
    mixture = {"<CAPTION>": 1.0, "<OD>": 1.0}
    return collate([conftest._square(rng)], processor, mixture, targets_per_image=2, max_target=60, rng=rng)

objective = SequenceObjective(model, (processor.tokenizer.location_start, processor.tokenizer.location_count))
trainer = Trainer(objective, TrainConfig(steps=3, log_every=1), batch_at, Path(sys.argv[1]))
alone, _ = objective.losses(batch_at(0), 0, trainer.config)
gradients = torch.autograd.grad(alone, list(model.projector.parameters()))
trainer.run()
torch.save({"weights": model.state_dict(), "alone": gradients}, Path(sys.argv[1]) / f"rank{rank}.pt")
"""


def test_two_processes_learn_from_two_batches_and_stay_equal(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += [str(tmp_path / "two.py"), str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert not all(torch.equal(a, b) for a, b in zip(first["alone"], second["alone"], strict=True))
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert done.stdout.count("step 3/3") == 1, "one process writes the log"


def test_the_learning_rate_warms_up_stays_and_decays() -> None:
    rates = [learning_rate(step, 1.0, warmup=10, steps=100, decay=40) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:60] == [1.0] * 51
    assert rates[80] == pytest.approx(0.5)
    assert rates[99] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[60:]))


def test_parameters_are_grouped_by_scale_and_decay(model: Florence) -> None:
    groups = parameter_groups(model, 0.05, {"vision_tower.": 0.3})
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    of = {id(p): g for g in groups for p in g["params"]}
    tower = model.vision_tower.convs[0].conv
    assert (of[id(tower.weight)]["lr_scale"], of[id(tower.weight)]["weight_decay"]) == (0.3, 0.05)
    assert (of[id(tower.bias)]["lr_scale"], of[id(tower.bias)]["weight_decay"]) == (0.3, 0.0)
    assert of[id(model.language_model.shared.weight)]["weight_decay"] == 0.0


def test_the_average_swaps_in_and_out() -> None:
    layer = torch.nn.Linear(2, 2)
    ema = Ema(layer, 0.9)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    ema.update(layer, step=10_000)
    ema.swap(layer)
    assert torch.allclose(layer.weight, start + 0.1)
    ema.swap(layer)
    assert torch.allclose(layer.weight, start + 1.0)
