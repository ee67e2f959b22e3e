"""LoRA adapters written by hand in either layout's names, merged by the definition W + scale B A."""

import json

import pytest
import torch
from safetensors.torch import save_file

from open_florence.model.adapter import base_of, merge_adapter
from open_florence.model.checkpoint import CheckpointError, read_weights, to_layout, write_weights
from open_florence.model.names import LM_HEAD, SHARED

MODULES = {
    "microsoft": {
        "query": "language_model.model.decoder.layers.1.self_attn.q_proj",
        "value": "language_model.model.encoder.layers.0.self_attn.v_proj",
        "cross": "language_model.model.decoder.layers.0.encoder_attn.k_proj",
        "mlp": "vision_tower.blocks.2.1.channel_block.ffn.fn.net.fc2",
        "conv": "vision_tower.convs.1.proj",
    },
    "native": {
        "query": "model.language_model.decoder.layers.1.self_attn.q_proj",
        "value": "model.language_model.encoder.layers.0.self_attn.v_proj",
        "cross": "model.language_model.decoder.layers.0.encoder_attn.k_proj",
        "mlp": "model.vision_tower.blocks.2.1.channel_block.ffn.fc2",
        "conv": "model.vision_tower.convs.1.conv",
    },
}


def write_adapter(folder, tensors, file_format="safetensors", **settings):
    folder.mkdir(exist_ok=True)
    tensors = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    if file_format == "safetensors":
        save_file(tensors, folder / "adapter_model.safetensors")
    else:
        torch.save(tensors, folder / "adapter_model.bin")
    record = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "fan_in_fan_out": False, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(record))
    return folder


def halves(weight, rank=4):
    """Random A (rank, in, ...) and B (out, rank, ...) for a weight."""
    down = torch.randn(rank, *weight.shape[1:])
    return down, torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2))


@pytest.mark.parametrize("rank_stable", [False, True])
@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("layout", ["microsoft", "native"])
def test_merging_by_the_definition(make_model, tmp_path, layout, file_format, rank_stable):
    model = make_model()
    before = {name: t.clone() for name, t in to_layout(model.config, model.state_dict(), layout)}
    scale = 8 / 2 if rank_stable else 8 / 4
    tensors, expected = {}, dict(before)
    for module in MODULES[layout].values():
        weight = before[f"{module}.weight"]
        down, up = halves(weight)
        tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        delta = torch.einsum("or,ri...->oi...", up.flatten(1), down)
        expected[f"{module}.weight"] = weight + scale * delta
    folder = write_adapter(tmp_path / "adapter", tensors, file_format, use_rslora=rank_stable)
    config, state = merge_adapter(folder, model.config, model.state_dict())
    assert config == model.config
    for name, tensor in to_layout(config, state, layout):
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_an_adapted_output_layer_is_untied(make_model, tmp_path):
    """Fine-tuning guides adapt lm_head; adding that to the shared table would change what the model reads."""
    model = make_model()
    down, up = halves(model.language_model.shared.weight)
    name = "language_model.lm_head"
    folder = write_adapter(tmp_path / "a", {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up})
    config, state = merge_adapter(folder, model.config, model.state_dict())
    assert not config.text.tied
    assert torch.equal(state[SHARED], model.state_dict()[SHARED])
    torch.testing.assert_close(state[LM_HEAD], state[SHARED] + 2 * up @ down)
    write_weights(tmp_path / "merged", config, state, "microsoft")
    assert torch.equal(read_weights(tmp_path / "merged")[1][LM_HEAD], state[LM_HEAD])


def test_a_native_adapter_of_the_output_layer_alone(make_model, tmp_path):
    model = make_model()
    down, up = halves(model.language_model.shared.weight)
    folder = write_adapter(tmp_path, {"lm_head.lora_A.weight": down, "lm_head.lora_B.weight": up})
    _, state = merge_adapter(folder, model.config, model.state_dict())
    torch.testing.assert_close(state[LM_HEAD], state[SHARED] + 2 * up @ down)


def test_whole_tensors_replace_ours(make_model, tmp_path):
    """Modules trained in full, and biases; old PEFT versions leave the adapter's name in the keys."""
    model = make_model()
    scale, bias = torch.randn(48), torch.randn(48)
    query = MODULES["native"]["query"]
    down, up = halves(torch.empty(48, 48))
    tensors = {
        "model.multi_modal_projector.image_proj_norm.weight": scale,
        f"{query}.bias": bias,
        f"{query}.lora_A.default.weight": down,
        f"{query}.lora_B.default.weight": up,
    }
    _, state = merge_adapter(write_adapter(tmp_path, tensors), model.config, model.state_dict())
    assert torch.equal(state["projector.image_proj_norm.weight"], scale)
    ours = "language_model.decoder.layers.1.self_attn.qkv"
    assert torch.equal(state[f"{ours}.bias"][:48], bias)
    assert torch.equal(state[f"{ours}.bias"][48:], model.state_dict()[f"{ours}.bias"][48:])
    torch.testing.assert_close(state[f"{ours}.weight"][:48], model.state_dict()[f"{ours}.weight"][:48] + 2 * up @ down)


@pytest.mark.parametrize("ids", [[140, 141], [9, 145]])
@pytest.mark.parametrize("spelt", ["whole name", "end of it", "list"])
def test_trained_rows_of_tokens_are_set_and_the_table_grows_for_new_ones(make_model, tmp_path, spelt, ids):
    model = make_model()
    rows = torch.randn(2, 48)
    module = "model.language_model.shared"
    indices = {"whole name": {module: ids}, "end of it": {"lm_head": [0], "shared": ids}, "list": ids}[spelt]
    tensors = {f"{module}.token_adapter.trainable_tokens_delta": rows}
    folder = write_adapter(tmp_path, tensors, trainable_token_indices=indices)
    config, state = merge_adapter(folder, model.config, model.state_dict())
    before = model.state_dict()[SHARED]
    assert config.text.vocab_size == len(state[SHARED]) == max(ids) + 1
    assert torch.equal(state[SHARED][ids], rows)
    others = [id_ for id_ in range(140) if id_ not in ids]
    assert torch.equal(state[SHARED][others], before[others])
    for id_ in set(range(140, max(ids))) - set(ids):
        torch.testing.assert_close(state[SHARED][id_], before.mean(0))


def test_a_table_resized_for_new_tokens_replaces_ours(make_model, tmp_path):
    """What PEFT writes where the vocabulary was resized before training."""
    model = make_model()
    table = torch.randn(150, 48)
    folder = write_adapter(tmp_path / "a", {"language_model.model.shared.weight": table})
    config, state = merge_adapter(folder, model.config, model.state_dict())
    assert config.text.vocab_size == 150
    assert torch.equal(state[SHARED], table)


def test_modules_may_have_an_alpha_of_their_own(make_model, tmp_path):
    model = make_model()
    query = MODULES["native"]["query"]
    down, up = halves(torch.empty(48, 48), rank=2)
    tensors = {f"{query}.lora_A.weight": down, f"{query}.lora_B.weight": up}
    folder = write_adapter(tmp_path, tensors, alpha_pattern={"q_proj": 32}, rank_pattern={"q_proj": 2})
    _, state = merge_adapter(folder, model.config, model.state_dict())
    name = "language_model.decoder.layers.1.self_attn.qkv.weight"
    torch.testing.assert_close(state[name][:48], model.state_dict()[name][:48] + 16 * up @ down)


def test_half_precision_weights_are_merged_in_float32(make_model, tmp_path):
    model = make_model().half()
    query = MODULES["native"]["query"]
    down, up = (t.half() for t in halves(torch.empty(48, 48)))
    folder = write_adapter(tmp_path, {f"{query}.lora_A.weight": down, f"{query}.lora_B.weight": up})
    _, state = merge_adapter(folder, model.config, model.state_dict())
    name = "language_model.decoder.layers.1.self_attn.qkv.weight"
    expected = model.state_dict()[name][:48].float() + 2 * up.float() @ down.float()
    torch.testing.assert_close(state[name][:48], expected)


def test_what_cannot_be_merged_is_said(make_model, tmp_path):
    model = make_model()
    query = MODULES["native"]["query"]
    down, up = halves(torch.empty(48, 48))
    both = {f"{query}.lora_A.weight": down, f"{query}.lora_B.weight": up}
    rows = [
        (both, {"use_dora": True}, "not plain LoRA"),
        (both, {"peft_type": "IA3"}, "not plain LoRA"),
        ({f"{query}.lora_A.weight": down}, {}, r"lacks .*q_proj\.lora_B"),
        ({f"{query}.lora_magnitude_vector": down}, {}, "cannot be merged"),
        ({"model.vision_tower.head.lora_A.weight": down, "model.vision_tower.head.lora_B.weight": up}, {}, "adapts"),
        ({f"{query}.lora_A.weight": down[:, :40], f"{query}.lora_B.weight": up}, {}, r"\(48, 40\), not \(48, 48\)"),
        ({"encoder.layer.0.lora_A.weight": down}, {}, "not a Florence-2's"),
        ({"model.language_model.shared.token_adapter.trainable_tokens_delta": down}, {}, "for which tokens"),
        ({"lm_head.weight": torch.randn(150, 48)}, {}, "only"),
    ]
    for tensors, settings, sentence in rows:
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with pytest.raises(CheckpointError, match=sentence):
            merge_adapter(write_adapter(tmp_path, tensors, **settings), model.config, model.state_dict())


def test_the_model_an_adapter_belongs_to(tmp_path):
    write_adapter(tmp_path, {}, base_model_name_or_path="microsoft/Florence-2-base-ft")
    assert base_of(tmp_path) == "microsoft/Florence-2-base-ft"
    write_adapter(tmp_path, {}, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="does not name the model"):
        base_of(tmp_path)
