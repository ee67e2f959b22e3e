"""AdamW, and Muon for the matrices if asked, with parameter groups; one schedule: warm-up, constant, cosine to zero."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from open_florence.errors import OpenFlorenceError

AIDS = ("heads.", "words.")
"""Where names of the training-only heads begin: output layers, which Muon is not meant for."""

Groups = list[dict[str, object]]


def make_optimizers(
    model: nn.Module,
    rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    scales: dict[str, float],
    muon_scale: float = 0.0,
    layer_decay: float = 1.0,
) -> list[torch.optim.Optimizer]:
    """AdamW over all parameters, or Muon over the matrices of the blocks beside AdamW over the rest.

    Muon (Jordan et al. 2024) steps along the orthogonalised momentum of a matrix. `muon_scale` is its learning rate as
    a multiple of AdamW's `rate`, 0 is AdamW alone. Each group has "lr_scale", the factor on a schedule's rate. `scales`
    and `layer_decay` are those of `parameter_groups`. Raises OpenFlorenceError when this PyTorch has no Muon.
    """
    if muon_scale and not hasattr(torch.optim, "Muon"):
        raise OpenFlorenceError(f"muon_scale needs PyTorch 2.9, and this is {torch.__version__}: set it to 0 for AdamW")
    matrices = {
        id(module.weight)
        for name, module in model.named_modules()
        if muon_scale and isinstance(module, nn.Linear) and not name.startswith(AIDS)
    }
    groups = parameter_groups(model, weight_decay, scales, layer_decay)
    optimizers: list[torch.optim.Optimizer] = []
    for chosen, factor in ((True, muon_scale), (False, 1.0)):
        picked: Groups = []
        for group in groups:
            parameters = [p for p in group["params"] if (id(p) in matrices) == chosen]  # type: ignore[attr-defined]
            if parameters:
                picked.append({**group, "params": parameters, "lr_scale": factor * group["lr_scale"]})  # type: ignore[operator]
        if picked and chosen:
            muon = torch.optim.Muon(picked, lr=rate, momentum=0.95, adjust_lr_fn="match_rms_adamw")
            muon.register_step_pre_hook(_put_gradients_together)
            optimizers.append(muon)
        elif picked:
            optimizers.append(torch.optim.AdamW(picked, lr=rate, betas=betas, fused=True))
    return optimizers


def _put_gradients_together(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Under FSDP: the whole gradient of every matrix in every process, since a share has no orthogonal factor.

    Each process then takes the step of one process, and keeps its share of the result; the momentum stays whole.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if hasattr(parameter.grad, "full_tensor"):
                from torch.distributed.tensor import Replicate

                parameter.grad = parameter.grad.redistribute(placements=[Replicate()])


def parameter_groups(
    model: nn.Module, weight_decay: float, scales: dict[str, float], layer_decay: float = 1.0
) -> Groups:
    """The parameters that are not frozen, grouped by learning-rate scale and by whether they decay.

    Matrices and kernels decay; biases, norms and embedding tables do not. `scales` maps a piece of a parameter's name
    ("vision_tower.") to the factor on the learning rate of the parameters that have it; the rest have factor 1.
    `layer_decay` multiplies it once for every step down from the top (`depths`).
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    below = depths(name for name, _ in model.named_parameters())
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = next((factor for piece, factor in scales.items() if piece in name), 1.0)
        scale *= layer_decay ** below[name]
        decays = parameter.ndim >= 2 and id(parameter) not in embeddings
        groups.setdefault((scale, decays), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": weight_decay if decays else 0.0}
        for (scale, decays), parameters in groups.items()
    ]


LAYER = re.compile(r"(?:^|\.)(vision_tower\.blocks|encoder\.layers|decoder\.layers)\.(\d+)\.(?:(\d+)\.)?")
STEM = re.compile(r"(?:^|\.)(vision_tower)\.convs\.(\d+)\.|(?:^|\.)((?:en|de)coder)\.embedding\.")


def depths(names: Iterable[str]) -> dict[str, int]:
    """How far below the top each parameter stands, for the layer-wise decay of BEiT (arXiv 2106.08254, appendix).

    The tower, the encoder and the decoder are three stacks, each counted from its own top: 1 for the last block, one
    more for each before it. A stage's convolution counts as the stage's first block; the first convolution and the
    positions of the language model stand below all blocks. All else, the shared table too, which is also the output
    layer, has 0.
    """
    names = list(names)
    stacks: dict[str, list[tuple[int, int]]] = {}
    for name in names:
        if found := LAYER.search(name):
            place = int(found[2]), int(found[3] or 0)
            stack = stacks.setdefault(found[1], [])
            if place not in stack:
                stack.append(place)
    for stack in stacks.values():
        stack.sort()

    def depth(name: str) -> int:
        if found := LAYER.search(name):
            stack = stacks[found[1]]
            return len(stack) - stack.index((int(found[2]), int(found[3] or 0)))
        if found := STEM.search(name):
            stack = stacks.get(f"{found[1]}.blocks" if found[1] else f"{found[3]}.layers", [])
            stage = int(found[2] or 0)
            return len(stack) - stack.index((stage, 0)) if stage else len(stack) + 1
        return 0

    return {name: depth(name) for name in names}


def learning_rate(step: int, peak: float, warmup: int, steps: int, decay: int) -> float:
    """The rate at `step` (from 0) of `steps`: linear warm-up, then `peak`, then a cosine to zero over the last `decay`.

    With decay = steps - warmup it is the paper's schedule (warm-up and cosine); with a shorter one a run can be
    prolonged without having to repeat what came before the decay.
    """
    rate = peak * min(1.0, (step + 1) / max(warmup, 1))
    remaining = steps - step
    if remaining < decay:
        rate *= 0.5 * (1 - math.cos(math.pi * remaining / decay))
    return rate


class Ema:
    """An exponential moving average of those parameters of a model that were not frozen when it began."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the parameters; early steps count more, so that it does not remember the start."""
        weight = 1 - min(self.decay, (step + 1) / (step + 10))
        parameters = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.values.values()), [parameters[name].detach() for name in self.values], weight)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchanges the parameters and the average, in place; call it again to go back."""
        parameters = dict(model.named_parameters())
        for name, value in self.values.items():
            kept = parameters[name].detach().clone()
            parameters[name].copy_(value)
            value.copy_(kept)
