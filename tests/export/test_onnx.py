"""The files of an ONNX export: their names and axes, and that ONNX Runtime computes with them what the model does."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from open_florence.export import onnx as exporting
from open_florence.export.parity import TOLERANCES, compare
from open_florence.model.checkpoint import read_config
from open_florence.processor import Processor

LAYERS, HEADS, WIDTH = 2, 2, 16
D = HEADS * WIDTH
NAMES = (
    "embed_tokens",
    "vision_encoder",
    "encoder_model",
    "decoder_model",
    "decoder_with_past_model",
    "decoder_model_merged",
)

MASK = {"encoder_attention_mask": ["batch_size", "encoder_sequence_length"]}
STATES = {"encoder_hidden_states": ["batch_size", "encoder_sequence_length", D]}
EMBEDS = {"inputs_embeds": ["batch_size", "decoder_sequence_length", D]}
OWN, NEXT = "past_decoder_sequence_length", "past_decoder_sequence_length + 1"


def kept(prefix, own, memory="encoder_sequence_length_out"):
    return {
        f"{prefix}.{layer}.{side}.{kind}": ["batch_size", HEADS, length, WIDTH]
        for layer in range(LAYERS)
        for side, length in (("decoder", own), ("encoder", memory))
        if length
        for kind in ("key", "value")
    }


def session(folder, name, suffix=""):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "onnx" / f"{name}{suffix}.onnx"), options)


def shapes(puts):
    return {put.name: put.shape for put in puts}


@pytest.mark.parametrize("suffix", ["", "_fp16", "_quantized"])
def test_names_and_axes_are_the_published_ones(exported, suffix):
    vocabulary = exported.model.config.text.vocab_size
    logits = {"logits": ["batch_size", "decoder_sequence_length", vocabulary]}
    wanted = {
        "embed_tokens": (
            {"input_ids": ["batch_size", "sequence_length"]},
            {"inputs_embeds": ["batch_size", "sequence_length", D]},
        ),
        "vision_encoder": ({"pixel_values": ["batch_size", 3, 24, 24]}, {"image_features": ["batch_size", 10, D]}),
        "encoder_model": (
            {
                "attention_mask": ["batch_size", "encoder_sequence_length"],
                "inputs_embeds": ["batch_size", "encoder_sequence_length", D],
            },
            {"last_hidden_state": ["batch_size", "encoder_sequence_length", D]},
        ),
        "decoder_model": (MASK | STATES | EMBEDS, logits | kept("present", "decoder_sequence_length")),
        "decoder_with_past_model": (
            MASK | EMBEDS | kept("past_key_values", OWN),
            logits | kept("present", NEXT, memory=None),
        ),
        "decoder_model_merged": (
            MASK | STATES | EMBEDS | kept("past_key_values", OWN) | {"use_cache_branch": [1]},
            logits | kept("present", NEXT),
        ),
    }
    for name, (inputs, outputs) in wanted.items():
        found = session(exported.folder, name, suffix)
        assert shapes(found.get_inputs()) == inputs, name
        assert shapes(found.get_outputs()) == outputs, name
        kinds = {put.name: put.type for put in (*found.get_inputs(), *found.get_outputs())}
        whole = {"input_ids", "attention_mask", "encoder_attention_mask"}
        for put, kind in kinds.items():
            expected = "int64" if put in whole else "bool" if put == "use_cache_branch" else "float"
            assert kind == f"tensor({expected})", (name, put)


def test_the_folder_holds_the_published_files_and_nothing_else(exported):
    graphs = {f"{name}{suffix}.onnx" for name in NAMES for suffix in ("", "_fp16", "_quantized")}
    assert {path.name for path in (exported.folder / "onnx").iterdir()} == graphs
    assert {path.name for path in exported.folder.iterdir()} == {
        "onnx",
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [path.name for path in exported.folder.parent.iterdir()] == ["onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_valid_and_say_nothing_of_where_they_were_made(exported, name):
    path = exported.folder / "onnx" / f"{name}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    content = path.read_bytes()
    for trace in (b".py", b"stack_trace", b"site-packages"):
        assert trace not in content


def test_the_command_prints_how_far_each_dtype_is_from_the_model(exported):
    *lines, last = exported.said.splitlines()
    assert [line.split(":")[0] for line in lines] == ["float32", "float16", "int8"]
    assert last == f"{exported.folder} holds {exported.folder.parents[1] / 'model'} for onnx"
    number = r"\d\.\de-\d\d"
    for line in lines:
        assert re.fullmatch(
            rf"\w+: image features {number}, encoder states {number}, logits {number} off \(relative, \S+ allowed\); "
            r"\d+ of 48 tokens the same",
            line,
        )


@pytest.mark.parametrize(
    ("dtype", "error", "tokens"), [("float32", 1e-5, 48), ("float16", 1e-2, 46), ("int8", 0.2, 36)]
)
def test_parity_with_the_model(exported, dtype, error, tokens):
    found = compare(exported.model, exported.processor, exported.folder, dtype)
    assert found.good
    assert found.error < error < TOLERANCES[dtype] * 1.01
    assert found.same_tokens >= tokens


def test_another_model_is_found_out(exported):
    other = type(exported.model)(exported.model.config).eval()
    other.load_state_dict(exported.model.state_dict())
    with torch.no_grad():
        other.language_model.decoder.layers[1].cross_attn.out.bias[3] += 0.2
    found = compare(other, exported.processor, exported.folder, "float32")
    assert found.image_features < 1e-5
    assert found.encoder_states < 1e-5
    assert not found.good


def memory(exported, rows=3, length=6):
    """A batch of questions of different lengths: the mask (B, S), the states (B, S, d), and the model's memory."""
    torch.manual_seed(5)
    pixels = torch.randn(rows, 3, 24, 24)
    ids = torch.randint(4, 200, (rows, length))
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, length - row :] = 0
    with torch.inference_mode():
        features = exported.model.encode_image(pixels)
        made = exported.model.encode(features, ids, mask)
    (found,) = session(exported.folder, "vision_encoder").run(None, {"pixel_values": pixels.numpy()})
    np.testing.assert_allclose(found, features.numpy(), rtol=0, atol=1e-4)
    (embedded,) = session(exported.folder, "embed_tokens").run(None, {"input_ids": ids.numpy()})
    inputs = {
        "inputs_embeds": np.concatenate([found, embedded], axis=1),
        "attention_mask": made.mask.numpy().astype(np.int64),
    }
    (states,) = session(exported.folder, "encoder_model").run(None, inputs)
    np.testing.assert_allclose(states, made.hidden.numpy(), rtol=0, atol=1e-4)
    return {"encoder_attention_mask": inputs["attention_mask"], "encoder_hidden_states": states}, made


def test_both_branches_and_both_single_files_are_the_decoder(exported):
    given, made = memory(exported)
    said = torch.randint(4, 200, (3, 7))
    with torch.inference_mode():
        wanted = exported.model.decode(said, made).numpy()  # (3, 7, V)
    (embeds,) = session(exported.folder, "embed_tokens").run(None, {"input_ids": said.numpy()})
    merged = session(exported.folder, "decoder_model_merged")
    names = [put.name for put in merged.get_outputs()]
    nothing = {name: np.zeros((3, HEADS, 0, WIDTH), np.float32) for name in kept("past_key_values", OWN)}
    first = given | {"inputs_embeds": embeds[:, :4], "use_cache_branch": np.array([False])} | nothing
    outputs = dict(zip(names, merged.run(None, first), strict=True))
    np.testing.assert_allclose(outputs["logits"], wanted[:, :4], rtol=0, atol=1e-4)
    alone = session(exported.folder, "decoder_model").run(None, given | {"inputs_embeds": embeds[:, :4]})
    for name, value in zip(names, alone, strict=True):
        np.testing.assert_array_equal(outputs[name], value)

    past = {name.replace("present", "past_key_values"): value for name, value in outputs.items() if name != "logits"}
    following = given | {"inputs_embeds": embeds[:, 4:], "use_cache_branch": np.array([True])} | past
    outputs = dict(zip(names, merged.run(None, following), strict=True))
    np.testing.assert_allclose(outputs["logits"], wanted[:, 4:], rtol=0, atol=1e-4)
    assert outputs["present.1.decoder.key"].shape == (3, HEADS, 7, WIDTH)
    assert outputs["present.1.encoder.key"].shape == (0, HEADS, 1, WIDTH)  # unchanged, so not given again
    with_past = session(exported.folder, "decoder_with_past_model")
    del following["use_cache_branch"], following["encoder_hidden_states"]
    for put, value in zip(with_past.get_outputs(), with_past.run(None, following), strict=True):
        np.testing.assert_array_equal(outputs[put.name], value)


def test_the_branches_share_their_weights(exported):
    folder = exported.folder / "onnx"
    for suffix in ("", "_fp16", "_quantized"):
        merged = onnx.load_model(str(folder / f"decoder_model_merged{suffix}.onnx"))
        alone = onnx.load_model(str(folder / f"decoder_model{suffix}.onnx"))
        assert weights(merged) <= weights(alone) * 1.02


def weights(model):
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def test_settings_are_read_back_by_us_and_by_transformers_js(exported):
    config = read_config(exported.folder)
    assert config == exported.model.config
    assert Processor.from_folder(exported.folder).image_size == 24
    record = json.loads((exported.folder / "config.json").read_text())
    assert record["model_type"] == "florence2"
    assert record["is_encoder_decoder"] is True
    assert record["text_config"]["model_type"] == "florence2_language"
    assert record["num_image_tokens"] == 10
    assert "auto_map" not in record
    assert "transformers.js_config" not in record
    settings = json.loads((exported.folder / "preprocessor_config.json").read_text())
    assert settings["processor_class"] == "Florence2Processor"
    assert settings["task_prompts_without_inputs"]["<OD>"] == "Locate the objects with category name in the image."
    assert settings["task_prompts_with_input"]["<VQA>"] == "{input}"
    forms = settings["tasks_answer_post_processing_type"]
    assert set(forms) == {*settings["task_prompts_without_inputs"], *settings["task_prompts_with_input"]}
    assert {name: forms[f"<{name}>"] for name in ("CAPTION", "OD", "REGION_PROPOSAL", "OCR_WITH_REGION")} == {
        "CAPTION": "pure_text",
        "OD": "description_with_bboxes",
        "REGION_PROPOSAL": "bboxes",
        "OCR_WITH_REGION": "ocr",
    }
    assert forms["<CAPTION_TO_PHRASE_GROUNDING>"] == "phrase_grounding"
    assert forms["<REGION_TO_SEGMENTATION>"] == "polygons"
    assert forms["<OPEN_VOCABULARY_DETECTION>"] == "description_with_bboxes_or_polygons"


def test_weights_that_do_not_fit_into_a_file_stand_beside_it(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST", 1000)
    table = exported.model.language_model.shared
    whole = onnx.load_model(str(exported.folder / "onnx" / "embed_tokens.onnx"))
    (tmp_path / "onnx").mkdir()
    assert exporting._write(whole, tmp_path / "onnx" / "embed_tokens.onnx") == ["embed_tokens.onnx"]
    assert (tmp_path / "onnx" / "embed_tokens.onnx").stat().st_size < 1000
    assert (tmp_path / "onnx" / "embed_tokens.onnx_data").stat().st_size >= table.weight.nbytes
    ids = np.array([[0, 5, 2]])
    (found,) = session(tmp_path, "embed_tokens").run(None, {"input_ids": ids})
    np.testing.assert_array_equal(found, table(torch.from_numpy(ids)).detach().numpy())
    exporting.write_settings(exported.model, exported.processor, tmp_path, ["embed_tokens.onnx"])
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["transformers.js_config"] == {"use_external_data_format": {"embed_tokens.onnx": 1}}
