"""What the comparisons with other implementations share: weights that spread, a measure, timm without torchvision."""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(scope="session")
def spread() -> Callable[[nn.Module, int], None]:
    """Fill a model with weights under which positions, heads and tokens differ, so that a mistake anywhere shows.

    Freshly initialised weights are so small that many mistakes vanish in the residuals and norms.
    """

    def fill(model: nn.Module, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=draw)
                if parameter.ndim == 1:
                    centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                    parameter.copy_(centre + 0.2 * noise)
                elif "embed" in name or "shared" in name:
                    parameter.copy_(0.5 * noise)
                elif parameter[0].numel() == 9:  # depthwise: added to what comes in, so large ones would multiply up
                    parameter.copy_(0.1 * noise)
                else:
                    parameter.copy_(noise * parameter[0].numel() ** -0.5)
                if "channel" in name and "qkv" in name:
                    # Their products are summed over all cells: at full size the softmax would be all or nothing, and
                    # float32 itself 2e-4 wrong.
                    parameter[: 2 * len(parameter) // 3] *= 0.25
                elif "q_proj" in name or "k_proj" in name:
                    parameter *= 2  # attention that prefers some tokens
                elif "attn.out" in name:
                    parameter *= 0.25  # or six layers of averaging would make all positions alike

    return fill


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """The largest difference, as a part of the largest value of the reference, which must vary between positions."""

    def measure(ours: Tensor, reference: Tensor) -> float:
        assert ours.shape == reference.shape
        assert reference.std(-2).mean() > 0.02 * reference.abs().max()  # a constant would be no test
        return float((ours - reference).abs().max() / reference.abs().max())

    return measure


class Empty(type):
    """The type of classes that have every attribute, each its own name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class StandIn(types.ModuleType):
    """A module that has every name, each an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("_"):
            raise AttributeError(name)
        return Empty(name, (), {})


@pytest.fixture(scope="session")
def timm() -> Iterator[types.ModuleType]:
    """timm, whose image tower needs no torchvision although importing timm does."""
    parts = ("", ".transforms", ".transforms.functional", ".datasets", ".ops", ".ops.misc", ".utils")
    names = [f"torchvision{part}" for part in (*parts, ".models", ".models.feature_extraction")]
    absent = names if importlib.util.find_spec("torchvision") is None else []
    for name in absent:
        module = StandIn(name)
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield pytest.importorskip("timm")
    finally:
        for name in absent:
            del sys.modules[name]  # or transformers would believe that torchvision is there
