"""AdamW, and Muon for the matrices if asked, with parameter groups; one schedule: warm-up, constant, cosine to zero."""

from __future__ import annotations

import math

import torch
from torch import nn

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
) -> list[torch.optim.Optimizer]:
    """AdamW over all parameters, or Muon over the matrices of the blocks beside AdamW over the rest.

    Muon (Jordan et al. 2024) steps along the orthogonalised momentum of a matrix. `muon_scale` is its learning rate as
    a multiple of AdamW's `rate`, 0 is AdamW alone. Each group has "lr_scale", the factor on a schedule's rate.
    """
    matrices = {
        id(module.weight)
        for name, module in model.named_modules()
        if muon_scale and isinstance(module, nn.Linear) and not name.startswith(AIDS)
    }
    groups = parameter_groups(model, weight_decay, scales)
    optimizers: list[torch.optim.Optimizer] = []
    for chosen, factor in ((True, muon_scale), (False, 1.0)):
        picked: Groups = []
        for group in groups:
            parameters = [p for p in group["params"] if (id(p) in matrices) == chosen]  # type: ignore[attr-defined]
            if parameters:
                picked.append({**group, "params": parameters, "lr_scale": factor * group["lr_scale"]})  # type: ignore[operator]
        if picked and chosen:
            optimizers.append(torch.optim.Muon(picked, lr=rate, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
        elif picked:
            optimizers.append(torch.optim.AdamW(picked, lr=rate, betas=betas, fused=True))
    return optimizers


def parameter_groups(model: nn.Module, weight_decay: float, scales: dict[str, float]) -> Groups:
    """The parameters that are not frozen, grouped by learning-rate scale and by whether they decay.

    Matrices and kernels decay; biases, norms and embedding tables do not. `scales` maps a piece of a parameter's name
    ("vision_tower.") to the factor on the learning rate of the parameters that have it; the rest have factor 1.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = next((factor for piece, factor in scales.items() if piece in name), 1.0)
        decays = parameter.ndim >= 2 and id(parameter) not in embeddings
        groups.setdefault((scale, decays), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": weight_decay if decays else 0.0}
        for (scale, decays), parameters in groups.items()
    ]


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
