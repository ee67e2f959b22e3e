"""Weights in both published layouts: nothing is lost, nothing runs, and what is wrong is said in one sentence."""

import json
import logging
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from open_florence.model.checkpoint import CheckpointError, read_tensors, read_weights, write_weights
from open_florence.model.config import FlorenceConfig
from open_florence.model.names import LM_HEAD, SHARED

NATIVE = {"image_token_id": 130}
WAYS = [("safetensors", None), ("bin", None), ("safetensors", 60_000), ("bin", 60_000)]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize(("file_format", "shard"), WAYS)
@pytest.mark.parametrize(("dtype", "tied"), [(torch.float32, True), (torch.float16, False)])
def test_native_to_microsoft_and_back_is_exact(make_model, config, tmp_path, file_format, shard, dtype, tied):
    model = make_model(config.with_vocabulary(140, image_token_id=130), tied=tied)
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    ways = (("native", "one"), ("microsoft", "two"), ("native", "three"))
    current, weights = model.config, state
    for layout, name in ways:
        write_weights(tmp_path / name, current, weights, layout, file_format, shard)
        if shard:
            assert len(list((tmp_path / name).glob(f"*-of-*.{file_format}"))) > 2
        current, weights = read_weights(tmp_path / name)
        assert current == model.config
        assert_same(weights, state)
    assert_same(read_tensors(tmp_path / "one"), read_tensors(tmp_path / "three"))


def test_native_files_hold_the_embedding_once(make_model, config, tmp_path):
    model = make_model(config.with_vocabulary(140, image_token_id=130))
    write_weights(tmp_path, model.config, model.state_dict(), "native")
    names = read_tensors(tmp_path).keys()
    assert "model.language_model.shared.weight" in names
    assert not any("embed_tokens" in name or "lm_head" in name for name in names)


def test_microsoft_bin_files_are_as_the_original_ones(make_model, tmp_path, data_folder):
    """The same names as the recorded file of the original code, aliases and all, in one storage."""
    recorded = data_folder / "florence2_original_reference" / "variant_a_1024"
    config, state = read_weights(recorded)
    write_weights(tmp_path, config, state, "microsoft", "bin")
    assert_same(read_tensors(tmp_path), read_tensors(recorded))
    assert (tmp_path / "pytorch_model.bin").stat().st_size < 1.01 * (recorded / "pytorch_model.bin").stat().st_size
    assert FlorenceConfig.from_json(json.loads((tmp_path / "config.json").read_text())) == config


def test_the_native_layout_gets_a_row_for_the_image_that_never_wins(make_model, config, tmp_path):
    model = make_model(tied=False)
    written = write_weights(tmp_path, model.config, model.state_dict(), "native")
    read, state = read_weights(tmp_path)
    assert written == read
    assert (read.image_token_id, read.text.vocab_size, read.used_vocab) == (140, 192, 140)
    hidden = torch.randn(50, 48)
    logits = hidden @ state[LM_HEAD].T
    assert bool((logits.argmax(-1) < 140).all())
    assert torch.equal(state[SHARED][:140], model.state_dict()[SHARED])


@pytest.mark.parametrize("kept", ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"])
@pytest.mark.parametrize("layout", ["native", "microsoft"])
def test_any_alias_of_the_embedding_is_enough(make_model, config, tmp_path, layout, kept):
    model = make_model(config.with_vocabulary(140, image_token_id=130))
    write_weights(tmp_path, model.config, model.state_dict(), layout)
    tensors = load_file(tmp_path / "model.safetensors")
    prefix, head = ("model.language_model.", "") if layout == "native" else ("language_model.model.", "language_model.")
    shared = tensors.pop(f"{prefix}shared.weight")
    tensors.pop(f"{head}lm_head.weight", None)
    tensors[f"{head if kept == 'lm_head' else prefix}{kept}.weight"] = shared
    save_file(tensors, tmp_path / "model.safetensors")
    read, state = read_weights(tmp_path)
    assert read.text.tied
    assert_same(state, model.state_dict())


@pytest.mark.parametrize("layout", ["native", "microsoft"])
def test_an_output_layer_of_its_own_is_kept(make_model, config, tmp_path, layout):
    model = make_model(config.with_vocabulary(140, image_token_id=130), tied=False)
    write_weights(tmp_path, model.config, model.state_dict(), layout)
    # A config.json that says otherwise, as those of the original code do, changes nothing.
    record = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(record))
    read, state = read_weights(tmp_path)
    assert not read.text.tied
    assert torch.equal(state[LM_HEAD], model.language_model.lm_head.weight)


def test_tables_are_sized_by_the_checkpoint(make_model, config, tmp_path):
    model = make_model()
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft")
    record = json.loads((tmp_path / "config.json").read_text())
    record["text_config"] |= {"max_position_embeddings": 1024, "vocab_size": 51289}
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert read_weights(tmp_path)[0] == model.config


def test_unknown_tensors_are_logged_and_left_out(make_model, tmp_path, caplog):
    model = make_model()
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft")
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {"vision_tower.norms.weight": torch.ones(2), "language_model.final_logits_bias": torch.ones(1, 140)}
    save_file(tensors | extra, tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        _, state = read_weights(tmp_path)
    assert len(caplog.records) == 1
    assert "ignored 2 tensors" in caplog.text
    assert "vision_tower.norms.weight" in caplog.text
    assert_same(state, model.state_dict())


def test_a_missing_temporal_table_is_made(make_model, tmp_path):
    model = make_model()
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_temporal_embed.pos_idx_to_embed"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same(read_weights(tmp_path)[1], model.state_dict())


def test_missing_tensors_are_an_error(make_model, tmp_path):
    model = make_model()
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["image_projection"], tensors["language_model.model.encoder.layers.1.self_attn.k_proj.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="lack image_projection and 1 more"):
        read_weights(tmp_path)


def test_a_tensor_of_another_shape_is_an_error(make_model, tmp_path):
    model = make_model()
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["image_proj_norm.weight"] = torch.ones(47)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"image_proj_norm.weight has shape \(47,\), where .* asks for \(48,\)"):
        read_weights(tmp_path)


class Malicious:
    """Unpickled without care, this makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused(make_model, tmp_path, legacy):
    model = make_model()
    folder = tmp_path / "model"
    write_weights(folder, model.config, model.state_dict(), "microsoft", "bin")
    path, trace = folder / "pytorch_model.bin", tmp_path / "ran"
    if legacy:
        path.write_bytes(pickle.dumps({"image_projection": Malicious(trace)}, protocol=2))
    else:
        torch.save({"image_projection": Malicious(trace)}, path)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is refused"):
        read_weights(folder)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut", b"\x80\x02}q\x00."])
def test_damaged_files_are_an_error_of_one_sentence(make_model, tmp_path, name, content):
    model = make_model()
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as caught:
        read_weights(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_of_something_else_is_an_error(make_model, tmp_path):
    model = make_model()
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft", "bin")
    torch.save({"epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="plain table of tensors"):
        read_weights(tmp_path)
    torch.save({"bert.weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a Florence-2's"):
        read_weights(tmp_path)


def test_an_index_cannot_lead_out_of_its_folder(make_model, tmp_path):
    model = make_model()
    folder = tmp_path / "model"
    write_weights(folder, model.config, model.state_dict(), "native", max_shard_bytes=60_000)
    index = folder / "model.safetensors.index.json"
    shard = next(folder.glob("model-00001*"))
    shard.rename(tmp_path / "stray.safetensors")
    index.write_text(index.read_text().replace(shard.name, "../stray.safetensors"))
    with pytest.raises(CheckpointError, match="not in its folder"):
        read_weights(folder)


def test_folders_without_a_model(make_model, tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_weights(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_weights(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        read_weights(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(make_model().config.to_json("native")))
    with pytest.raises(CheckpointError, match="no weights"):
        read_weights(tmp_path)


def test_writing_again_leaves_nothing_of_before(make_model, tmp_path):
    first, second = make_model(seed=1), make_model(seed=2)
    write_weights(tmp_path, first.config, first.state_dict(), "microsoft", max_shard_bytes=60_000)
    write_weights(tmp_path, second.config, second.state_dict(), "microsoft", "bin")
    assert_same(read_weights(tmp_path)[1], second.state_dict())
