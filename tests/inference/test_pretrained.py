"""Models by name: folders, the hub (stood in for), adapters, dtypes, and one sentence for everything that fails."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from open_florence.errors import OpenFlorenceError
from open_florence.inference import pretrained
from open_florence.inference.calibration import Calibration, Curve
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import format_and_place, load_model, save_model
from open_florence.model.checkpoint import read_weights, write_weights
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A random model of the tiny shape with its processor, and its folder in Microsoft's layout."""
    tokenizer = Tokenizer.train(["a red square on a green field"] * 3, vocab_size=1340)
    torch.manual_seed(0)
    model = Florence(PRESETS["tiny"].with_vocabulary(len(tokenizer))).eval()
    processor = Processor(tokenizer, image_size=160)
    folder = tmp_path_factory.mktemp("models") / "tiny-random"
    save_model(model, processor, folder, "microsoft")
    return model, processor, folder


def assert_same(first, second):
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_what_is_saved_is_loaded(saved):
    model, processor, folder = saved
    loaded, again = load_model(folder)
    assert loaded.config == model.config
    assert not loaded.training
    assert_same(model, loaded)
    assert again.image_size == 160
    assert again.tokenizer.encode("a red square") == processor.tokenizer.encode("a red square")


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_the_native_layout_adds_only_rows_that_are_never_answered(saved, tmp_path, file_format):
    model, processor, _ = saved
    save_model(model, processor, tmp_path, "native", file_format=file_format)
    loaded, again = load_model(tmp_path)
    assert loaded.config.used_vocab == model.config.text.vocab_size == len(again.tokenizer)
    assert loaded.config.text.vocab_size % 64 == 0
    ids = torch.tensor([[0, 9, 2]])
    pixels, mask = torch.randn(1, 3, 160, 160), torch.ones_like(ids)
    with torch.inference_mode():
        expected, logits = (m(pixels, ids, mask, ids) for m in (model, loaded))
    assert bool((logits.argmax(-1) < loaded.config.used_vocab).all())
    torch.testing.assert_close(logits[..., : expected.shape[-1]], expected)


def test_transformers_loads_the_whole_native_folder(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, processor, _ = saved
    save_model(model, processor, tmp_path, "native")
    theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_tokens_to_ids("<image>") == theirs.config.image_token_id == len(processor.tokenizer)


def test_a_smaller_file_of_half_precision(saved, tmp_path):
    model, processor, _ = saved
    save_model(model, processor, tmp_path, dtype=torch.float16)
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert next(model.parameters()).dtype == torch.float32  # the model in memory is left as it was
    for asked, given in ((None, torch.float32), ("bfloat16", torch.bfloat16), (torch.float32, torch.float32)):
        loaded, _ = load_model(tmp_path, dtype=asked)
        assert {p.dtype for p in loaded.parameters()} == {given}


def adapter_folder(folder, base, state, name="language_model.model.decoder.layers.0.self_attn.q_proj"):
    folder.mkdir()
    down, up = torch.randn(4, 128), torch.randn(128, 4)
    prefix = f"base_model.model.{name}"
    save_file({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}, folder / "adapter_model.safetensors")
    record = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(record))
    ours = "language_model.decoder.layers.0.self_attn.qkv.weight"
    return ours, state[ours][:128] + up @ down


def test_an_adapter_is_merged_into_the_model_it_names(saved, tmp_path):
    model, _, folder = saved
    ours, expected = adapter_folder(tmp_path / "adapter", folder, model.state_dict())
    loaded, processor = load_model(tmp_path / "adapter")
    torch.testing.assert_close(loaded.state_dict()[ours][:128], expected)
    assert processor.image_size == 160


def test_an_adapter_of_an_adapter_is_refused(saved, tmp_path):
    adapter_folder(tmp_path / "one", saved[2], saved[0].state_dict())
    adapter_folder(tmp_path / "two", tmp_path / "one", saved[0].state_dict())
    with pytest.raises(OpenFlorenceError, match="one, which holds no model"):
        load_model(tmp_path / "two")


def test_a_hub_name_downloads_weights_and_no_code(saved, tmp_path, monkeypatch):
    """The hub is stood in for: first it has only .bin files, as the oldest repositories do."""
    model, processor, _ = saved
    repository = tmp_path / "repository"
    save_model(model, processor, repository, "microsoft", file_format="bin")
    (repository / "modeling_florence2.py").write_text("raise SystemExit('never run')")
    asked = []

    def download(name, allow_patterns, ignore_patterns):
        asked.append((name, allow_patterns))
        local = tmp_path / "cache"
        local.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for path in repository.glob(pattern):
                shutil.copy(path, local)
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded, _ = load_model("someone/Florence-2-tuned")
    assert_same(model, loaded)
    assert [name for name, _ in asked] == ["someone/Florence-2-tuned"] * 2
    assert "*.bin" not in asked[0][1]  # only when there is no safetensors file
    assert not (tmp_path / "cache" / "modeling_florence2.py").exists()
    save_model(model, processor, repository, "native")
    shutil.rmtree(tmp_path / "cache")
    asked.clear()
    load_model("someone/Florence-2-tuned")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tinny", "there is no model 'tinny'"),
        ("no/such/folder", "there is no model 'no/such/folder'"),
        ("./nothing", "there is no model './nothing'"),
        ("", "there is no model ''"),
    ],
)
def test_a_name_that_leads_nowhere(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OpenFlorenceError, match=sentence) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (LocalEntryNotFoundError("Cannot find the snapshot\nCheck your connection"), "the hub cannot be reached"),
        (ConnectionError("Name or service not known"), "the hub cannot be reached"),
        (HFValidationError("Repo id"), "is not a name the hub could have"),
    ],
)
def test_hub_failures_are_one_sentence(monkeypatch, raised, sentence):
    def download(*_args, **_settings):
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(OpenFlorenceError, match=sentence) as caught:
        load_model("microsoft/Florence-2-bse")
    assert "microsoft/Florence-2-bse" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("status", "sentence"), [(404, "no model .* on the hub"), (503, "the hub refused")])
def test_what_the_hub_answers(monkeypatch, status, sentence):
    def download(*_args, **_settings):
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        kind = RepositoryNotFoundError if status == 404 else HfHubHTTPError
        error = kind.__new__(kind)  # its constructor wants the HTTP library's response, another one each version
        error.args = (f"{status} of the server\nRequest ID: 1",)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(OpenFlorenceError, match=sentence) as caught:
        load_model("microsoft/Florence-2-bse")
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_model(saved, tmp_path):
    with pytest.raises(OpenFlorenceError, match=r"no config\.json"):
        load_model(tmp_path)
    shutil.copytree(saved[2], tmp_path / "part")
    (tmp_path / "part" / "model.safetensors").unlink()
    with pytest.raises(OpenFlorenceError, match="no weights"):
        load_model(tmp_path / "part")
    with pytest.raises(OpenFlorenceError, match="is a file"):
        load_model(saved[2] / "config.json")


def test_a_tokenizer_of_another_model(saved, tmp_path):
    model, _, _ = saved
    large = Tokenizer.train(["many quite different words stand here, more than there were before"] * 2, 1340)
    assert len(large) > model.config.text.vocab_size + 1
    save_model(model, Processor(large, image_size=160), tmp_path, "microsoft")
    with pytest.raises(OpenFlorenceError, match="tokens but its model only"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dtype": "float16"}, "many times slower"),
        ({"dtype": torch.float16}, "bfloat16 or float32"),
        ({"dtype": "int8"}, "one of auto, float32, bfloat16, float16"),
        ({"device": "nowhere"}, "no device nowhere"),
    ],
)
def test_settings_that_cannot_be(saved, settings, sentence):
    with pytest.raises(OpenFlorenceError, match=sentence):
        load_model(saved[2], **settings)


@pytest.mark.parametrize(("able", "given"), [({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)])
def test_the_fastest_format_is_the_processors(monkeypatch, able, given):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert format_and_place("auto", None) == (given, torch.device("cpu"))


def test_saving_where_or_how_it_cannot_be(saved, tmp_path):
    model, processor, _ = saved
    (tmp_path / "file").write_text("")
    with pytest.raises(OpenFlorenceError, match="cannot be written"):
        save_model(model, processor, tmp_path / "file")
    with pytest.raises(OpenFlorenceError, match="native, microsoft"):
        save_model(model, processor, tmp_path / "new", "onnx")
    assert not (tmp_path / "new").exists()


def test_names_of_shipped_models(saved, tmp_path, monkeypatch):
    shutil.copytree(saved[2], tmp_path / "tiny")
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path)
    assert_same(saved[0], load_model("tiny")[0])


def test_an_output_layer_of_its_own_survives(saved, tmp_path):
    model, processor, _ = saved
    config = replace(model.config, text=replace(model.config.text, tied=False))
    untied = Florence(config).eval()
    for layout in ("native", "microsoft"):
        save_model(untied, processor, tmp_path / layout, layout)
        loaded, _ = load_model(tmp_path / layout)
        rows = config.text.vocab_size
        assert torch.equal(loaded.language_model.lm_head.weight[:rows], untied.language_model.lm_head.weight)
        assert not read_weights(tmp_path / layout)[0].text.tied


# --- replacing a checkpoint that is there


KILLED = """
import os, signal, sys
import torch
from open_florence.inference import pretrained
from open_florence.inference.calibration import Calibration, Curve
from open_florence.inference.pretrained import load_model, save_model
from open_florence.model import checkpoint

folder, layout, old_format, new_format = sys.argv[1:]
torch.set_num_threads(1)
model, processor = load_model(folder + "/seed")
old, new = folder + "/target", folder + "/new"
first = next(iter(model.state_dict().values()))


def save(value, file_format):
    with torch.no_grad():
        first.fill_(value)
    save_model(model, processor, old, layout, file_format=file_format, calibration=calibration)


def dying(number, function):
    def call(*arguments, **settings):
        left[0] -= 1
        if left[0] == 0 and function is not written:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **settings)
        if left[0] == 0:
            os.truncate(arguments[0], 1000)
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call


written = checkpoint._write_file
calibration = Calibration({"<OD>": Curve((0.1, 0.9), (0.2, 0.8))})
step, seen = 0, []
while True:
    step += 1
    if not (child := os.fork()):
        save(1.0, old_format)
        left = [step]
        calibration = None
        checkpoint._write_file = dying(step, written)
        os.replace, os.unlink = dying(step, os.replace), dying(step, os.unlink)
        pretrained.Path.unlink = dying(step, pretrained.Path.unlink)
        save(2.0, new_format)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    loaded, _ = load_model(old)
    value = next(iter(loaded.state_dict().values())).flatten()[0].item()
    kept = Calibration.load(old)
    assert value in (1.0, 2.0), value
    assert kept is None or value == 1.0  # never a calibration beside weights that it was not fitted on
    seen.append(value)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
assert seen[0] == 1.0 and seen[-1] == 2.0 and seen == sorted(seen), seen
assert not os.path.exists(old + "/.saving"), os.listdir(old)
print(len(seen), os.listdir(old))
"""


@pytest.mark.parametrize("formats", [("safetensors", "safetensors"), ("safetensors", "bin"), ("bin", "safetensors")])
def test_a_process_killed_at_any_step_of_saving_leaves_a_whole_checkpoint(saved, tmp_path, formats):
    """Every step that touches a file is a place to die: while weights are written, and at each move and deletion."""
    shutil.copytree(saved[2], tmp_path / "seed")
    command = [sys.executable, "-c", KILLED, str(tmp_path), "microsoft", *formats]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 8


def test_other_files_of_the_folder_stay_and_leftovers_go(saved, tmp_path):
    model, processor, _ = saved
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "model.safetensors").write_text("half")
    (tmp_path / "README.md").write_text("mine")
    write_weights(tmp_path, model.config, model.state_dict(), "microsoft", max_shard_bytes=4_000_000)
    assert (tmp_path / "model.safetensors.index.json").exists()
    save_model(model, processor, tmp_path, "microsoft")
    assert (tmp_path / "README.md").read_text() == "mine"
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert not (tmp_path / ".saving").exists()
    assert_same(model, load_model(tmp_path)[0])


# --- what a checkpoint says about its coordinates and scores


def test_the_location_window_goes_with_the_checkpoint(saved, tmp_path):
    model, processor, _ = saved
    save_model(model, replace(processor, location_window=25), tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["location_window"] == 25
    assert load_model(tmp_path)[1].location_window == 25
    transformers = pytest.importorskip("transformers")
    assert transformers.GenerationConfig.from_pretrained(tmp_path).num_beams == 3
    save_model(model, processor, tmp_path)
    assert "location_window" not in json.loads((tmp_path / "generation_config.json").read_text())
    assert load_model(tmp_path)[1].location_window == 0


@pytest.mark.parametrize("text", ['{"location_window": -1}', '{"location_window": "wide"}', "[]", "{"])
def test_a_generation_config_that_is_wrong(saved, tmp_path, text):
    shutil.copytree(saved[2], tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(text)
    with pytest.raises(OpenFlorenceError, match=r"generation_config\.json"):
        load_model(tmp_path / "model")


def test_a_calibration_goes_with_its_weights_and_not_with_others(saved, tmp_path):
    model, processor, _ = saved
    calibration = Calibration({"<OD>": Curve((0.1, 0.5), (0.3, 0.9))})
    save_model(model, processor, tmp_path, calibration=calibration)
    assert Predictor.from_pretrained(tmp_path).calibration == calibration
    save_model(model, processor, tmp_path)
    assert Predictor.from_pretrained(tmp_path).calibration is None
