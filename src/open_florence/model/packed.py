"""Matrix products on a CPU with the weights laid out once for its vector units, by oneDNN.

PyTorch's own float32 linear layers go through MKL, which is two to six times slower on AMD processors, and its
bfloat16 ones lay their weights out anew at every call. `pack` replaces the layers of a model that is only to answer:
the weights are no parameters any more, so it can be neither trained nor saved.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

ALIGNED = 16
"""Matrices with fewer rows or columns than this stay as they are: nothing is gained on them."""


class PackedLinear(nn.Module):
    """A linear layer whose weights stand in oneDNN's blocked order. CPU, float32 or bfloat16, no gradients."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight (out, in) and bias (out,), of which copies are made."""
        super().__init__()
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self._bias = None if bias is None else bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self._product(x, "none")

    def gelu(self, x: Tensor) -> Tensor:
        """GELU (exact) of `forward`, in the same pass."""
        return self._product(x, "gelu")

    def _product(self, x: Tensor, after: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, after, [], "none")  # type: ignore[no-any-return]


def pack(model: nn.Module, keep: Collection[nn.Module] = ()) -> None:
    """Replaces the linear layers inside `model`, but those to `keep`, where that is faster; see `packable`.

    A module that has a method `pack` does it itself.
    """
    for module in list(model.modules()):
        if module is not model and hasattr(module, "pack"):
            module.pack()  # type: ignore[operator]
            continue
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear and layer not in keep and packable(layer.weight):
                setattr(module, name, PackedLinear(layer.weight, layer.bias))


def packable(weight: Tensor) -> bool:
    """Whether oneDNN has a faster order for a weight (out, in): on a CPU, in a format that it computes in."""
    return weight.device.type == "cpu" and min(weight.shape) >= ALIGNED and _computes_in(weight.dtype)


def _computes_in(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has oneDNN's products, and the processor what they need."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def being_recorded() -> bool:
    """Whether the operations are written down for another engine, which shall have them plain and find its own ways."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) times the transpose of b (N, K) -> (M, N), float32 on a CPU, where oneDNN beats MKL on AMD processors.

    Both have to be contiguous: for other layouts oneDNN falls back to code that is a thousand times slower.
    """
    if not _computes_in(a.dtype):
        return a @ b.T
    return torch.ops.mkldnn._linear_pointwise(a.contiguous(), b.contiguous(), None, "none", [], "")  # type: ignore[no-any-return]


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """GELU (exact) of a linear layer: (..., in) -> (..., out)."""
    return layer.gelu(x) if isinstance(layer, PackedLinear) else nn.functional.gelu(layer(x))
