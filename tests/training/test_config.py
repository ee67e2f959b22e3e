from typing import Any

import pytest
import torch

from open_florence.errors import OpenFlorenceError
from open_florence.training.config import TrainConfig


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"strategy": "zero"}, "strategy is one of ddp, fsdp, not 'zero'"),
        ({"precision": "fp16"}, "precision is one of auto, bf16, float32, not 'fp16'"),
        ({"accumulate": 0}, "accumulate is 1 or more, not 0"),
        ({"layer_decay": 1.5}, "layer_decay is above 0 and at most 1, not 1.5"),
        ({"drop_path": 1.0}, "drop_path is at least 0 and below 1, not 1.0"),
    ],
)
def test_a_setting_that_means_nothing_is_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OpenFlorenceError) as error:
        TrainConfig(steps=1, **wrong)
    assert str(error.value) == sentence


def test_bfloat16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has})
        assert TrainConfig(steps=1).bf16_on(cpu) is has
        assert TrainConfig(steps=1, precision="bf16").bf16_on(cpu)
        assert not TrainConfig(steps=1, precision="float32").bf16_on(cpu)
    assert not TrainConfig(steps=1).bf16_on(torch.device("mps"))
