import random
from collections.abc import Callable

import pytest
import torch

from open_florence.errors import OpenFlorenceError
from open_florence.model.davit import Block
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.blocks import blocks, checkpointed, freeze, stochastic_depth
from open_florence.training.config import TrainConfig
from open_florence.training.objectives import SequenceObjective


@pytest.fixture
def batch(processor: Processor, square: Callable[[random.Random], Example]) -> Batch:
    rng = random.Random(0)
    examples = [square(rng) for _ in range(3)]
    weights = {"<CAPTION>": 1.0, "<OD>": 1.0}
    return collate(examples, processor, weights, targets_per_image=2, max_target=60, rng=rng)


def test_the_blocks_are_the_towers_pairs_and_the_language_models_layers(model: Florence) -> None:
    kinds = [type(block).__name__ for block in blocks(model)]
    assert kinds == ["DualBlock", "DualBlock", "EncoderLayer", "DecoderLayer"]


def test_names_are_frozen_by_pattern_wherever_the_model_stands(model: Florence) -> None:
    objective = SequenceObjective(model, (0, 1))
    objective.model.projector.requires_grad_(False)
    newly = freeze(objective, ("vision_tower.blocks.0.*", "shared.weight", "projector.*"))
    still = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "language_model.shared.weight" not in still
    assert not any(name.startswith(("vision_tower.blocks.0.", "projector.")) for name in still)
    assert "vision_tower.blocks.1.0.spatial_block.conv1.weight" in still
    assert not {id(p) for p in newly} & {id(p) for p in model.projector.parameters()}, "it was frozen before"


def test_a_pattern_that_matches_nothing_is_named(model: Florence) -> None:
    with pytest.raises(OpenFlorenceError, match=r"called 'vision_towers\.\*'; there are .*vision_tower\.blocks\.0\.\*"):
        freeze(model, ("projector.*", "vision_towers.*"))
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(OpenFlorenceError, match=r"nothing is left to train when \* is frozen"):
        freeze(model, ("*",))
    with pytest.raises(OpenFlorenceError, match="nothing is left to train when everything is frozen"):
        freeze(model.requires_grad_(False), ())


def test_checkpointing_gives_the_same_gradients_with_dropout(model: Florence, batch: Batch) -> None:
    objective = SequenceObjective(model.train(), (0, 1))
    for name, module in model.named_modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.1
        if isinstance(module, Block) and ".1." in name:
            module.drop_path = 0.3

    def gradients(active: bool) -> tuple[list[torch.Tensor], int]:
        kept = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(0)
        objective.zero_grad()
        with checkpointed(objective, active):
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss, _ = objective.losses(batch, 0, TrainConfig(steps=1))
            loss.backward()
        return [p.grad.clone() for p in objective.parameters() if p.grad is not None], kept

    plain, kept = gradients(False)
    again, kept_less = gradients(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert kept_less < 0.5 * kept


def test_checkpointing_is_over_when_the_run_is(model: Florence, batch: Batch) -> None:
    before = {block: block.forward for block in blocks(model)}
    with checkpointed(model, True), torch.no_grad():
        assert all("forward" in vars(block) for block in before)
        model.vision_tower(batch.pixel_values)
    assert all(block.forward == forward and "forward" not in vars(block) for block, forward in before.items())


def test_stochastic_depth_rises_to_the_rate_and_is_put_back(model: Florence) -> None:
    chain = [module for module in model.modules() if isinstance(module, Block)]
    chain[0].drop_path = 0.05
    with stochastic_depth(model, 0.3):
        assert [block.drop_path for block in chain] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [block.drop_path for block in chain] == [0.05, 0.0, 0.0, 0.0]
    with stochastic_depth(model, None):
        assert chain[0].drop_path == 0.05
