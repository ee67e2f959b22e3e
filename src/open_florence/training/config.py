"""One stage of a run: every number that the trainer and the objectives are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from open_florence.errors import OpenFlorenceError

Precision = Literal["auto", "bf16", "float32"]
Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class TrainConfig:
    """One stage of a run."""

    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 0
    """Steps of the cosine to zero at the end; steps - warmup gives the paper's schedule."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    muon_scale: float = 0.0
    """Muon's learning rate for the matrices of the blocks as a multiple of `learning_rate`; 0 is AdamW for them too."""
    clip: float = 1.0
    ema: float = 0.998
    tower_scale: float = 1.0
    """Factor on the learning rate of the vision tower."""
    freeze_tower: int = 0
    """Steps during which the vision tower does not move: a language model that knows nothing would only harm it."""
    dense_weight: float = 1.0
    dense_weight_end: float = 1.0
    """Weight of the dense losses, going from the first figure to the second in a straight line."""
    word_weight: float = 0.3
    """Weight of the word heads' loss."""
    sigma: float = 0.0
    sigma_end: float = 0.0
    sigma_steps: int = 1
    """Width in bins of the soft location targets, going geometrically from `sigma` to `sigma_end` in `sigma_steps`."""
    seed: int = 0
    log_every: int = 50
    save_every: int = 500
    evaluate_every: int = 0
    accumulate: int = 1
    """Micro-batches of a step: their gradients are added up, and the loss is the mean over all of them."""
    layer_decay: float = 1.0
    """Factor on the learning rate for every block further from the top of its stack (BEiT, arXiv 2106.08254)."""
    freeze: tuple[str, ...] = ()
    """Names of parameters that stay as they are, * for anything: "vision_tower.*", "language_model.shared.*"."""
    checkpointing: bool = False
    """Keep only the input of every block and compute the rest again in the backward pass: less memory, more time."""
    drop_path: float | None = None
    """Stochastic depth of the tower's last block during the run, rising from 0 at the first; None: as the model has."""
    precision: Precision = "auto"
    """bf16: products in bfloat16, weights in float32. auto: bf16 where the device has it in hardware."""
    strategy: Strategy = "ddp"
    """Under several processes, ddp keeps everything in each, fsdp a share of weights, gradients and optimiser state."""

    def __post_init__(self) -> None:
        for name, choices in (("precision", get_args(Precision)), ("strategy", get_args(Strategy))):
            if getattr(self, name) not in choices:
                raise OpenFlorenceError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("steps", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise OpenFlorenceError(f"{name} is 1 or more, not {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise OpenFlorenceError(f"layer_decay is above 0 and at most 1, not {self.layer_decay}")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise OpenFlorenceError(f"drop_path is at least 0 and below 1, not {self.drop_path}")

    def bf16_on(self, device: torch.device) -> bool:
        """Whether products are computed in bfloat16 on a device."""
        if self.precision != "auto":
            return self.precision == "bf16"
        if device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
