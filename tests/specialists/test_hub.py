import builtins
import json
import logging

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Region
from open_florence.specialists.hub import (
    HubModel,
    box_regions,
    clean_name,
    find_hub_folder,
    load_hub_model,
    model_version,
)


@pytest.fixture(scope="module")
def bert(save):
    return save(
        "bert",
        transformers.BertModel(
            transformers.BertConfig(
                vocab_size=10, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1
            )
        ),
    )


def test_a_folder_is_loaded_and_its_version_is_its_content(bert, tmp_path):
    model = load_hub_model(bert, "AutoModel", "", kinds=["bert"])
    assert model.kind == "bert"
    assert not model.network.training
    assert model.version == load_hub_model(bert, "AutoModel", "").version
    assert model.version.startswith("bert-")
    copy = tmp_path / "bert"
    copy.mkdir()
    for path in bert.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert model_version(copy, copy) == model.version
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert model_version(copy, copy) != model.version


def test_the_model_version_a_download_is_its_commit(tmp_path):
    folder = tmp_path / "models--PekingU--rtdetr" / "snapshots" / ("0123456789abcdef" * 2)
    folder.mkdir(parents=True)
    assert model_version(folder, "PekingU/rtdetr") == "rtdetr-0123456789ab"


def test_a_name_has_no_place_in_a_version_but_for_its_last_part():
    assert clean_name("org/llama 3:8b/") == "llama-3-8b"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no model 'nowhere'"),
        ("", "there is no model ''"),
        ("{folder}", "has no config.json"),
        ("{bert}", "it is of the kind bert, not clip"),
    ],
)
def test_a_model_that_cannot_be_had(name, message, tmp_path, bert):
    with pytest.raises(OpenFlorenceError, match=message):
        load_hub_model(name.format(folder=tmp_path, bert=bert), "AutoModel", "", kinds=["clip"])


def test_a_damaged_folder_is_one_sentence(bert, tmp_path):
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    with pytest.raises(OpenFlorenceError, match="cannot be loaded"):
        load_hub_model(tmp_path, "AutoModel", "")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(OpenFlorenceError, match="cannot be loaded"):
        load_hub_model(tmp_path, "AutoModel", "")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OpenFlorenceError, match="cannot be loaded"):
        load_hub_model(tmp_path, "AutoModel", "")


def test_code_beside_a_model_is_not_run(bert, tmp_path):
    config = json.loads((bert / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(OpenFlorenceError, match="cannot be loaded"):
        load_hub_model(tmp_path, "AutoModel", "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LocalEntryNotFoundError("offline"), "a/b is not on this machine and the hub cannot be reached"),
        (ConnectionError("no route"), "a/b is not on this machine and the hub cannot be reached"),
    ],
)
def test_an_unreachable_hub_is_one_sentence(error, message, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(OpenFlorenceError, match=message):
        find_hub_folder("a/b")


def test_only_a_repository_without_safetensors_gives_other_weights(monkeypatch, tmp_path):
    asked = []

    def download(name, allow_patterns, ignore_patterns):
        asked.append(allow_patterns[-1])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_hub_folder("a/b") == tmp_path
    (tmp_path / "model.safetensors").touch()
    find_hub_folder("a/b")
    assert asked == ["*.safetensors", "*.bin", "*.safetensors"]


def test_without_transformers_it_says_what_to_install(bert, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OpenFlorenceError, match="open-florence\\[hub\\]"):
        load_hub_model(bert, "AutoModel", "")


def test_loading_is_silent_and_leaves_the_log_as_it_was(bert, capfd):
    log = transformers.utils.logging
    log.enable_progress_bar()
    log.set_verbosity(logging.INFO)
    try:
        load_hub_model(bert, "AutoModel", "")
        assert (log.get_verbosity(), log.is_progress_bar_enabled()) == (logging.INFO, True)
    finally:
        log.disable_progress_bar()
        log.set_verbosity_error()
    assert capfd.readouterr() == ("", "")


def test_inputs_of_one_shape_go_together_and_answers_keep_their_order(bert):
    model = load_hub_model(bert, "AutoModel", "", batch_size=2)
    batches = []

    def double(x):
        batches.append(tuple(x.shape))
        return {"y": 2 * x}

    inputs = [{"x": torch.full((1, size), float(i))} for i, size in enumerate((3, 2, 3, 3, 2))]
    answers = model.run(inputs, double)
    assert [answer["y"].tolist() for answer in answers] == [(2 * one["x"]).tolist() for one in inputs]
    assert sorted(batches) == [(1, 3), (2, 2), (2, 3)]
    assert model.run([], double) == []


def test_numbers_go_in_in_the_dtype_of_the_network(bert):
    model = load_hub_model(bert, "AutoModel", "", dtype="bfloat16")
    seen = []

    def call(x, ids):
        seen.extend([x.dtype, ids.dtype])
        return {"x": x, "ids": ids}

    [answer] = model.run([{"x": torch.ones(1, 2), "ids": torch.ones(1, 2, dtype=torch.long)}], call)
    assert seen == [torch.bfloat16, torch.int64]
    assert (answer["x"].dtype, answer["ids"].dtype) == (torch.float32, torch.int64)
    with pytest.raises(OpenFlorenceError, match="batch size"):
        load_hub_model(bert, "AutoModel", "", batch_size=0)
    assert isinstance(model, HubModel)


def test_boxes_are_cut_at_the_edge_and_come_best_first():
    boxes = torch.tensor([[-5.0, 2, 4, 8], [1, 1, 3, 3], [20, 0, 30, 5], [0, 0, 99, 99]])
    regions = box_regions(boxes, torch.tensor([0.2, 0.9, 0.8, 0.5]), ["a", "b", "gone", "d"], (10, 6))
    assert regions == (
        Region.box(1, 1, 3, 3, label="b", score=pytest.approx(0.9)),
        Region.box(0, 0, 10, 6, label="d", score=0.5),
        Region.box(0, 2, 4, 6, label="a", score=pytest.approx(0.2)),
    )
    assert box_regions(torch.zeros(0, 4), torch.zeros(0), [], (10, 6)) == ()
