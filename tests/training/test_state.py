import os
from pathlib import Path

import pytest
import torch

from open_florence.training.state import load_tensors, write_durably


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    write_durably(path, lambda partial: partial.write_text("first"))

    def fails(partial: Path) -> None:
        partial.write_text("sec")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_durably(path, fails)
    assert path.read_text() == "first"
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (happened.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("replace"), replace(a, b)))
    write_durably(path, lambda partial: partial.write_text("second"))
    assert path.read_text() == "second"
    assert happened[:2] == ["fsync", "replace"], "on the disk before it takes the old one's place"
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_tensors_are_loaded_in_place_and_misfits_named() -> None:
    layer = torch.nn.Linear(2, 3)
    pointer = layer.weight.data_ptr()
    load_tensors(layer.state_dict(), {"weight": torch.ones(3, 2), "bias": torch.zeros(3)})
    assert (layer.weight == 1).all()
    assert layer.weight.data_ptr() == pointer
    with pytest.raises(KeyError, match="bias"):
        load_tensors(layer.state_dict(), {"weight": torch.ones(3, 2)})
    with pytest.raises(RuntimeError, match=r"weight has shape \(2, 2\), not \(3, 2\)"):
        load_tensors(layer.state_dict(), {"weight": torch.ones(2, 2), "bias": torch.zeros(3)})
