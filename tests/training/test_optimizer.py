import itertools

import pytest
import torch

from open_florence.errors import OpenFlorenceError
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.training.dense import DenseHeads
from open_florence.training.objectives import SequenceObjective
from open_florence.training.optimizer import Ema, depths, learning_rate, make_optimizers, parameter_groups


def test_the_learning_rate_warms_up_stays_and_decays() -> None:
    rates = [learning_rate(step, 1.0, warmup=10, steps=100, decay=40) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:60] == [1.0] * 51
    assert rates[80] == pytest.approx(0.5)
    assert rates[99] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[60:]))


def test_parameters_are_grouped_by_scale_and_decay(model: Florence) -> None:
    groups = parameter_groups(model, 0.05, {"vision_tower.": 0.3})
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    of = {id(p): g for g in groups for p in g["params"]}
    tower = model.vision_tower.convs[0].conv
    assert (of[id(tower.weight)]["lr_scale"], of[id(tower.weight)]["weight_decay"]) == (0.3, 0.05)
    assert (of[id(tower.bias)]["lr_scale"], of[id(tower.bias)]["weight_decay"]) == (0.3, 0.0)
    assert of[id(model.language_model.shared.weight)]["weight_decay"] == 0.0


def test_frozen_parameters_are_in_no_group(model: Florence) -> None:
    model.projector.requires_grad_(False)
    grouped = {id(p) for g in parameter_groups(model, 0.05, {}) for p in g["params"]}
    assert grouped == {id(p) for p in model.parameters()} - {id(p) for p in model.projector.parameters()}


def test_layers_decay_from_the_top_of_each_stack() -> None:
    with torch.device("meta"):
        base = Florence(PRESETS["base"])
    depth = {name: value for name, value in depths(n for n, _ in base.named_parameters()).items() if "bias" not in name}
    assert depth["vision_tower.blocks.3.0.channel_block.ffn.fc1.weight"] == 1
    assert depth["vision_tower.blocks.3.0.spatial_block.conv1.weight"] == 1
    assert depth["vision_tower.convs.3.conv.weight"] == 1, "a stage begins with its convolution"
    assert [depth[f"vision_tower.blocks.2.{i}.spatial_block.norm1.weight"] for i in range(9)] == list(range(10, 1, -1))
    assert depth["vision_tower.blocks.0.0.spatial_block.attn.qkv.weight"] == 12
    assert depth["vision_tower.convs.0.conv.weight"] == 13, "the first convolution stands below all blocks"
    for stack in ("encoder", "decoder"):
        found = [depth[f"language_model.{stack}.layers.{i}.self_attn.qkv.weight"] for i in range(6)]
        assert found == [6, 5, 4, 3, 2, 1]
        assert depth[f"language_model.{stack}.embedding.embed_positions.weight"] == 7
    assert depth["language_model.shared.weight"] == depth["projector.image_projection.weight"] == 0


def test_layer_decay_and_the_towers_scale_multiply(model: Florence) -> None:
    groups = parameter_groups(model, 0.05, {"vision_tower.": 0.3}, layer_decay=0.5)
    of = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    assert of[id(model.vision_tower.blocks[1][0].spatial_block.conv1.weight)] == pytest.approx(0.3 * 0.5)
    assert of[id(model.vision_tower.convs[0].conv.weight)] == pytest.approx(0.3 * 0.5**3)
    assert of[id(model.language_model.encoder.layers[0].ffn.fc1.weight)] == pytest.approx(0.5)
    assert of[id(model.language_model.shared.weight)] == 1.0


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest(model: Florence) -> None:
    objective = SequenceObjective(model, (0, 1), DenseHeads({"object": ("binary", 1)}, 32))
    muon, adamw = make_optimizers(objective, 1e-3, (0.9, 0.98), 0.05, {"vision_tower.": 0.3}, muon_scale=2.0)
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    names = {id(p): name for name, p in objective.named_parameters()}
    scales = {
        optimizer: {names[id(p)]: g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
        for optimizer in (muon, adamw)
    }
    assert not scales[muon].keys() & scales[adamw].keys()
    assert scales[muon].keys() | scales[adamw].keys() == set(names.values())
    assert scales[muon]["model.vision_tower.blocks.0.0.spatial_block.attn.qkv.weight"] == pytest.approx(0.6)
    assert scales[muon]["model.language_model.decoder.layers.0.cross_attn.kv.weight"] == 2.0
    assert scales[adamw]["model.vision_tower.blocks.0.0.spatial_block.conv1.weight"] == pytest.approx(0.3)
    for name in (
        "heads.layers.object.weight",
        "model.language_model.shared.weight",
        "model.language_model.encoder.embedding.embed_positions.weight",
        "model.projector.column_embeddings.weight",
        "model.vision_tower.convs.1.conv.weight",
        "model.language_model.encoder.layers.0.final_layer_norm.weight",
        "model.language_model.encoder.layers.0.ffn.fc1.bias",
    ):
        assert scales[adamw][name] > 0


def test_without_muon_it_is_adamw_alone(model: Florence) -> None:
    (adamw,) = make_optimizers(model, 1e-3, (0.9, 0.98), 0.05, {})
    assert isinstance(adamw, torch.optim.AdamW)
    assert sum(len(g["params"]) for g in adamw.param_groups) == len(list(model.parameters()))


def test_a_pytorch_without_muon_is_one_sentence(model: Florence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(OpenFlorenceError, match=r"muon_scale needs PyTorch 2\.9"):
        make_optimizers(model, 1e-3, (0.9, 0.98), 0.05, {}, muon_scale=2.0)
    make_optimizers(model, 1e-3, (0.9, 0.98), 0.05, {})


def test_the_average_swaps_in_and_out() -> None:
    layer = torch.nn.Linear(2, 2)
    ema = Ema(layer, 0.9)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    ema.update(layer, step=10_000)
    ema.swap(layer)
    assert torch.allclose(layer.weight, start + 0.1)
    ema.swap(layer)
    assert torch.allclose(layer.weight, start + 1.0)
