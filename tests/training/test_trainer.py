import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from open_florence.errors import OpenFlorenceError
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.config import TrainConfig
from open_florence.training.dense import DenseHeads
from open_florence.training.objectives import DenseObjective, SequenceObjective
from open_florence.training.trainer import PATIENCE, Trainer

MakeExample = Callable[[random.Random], Example]
BatchAt = Callable[[int], Batch]
MIXTURE = {"<CAPTION>": 1.0, "<OD>": 1.0}
EXACT = TrainConfig(steps=6, warmup=2, log_every=1, save_every=2, precision="float32", dense_weight_end=0.5)


@pytest.fixture
def batch_at(processor: Processor, square: MakeExample) -> BatchAt:
    def make(step: int) -> Batch:
        rng = random.Random(step)
        examples = [square(rng) for _ in range(4)]
        return collate(examples, processor, MIXTURE, targets_per_image=2, max_target=60, rng=rng)

    return make


@pytest.fixture
def objective(model: Florence, processor: Processor) -> SequenceObjective:
    locations = (processor.tokenizer.location_start, processor.tokenizer.location_count)
    torch.manual_seed(0)
    return SequenceObjective(model, locations, DenseHeads({"object": ("binary", 1)}, 32))


@pytest.fixture
def copied(objective: SequenceObjective) -> Callable[[], SequenceObjective]:
    """Makes objectives with the same first weights."""
    first = {name: tensor.clone() for name, tensor in objective.state_dict().items()}

    def make() -> SequenceObjective:
        heads = DenseHeads({"object": ("binary", 1)}, 32)
        same = SequenceObjective(Florence(objective.model.config), objective.locations, heads)
        same.load_state_dict(first)
        return same

    return make


def log_of(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The lines of a log, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images/s"} for line in lines]


def weights_of(objective: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_it_learns_where_the_square_is(objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path) -> None:
    config = TrainConfig(steps=150, learning_rate=3e-3, warmup=10, decay=50, sigma=10, sigma_end=3, sigma_steps=100)
    before = objective.losses(batch_at(10_000), 0, TrainConfig(steps=1))[1]["loss"]
    Trainer(objective, config, batch_at, tmp_path).run()
    after = objective.losses(batch_at(10_000), 0, TrainConfig(steps=1))[1]["loss"]
    assert after < 0.4 * before


def test_the_vision_stage_learns_the_dense_labels(model: Florence, batch_at: BatchAt, tmp_path: Path) -> None:
    objective = DenseObjective(model.vision_tower, DenseHeads({"object": ("binary", 1)}, 32))
    config = TrainConfig(steps=60, learning_rate=3e-3, warmup=5, decay=20)
    Trainer(objective, config, batch_at, tmp_path).run()
    assert objective.losses(batch_at(10_000), 0, config)[1]["object"] < 0.05


def test_the_frozen_tower_does_not_move(objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path) -> None:
    before = weights_of(objective.model)
    Trainer(objective, replace(EXACT, steps=3, freeze_tower=3, ema=0.0), batch_at, tmp_path).run()
    moved = {name for name, tensor in objective.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("vision_tower") for name in moved)
    assert any(name.startswith("language_model") for name in moved)


def test_what_is_frozen_by_name_stays_and_is_free_again_after_the_run(
    objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path
) -> None:
    before = weights_of(objective.model)
    objective.model.projector.requires_grad_(False)
    config = replace(EXACT, steps=2, freeze=("language_model.shared.*", "decoder.*"), ema=0.0)
    Trainer(objective, config, batch_at, tmp_path).run()
    stayed = {name for name, tensor in objective.model.named_parameters() if torch.equal(tensor, before[name])}
    frozen = ("language_model.shared.", "language_model.decoder.", "projector.")
    assert stayed == {name for name in before if name.startswith(frozen) and name != "projector.temporal"}
    assert all(p.requires_grad for p in objective.model.language_model.parameters())
    assert not any(p.requires_grad for p in objective.model.projector.parameters()), "it was frozen before the run"


def test_micro_batches_make_the_step_of_their_union(
    copied: Callable[[], SequenceObjective], processor: Processor, square: MakeExample, tmp_path: Path
) -> None:
    rng = random.Random(0)
    examples = [square(rng) for _ in range(3)]

    def batch_of(some: list[Example]) -> Batch:
        return collate(some, processor, MIXTURE, targets_per_image=2, max_target=60, rng=random.Random(0))

    parts = [batch_of(examples[:1]), batch_of(examples[1:])]
    whole, halves = copied(), copied()
    for objective in (whole, halves):
        objective.heads = None
        for module in objective.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.0
    config = replace(EXACT, steps=1, ema=0.0)
    one = Trainer(whole, config, lambda number: batch_of(examples), tmp_path / "one")
    two = Trainer(halves, replace(config, accumulate=2), lambda number: parts[number], tmp_path / "two")
    one.run()
    two.run()
    assert parts[0].pixel_values.shape != parts[1].pixel_values.shape, "a mean of means would be another number"
    assert log_of(tmp_path / "two")[0] == pytest.approx(log_of(tmp_path / "one")[0], rel=1e-5)
    for (name, a), b in zip(whole.named_parameters(), halves.parameters(), strict=True):
        assert a.grad is not None
        assert torch.allclose(a.grad, b.grad, atol=1e-5), name


def test_the_batches_of_a_step_are_numbered_on(objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path) -> None:
    asked: list[int] = []

    def watched(number: int) -> Batch:
        asked.append(number)
        return batch_at(number)

    Trainer(objective, replace(EXACT, steps=2, accumulate=3), watched, tmp_path).run()
    assert asked == list(range(6))


def test_what_was_dropped_is_counted_in_the_log(
    objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path
) -> None:
    config = replace(EXACT, steps=5, log_every=2)
    Trainer(objective, config, lambda number: replace(batch_at(number), dropped=3), tmp_path).run()
    assert [(line["step"], line["dropped"]) for line in log_of(tmp_path)] == [(2, 6), (4, 6), (5, 3)]
    assert {"loss", "<OD>", "<CAPTION>", "dense", "learning rate", "gradient norm"} < log_of(tmp_path)[0].keys()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_goes_on_as_if_nothing_had_happened(
    copied: Callable[[], SequenceObjective],
    batch_at: BatchAt,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: signal.Signals,
) -> None:
    config = replace(EXACT, log_every=4, save_every=5, evaluate_every=3, accumulate=2, drop_path=0.2)
    whole, broken = copied(), copied()

    def evaluate(step: int) -> dict[str, float]:
        return {"figure": step**0.5}

    Trainer(whole, config, batch_at, tmp_path / "whole", evaluate, "figure").run()

    def interrupted(number: int) -> Batch:
        if number == 6:
            os.kill(os.getpid(), how)
        return batch_at(number)

    with pytest.raises(KeyboardInterrupt):
        Trainer(broken, config, interrupted, tmp_path / "broken", evaluate, "figure").run()
    folder = tmp_path / "broken"
    said = f"stopped after step 4 of 6 and saved in {folder}: started again in the same way, it goes on from there\n"
    assert capsys.readouterr().out.endswith(said)
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "loss": 0.0}\n{"step": 6,')  # of a process that was killed
    resumed = copied()
    Trainer(resumed, config, batch_at, folder, evaluate, "figure").run()
    assert log_of(folder) == log_of(tmp_path / "whole")
    assert [line["step"] for line in log_of(folder)] == [3, 4, 6, 6]
    assert_equal(weights_of(resumed), weights_of(whole))
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "broken")]
    assert_equal(states[0]["objective"], states[1]["objective"])
    assert_equal(states[0]["ema"], states[1]["ema"])


def test_a_second_interrupt_does_not_wait(objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path) -> None:
    def twice(number: int) -> Batch:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        return batch_at(number)

    before = signal.getsignal(signal.SIGINT)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        Trainer(objective, EXACT, twice, tmp_path).run()
    assert time.perf_counter() - began < 5
    assert not (tmp_path / "state.pt").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_is_not_run_again(
    copied: Callable[[], SequenceObjective], batch_at: BatchAt, tmp_path: Path
) -> None:
    first, second = copied(), copied()
    Trainer(first, replace(EXACT, steps=2), batch_at, tmp_path).run()
    written = (tmp_path / "state.pt").stat().st_mtime_ns, log_of(tmp_path)
    Trainer(second, replace(EXACT, steps=2), batch_at, tmp_path).run()
    assert ((tmp_path / "state.pt").stat().st_mtime_ns, log_of(tmp_path)) == written
    assert_equal(weights_of(first), weights_of(second))


class Bursting(SequenceObjective):
    """Its loss is infinite in some steps."""

    bad: range

    def losses(self, batch: Batch, step: int, config: TrainConfig) -> tuple[torch.Tensor, dict[str, float]]:
        loss, figures = super().losses(batch, step, config)
        return (loss * float("inf"), figures | {"loss": float("inf")}) if step in self.bad else (loss, figures)


def test_a_step_that_burst_is_skipped_and_counted(model: Florence, batch_at: BatchAt, tmp_path: Path) -> None:
    objective = Bursting(model, (0, 1))
    objective.bad = range(1, 3)
    Trainer(objective, replace(EXACT, steps=5, log_every=5, ema=0.0), batch_at, tmp_path).run()
    (line,) = log_of(tmp_path)
    assert line["skipped"] == 2
    assert 0 < line["loss"] < 20
    assert all(p.isfinite().all() for p in objective.parameters())


def test_a_run_that_has_burst_stops_with_one_sentence(model: Florence, batch_at: BatchAt, tmp_path: Path) -> None:
    objective = Bursting(model, (0, 1))
    objective.bad = range(1, 100)
    sentence = f"not a number in {PATIENCE} steps in a row, up to step {PATIENCE + 1}: the learning rate 0.001 may be"
    with pytest.raises(OpenFlorenceError, match=sentence):
        Trainer(objective, replace(EXACT, steps=50), batch_at, tmp_path).run()


def test_the_best_averaged_weights_are_in_place_at_the_end(
    objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    figures = iter([0.2, 0.7, float("nan"), 0.7, 0.1])

    def evaluate(step: int) -> dict[str, float]:
        assert not objective.training
        seen.append(weights_of(objective))
        return {"od_ap50": next(figures)}

    config = replace(EXACT, steps=9, evaluate_every=2)
    Trainer(objective, config, batch_at, tmp_path, evaluate, best="od_ap50").run()
    assert [line["step"] for line in log_of(tmp_path) if "validation/od_ap50" in line] == [2, 4, 6, 8, 9]
    assert_equal(weights_of(objective), seen[1])
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert file.metadata() == {"step": "4", "od_ap50": "0.7"}
    assert (tmp_path / "best.safetensors").stat().st_mode & 0o777 == 0o644


def test_without_a_best_the_last_averaged_weights_are_in_place(
    objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path
) -> None:
    Trainer(objective, EXACT, batch_at, tmp_path).run()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert_equal({name: p.detach() for name, p in objective.named_parameters()}, state["ema"])
    assert not (tmp_path / "best.safetensors").exists()


def test_a_best_that_means_nothing_is_one_sentence(
    objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path
) -> None:
    with pytest.raises(OpenFlorenceError, match="can only be kept when the run is evaluated"):
        Trainer(objective, EXACT, batch_at, tmp_path, best="od_ap50")
    config = replace(EXACT, evaluate_every=1)
    trainer = Trainer(objective, config, batch_at, tmp_path, lambda step: {"a": 1.0, "b": 2.0}, best="c")
    with pytest.raises(OpenFlorenceError, match="the evaluation has no figure 'c', only a, b"):
        trainer.run()


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_state_that_is_none_is_one_sentence(
    objective: SequenceObjective, batch_at: BatchAt, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(OpenFlorenceError, match=r"state\.pt is no saved state: remove it to begin anew"):
        Trainer(objective, EXACT, batch_at, tmp_path).run()


def test_the_state_of_another_model_is_one_sentence(
    objective: SequenceObjective, model: Florence, batch_at: BatchAt, tmp_path: Path
) -> None:
    Trainer(objective, replace(EXACT, steps=1), batch_at, tmp_path).run()
    other = DenseObjective(model.vision_tower, DenseHeads({"object": ("binary", 1)}, 32))
    with pytest.raises(OpenFlorenceError, match=r"state of another model or stage \(.*\): take another folder"):
        Trainer(other, EXACT, batch_at, tmp_path).run()
    muon = replace(EXACT, muon_scale=1.0)
    with pytest.raises(OpenFlorenceError, match=r"state of another model or stage \(.*\): take another folder"):
        Trainer(objective, muon, batch_at, tmp_path).run()


RUN = """
import random, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
import conftest
from open_florence.training.batches import collate
from open_florence.training.config import TrainConfig
from open_florence.training.objectives import SequenceObjective
from open_florence.training.trainer import Trainer

torch.set_num_threads(1)
processor = conftest.processor.__wrapped__()
model = conftest.model.__wrapped__(processor)

def batch_at(step):
    rng = random.Random(step)
    examples = [conftest._square(rng) for _ in range(2)]
    mixture = {"<CAPTION>": 1.0, "<OD>": 1.0}
    return collate(examples, processor, mixture, targets_per_image=2, max_target=60, rng=rng)

config = TrainConfig(steps=40, save_every=3, log_every=1, warmup=5, precision="float32", evaluate_every=7)
locations = (processor.tokenizer.location_start, processor.tokenizer.location_count)
trainer = Trainer(SequenceObjective(model, locations), config, batch_at, Path(sys.argv[1]), lambda step: {"a": step})
trainer.run()
torch.save(model.state_dict(), Path(sys.argv[1]) / "final.pt")
"""


def test_killed_at_any_moment_and_resumed_it_writes_the_same_log_and_weights(tmp_path: Path) -> None:
    def start(folder: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", RUN, str(tmp_path / folder), str(Path(__file__).parent)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole")
    rng = random.Random(0)
    for around in (7, 22):
        killed = start("killed")
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.startswith(f"step {around}/"):
                time.sleep(rng.random() * 0.05)  # in the middle of a step, of a log line, of saving
                killed.send_signal(signal.SIGKILL)
                break
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
    resumed = start("killed")
    output, _ = resumed.communicate()
    whole.communicate()
    assert resumed.returncode == whole.returncode == 0
    first = int(output.split("/")[0].removeprefix("step "))
    assert first > 20, "it goes on from the last state saved"
    assert first % 3 == 1
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    assert_equal(torch.load(tmp_path / "killed" / "final.pt"), torch.load(tmp_path / "whole" / "final.pt"))
