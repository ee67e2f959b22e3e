"""One stage of a run: every number that the trainer and the objectives are told."""

from __future__ import annotations

from dataclasses import dataclass


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
