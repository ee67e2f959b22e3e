"""LoRA on the small training model: silent at first, then trained alone, and the same when merged, saved and loaded."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.inference.pretrained import load_model, save_model
from open_florence.model.checkpoint import to_layout
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tasks import TASKS
from open_florence.training.batches import Batch, Example, collate
from open_florence.training.lora import (
    LoraConfig,
    LoraLinear,
    add_lora,
    lora_parameters,
    merge_lora,
    save_adapter,
)
from open_florence.training.optimizer import Ema, make_optimizers
from open_florence.training.trainer import SequenceObjective, TrainConfig, Trainer

MakeExample = Callable[[random.Random], Example]
WHOLE = LoraConfig(rank=4, alpha=8, dropout=0.0, token_rows=(40, 41))


@pytest.fixture
def answer() -> Callable[[Florence], Tensor]:
    """The logits of a few questions, by a model in evaluation mode."""
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 32, 32, generator=draw)
    ids = torch.randint(3, 60, (2, 6), generator=draw)
    labels = torch.randint(3, 60, (2, 5), generator=draw)

    def run(model: Florence) -> Tensor:
        with torch.inference_mode():
            return model.eval()(pixels, ids, torch.ones_like(ids), labels)

    return run


def shake(model: Florence, seed: int = 5) -> None:
    """Gives every adapter something to say."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora_parameters(model):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))


def train(model: Florence, processor: Processor, square: MakeExample, folder: Path, steps: int = 4) -> None:
    def batch_at(step: int) -> Batch:
        rng = random.Random(step)
        mixture = {"<CAPTION>": 1.0, "<OD>": 1.0}
        return collate([square(rng), square(rng)], processor, mixture, targets_per_image=2, max_target=60, rng=rng)

    objective = SequenceObjective(model, (processor.tokenizer.location_start, processor.tokenizer.location_count))
    Trainer(objective, TrainConfig(steps=steps, warmup=1, learning_rate=1e-2, ema=0.0), batch_at, folder).run()


def names_of(model: Florence) -> set[str]:
    return {f"{name}.{key}" for name, m in model.named_modules() if isinstance(m, LoraLinear) for key in m.rows}


def test_a_new_adapter_changes_nothing(model: Florence, answer: Callable[[Florence], Tensor]) -> None:
    before = answer(model)
    add_lora(model, WHOLE)
    assert torch.equal(answer(model), before)
    shake(model)
    assert not torch.allclose(answer(model), before, atol=1e-2)


def test_the_default_is_the_language_model_and_the_attention_of_the_tower(model: Florence) -> None:
    add_lora(model)
    names = names_of(model)
    layer = "language_model.decoder.layers.0"
    assert {name.removeprefix(f"{layer}.") for name in names if name.startswith(layer)} == {
        *("self_attn.qkv.q_proj", "self_attn.qkv.k_proj", "self_attn.qkv.v_proj", "self_attn.out.out_proj"),
        *("cross_attn.q.q_proj", "cross_attn.kv.k_proj", "cross_attn.kv.v_proj", "cross_attn.out.out_proj"),
        *("ffn.fc1.fc1", "ffn.fc2.fc2"),
    }
    tower = [name for name in names if name.startswith("vision_tower")]
    assert len(tower) == 2 * 2 * 2, "stages, blocks, and qkv and proj of each"
    assert all(".attn." in name for name in tower)
    assert not any("projector" in name or "lm_head" in name for name in names)


def test_only_adapters_and_named_rows_are_trained(
    model: Florence, processor: Processor, square: MakeExample, tmp_path: Path
) -> None:
    add_lora(model, replace(WHOLE, dropout=0.1))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for p in lora_parameters(model)} == {id(p) for p in model.parameters() if p.requires_grad}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, processor, square, tmp_path)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == trained
    assert all(".lora_A." in name or ".lora_B." in name or name.endswith("weight.0.rows") for name in trained)


def test_frozen_parameters_reach_neither_the_optimizer_nor_the_average(model: Florence) -> None:
    add_lora(model, WHOLE)
    ours = {id(p) for p in lora_parameters(model)}
    for muon_scale in (0.0, 1.0):
        optimizers = make_optimizers(model, 1e-3, (0.9, 0.98), 0.05, {"vision_tower.": 0.3}, muon_scale)
        assert {id(p) for o in optimizers for group in o.param_groups for p in group["params"]} == ours
    assert len(Ema(model, 0.9).values) == len(ours)


@pytest.mark.parametrize(("layout", "tied"), [("native", True), ("microsoft", True), ("native", False)])
@pytest.mark.parametrize("stabilised", [False, True])
def test_trained_merged_and_loaded_answer_alike(
    model: Florence,
    processor: Processor,
    square: MakeExample,
    answer: Callable[[Florence], Tensor],
    tmp_path: Path,
    layout: str,
    tied: bool,
    stabilised: bool,
) -> None:
    if not tied:
        model = Florence(replace(model.config, text=replace(model.config.text, tied=False)))
    base, folder = tmp_path / "base", tmp_path / "adapter"
    save_model(model, processor, base, layout)
    before = answer(model)
    add_lora(model, replace(WHOLE, rank_stabilised=stabilised))
    train(model, processor, square, tmp_path / "run")
    adapted = answer(model)
    assert (adapted - before).abs().max() > 1e-2
    save_adapter(model, folder, str(base), layout)
    merge_lora(model)
    assert not any("lora" in name or "parametrizations" in name for name in model.state_dict())
    assert all(p.requires_grad for p in model.parameters())
    loaded = answer(load_model(folder)[0])[..., : before.shape[-1]]  # a native file has rows that only pad
    for other in (answer(model), loaded):
        torch.testing.assert_close(other, adapted, rtol=1e-5, atol=1e-5)


def test_a_target_may_be_spelt_in_either_layout(model: Florence) -> None:
    spellings = (
        "vision_tower.blocks.1.0.channel_block.channel_attn.fn.qkv",
        "vision_tower.blocks.1.0.channel_block.channel_attn.qkv",
        "blocks.1.0.channel*.qkv",
    )
    for target in spellings:
        add_lora(model, LoraConfig(targets=(target,)))
        assert names_of(model) == {"vision_tower.blocks.1.0.channel_block.attn.qkv.qkv"}
        merge_lora(model)


def test_an_adapter_of_queries_changes_queries_alone(model: Florence) -> None:
    name = "language_model.encoder.layers.0.self_attn.qkv.weight"
    before = model.state_dict()[name].clone()
    add_lora(model, LoraConfig(targets=("self_attn.q_proj",)))
    shake(model)
    merge_lora(model)
    changed = (model.state_dict()[name] != before).any(1)
    assert changed[:32].all()
    assert not changed[32:].any()


def test_dropout_is_for_training_and_for_the_adapter_alone(model: Florence) -> None:
    add_lora(model, LoraConfig(targets=("fc1",), dropout=0.5))
    layer = model.language_model.encoder.layers[0].ffn.fc1
    assert isinstance(layer, LoraLinear)
    x = torch.randn(4, 32)
    assert torch.equal(layer.train()(x), layer.base(x)), "an adapter that says nothing leaves the layer undisturbed"
    shake(model)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("target", ["o_proj", "linear", "gate_proj", "lm_head", "image_projection", "proj_q", "conv"])
def test_a_target_that_names_nothing_is_an_error_that_says_what_exists(model: Florence, target: str) -> None:
    expected = (
        rf"called '{target}'; the language model has q_proj, k_proj, v_proj, out_proj, fc1, fc2 "
        r"and the image tower has qkv, proj, fc1, fc2"
    )
    with pytest.raises(OpenFlorenceError, match=expected):
        add_lora(model, LoraConfig(targets=("q_proj", target)))
    assert not names_of(model)
    assert all(p.requires_grad for p in model.parameters())


def test_the_file_has_the_published_names(model: Florence, tmp_path: Path) -> None:
    published = {
        layout: dict(to_layout(model.config, model.state_dict(), layout)) for layout in ("native", "microsoft")
    }
    add_lora(model, WHOLE)
    for layout, tensors in published.items():
        save_adapter(model, tmp_path / layout, "some/base", layout)
        record = json.loads((tmp_path / layout / "adapter_config.json").read_text())
        assert (record["peft_type"], record["r"], record["lora_alpha"]) == ("LORA", 4, 8)
        assert record["base_model_name_or_path"] == "some/base"
        saved = load_file(tmp_path / layout / "adapter_model.safetensors")
        prefix = "base_model.model."
        modules = {name.removeprefix(prefix).partition(".lora_")[0] for name in saved if ".lora_" in name}
        assert modules == set(record["target_modules"])
        assert len(saved) == 2 * len(modules) + 1
        for module in modules:
            up, down = (saved[f"{prefix}{module}.lora_{half}.weight"] for half in "BA")
            assert (up.shape[0], down.shape[1]) == tensors[f"{module}.weight"].shape
    assert "language_model.model.encoder.layers.0.self_attn.q_proj" in modules


def test_half_precision_layers_get_exact_adapters(model: Florence, answer: Callable[[Florence], Tensor]) -> None:
    model.bfloat16()
    before = answer(model)
    add_lora(model, LoraConfig(rank=4))
    assert {p.dtype for p in lora_parameters(model)} == {torch.float32}
    assert torch.equal(answer(model), before)
    shake(model)
    x = torch.randn(16, 32).bfloat16()
    with torch.no_grad():
        adapted = model.language_model.encoder.layers[0].self_attn.qkv(x)
    merge_lora(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    merged = model.language_model.encoder.layers[0].self_attn.qkv(x)
    assert adapted.dtype == torch.bfloat16
    assert (merged - adapted).norm() < 0.02 * adapted.norm(), "bfloat16 has eight bits"


def test_what_cannot_be_done_is_said(model: Florence, processor: Processor, tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="no LoRA adapters to save"):
        save_adapter(model, tmp_path, "tiny")
    with pytest.raises(OpenFlorenceError, match="no id 99999"):
        add_lora(model, LoraConfig(token_rows=(5, 99999)))
    for wrong in ({"rank": 0}, {"dropout": 1.0}, {"alpha": 0}, {"targets": ()}):
        with pytest.raises(OpenFlorenceError, match="LoRA wants"):
            LoraConfig(**wrong)
    add_lora(model, WHOLE)
    with pytest.raises(OpenFlorenceError, match="already"):
        add_lora(model)
    with pytest.raises(OpenFlorenceError, match="merge them first"):
        save_model(model, processor, tmp_path / "model")
    with pytest.raises(OpenFlorenceError, match="not 'peft'"):
        save_adapter(model, tmp_path, "tiny", "peft")
    (tmp_path / "file").touch()
    with pytest.raises(OpenFlorenceError, match="cannot be written"):
        save_adapter(model, tmp_path / "file", "tiny")


def test_the_page_of_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "lora.md").read_text(encoding="utf-8")
    assert re.findall(r'base = "(.+)"', page, flags=re.IGNORECASE) == ["microsoft/Florence-2-base"]
    blocks = re.findall(r"```python\n(.*?)```", page.replace("microsoft/Florence-2-base", "tiny"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "<COUNT>", TASKS["<VQA>"])  # the page's own row goes when the test ends
    names: dict[str, Any] = {}
    for block in blocks:
        if "from peft" not in block:
            exec(block, names)
    assert load_model("runs/merged")[0].config.text.vocab_size == 2240
    assert load_model("runs/adapter")[1].tokenizer.encode("<COUNT>", wrap=False) == names["tokens"]
    rows = re.findall(r"^\| (`.+`) \|", page, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {f.name for f in fields(LoraConfig)}


TWO = """
import random, sys
from pathlib import Path
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[2])
import conftest, test_lora
from open_florence.training.lora import LoraConfig, add_lora

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
processor = conftest.processor.__wrapped__()
model = conftest.model.__wrapped__(processor)
torch.manual_seed(rank)
add_lora(model, LoraConfig(rank=4))
square = lambda rng: conftest._square(random.Random(rng.random() + rank))
test_lora.train(model, processor, square, Path(sys.argv[1]), steps=3)
torch.save(model.state_dict(), Path(sys.argv[1]) / f"rank{rank}.pt")
"""


def test_two_processes_train_the_same_adapters(model: Florence, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += [str(tmp_path / "two.py"), str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    frozen = {name: tensor for name, tensor in first.items() if ".lora_" not in name}
    assert all(torch.equal(tensor, model.state_dict()[name.replace(".base.", ".")]) for name, tensor in frozen.items())
    assert any(tensor.any() for name, tensor in first.items() if ".lora_B." in name)
