"""Two processes on the parts of a batch do what one process does on the whole: with copies, and with shares (FSDP2)."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from open_florence.errors import OpenFlorenceError
from open_florence.training.batches import Batch
from open_florence.training.distributed import average_gradients, gather, shard, total, whole, with_equal_chunks, world

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Number of processes -> the folder of all runs."""
    folders = {n: tmp_path_factory.mktemp(f"processes{n}") for n in (1, 2)}
    for name in script.SETTINGS:
        script.train(name, folders[1])
    script.train("resumed", folders[2], steps=1)  # begun by one process, to be finished by two
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run([*command, str(SCRIPT), str(folders[2])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 2/2") == 4, "one process writes the log"
    return folders


def log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images/s"} for line in lines]


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "state.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_have_the_losses_and_gradients_of_one(runs: dict[int, Path], name: str) -> None:
    one, two = (log(runs[n] / name) for n in (1, 2))
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)
    # What AdamW remembers is the mean of the gradients; the first step's is a tenth of it.
    ours, theirs = (state(runs[n] / name)["optimizers"][0]["state"] for n in (1, 2))
    assert ours.keys() == theirs.keys()
    for index in ours:
        assert torch.allclose(ours[index]["exp_avg"], theirs[index]["exp_avg"], atol=1e-5)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "muon", "resumed"])
def test_both_processes_end_with_the_same_plain_weights(runs: dict[int, Path], name: str) -> None:
    one = torch.load(runs[1] / name / "final0.pt")
    first, second = (torch.load(runs[2] / name / f"final{rank}.pt") for rank in range(2))
    assert all(type(tensor) is torch.Tensor and torch.equal(tensor, second[key]) for key, tensor in first.items())
    far = {key: float((tensor - one[key]).norm() / one[key].norm().clamp(min=0.1)) for key, tensor in first.items()}
    assert max(far.values()) < 0.01, far


def test_the_matrices_of_muon_may_be_in_shares(runs: dict[int, Path]) -> None:
    for name in ("muon", "resumed"):
        one, two = log(runs[1] / name)[-1], log(runs[2] / name)[-1]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4), "Muon itself computes in bfloat16"
        assert one["step"] == two["step"] == 2


def test_a_run_of_one_process_is_finished_by_two(runs: dict[int, Path]) -> None:
    assert [line["step"] for line in log(runs[2] / "resumed")] == [1, 2]
    assert log(runs[2] / "resumed")[0] == log(runs[1] / "resumed")[0]


def test_a_run_of_two_processes_is_continued_by_one(
    runs: dict[int, Path], script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in (1, 2):
        shutil.copytree(runs[n] / "fsdp", tmp_path / str(n) / "fsdp")
        script.train("fsdp", tmp_path / str(n), steps=3)
    one, two = (log(tmp_path / str(n) / "fsdp")[-2:] for n in (1, 2))
    assert [line["step"] for line in two] == [3, 3], "the losses, then the evaluation"
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)


def test_the_state_is_the_same_file_however_many_processes_wrote_it(runs: dict[int, Path]) -> None:
    def shapes(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: shapes(value) for key, value in tree.items() if key != "config"}
        if isinstance(tree, list | tuple):
            return [shapes(value) for value in tree]
        return (type(tree), tree.shape) if isinstance(tree, torch.Tensor) else type(tree)

    for name in ("ddp", "fsdp", "muon"):
        assert shapes(state(runs[1] / name)) == shapes(state(runs[2] / name))


def test_gradients_are_averaged_and_what_nobody_has_is_not_made_up(runs: dict[int, Path]) -> None:
    for rank in range(2):
        assert torch.load(runs[2] / f"gradients{rank}.pt") == [[1.5, 1.5], [0.5, 0.5], None]


def test_one_process_is_alone(square: Any, processor: Any) -> None:
    layer = torch.nn.Linear(2, 2)
    average_gradients(layer)
    assert layer.weight.grad is None
    assert (world(), total(2.5), gather("a"), whole({"a": [1]})) == (1, 2.5, ["a"], {"a": [1]})


def test_chunks_are_made_equal_by_empty_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_florence.training.distributed.gather", lambda count: [count, 2])
    batch = with_equal_chunks(Batch(torch.zeros(1, 3, 8, 8), (), {}))
    assert len(batch.chunks) == 2
    assert all(chunk.tasks == () and (chunk.labels == -100).all() for chunk in batch.chunks)
    full = replace(batch, chunks=batch.chunks * 2)
    assert with_equal_chunks(full) == full


def test_what_cannot_be_cut_into_shares_is_named() -> None:
    module = torch.nn.Module()
    module.scale = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(OpenFlorenceError, match="cannot cut scale, a single number, into shares"):
        shard(module)
