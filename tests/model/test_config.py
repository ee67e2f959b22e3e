"""The presets are the published shapes, and both published config layouts are read and written."""

import json
from dataclasses import replace

import pytest
import torch

from open_florence.model.config import LAYOUTS, PRESETS, ConfigError, FlorenceConfig
from open_florence.model.florence import Florence


def count(config):
    """Parameters of the parts of a model; tied ones once. On the meta device, where nothing is allocated."""
    with torch.device("meta"):
        model = Florence(config)
    parts = (model, model.vision_tower, model.projector, model.language_model)
    return tuple(sum(p.numel() for p in part.parameters()) for part in parts)


def with_positions(config, positions):
    return replace(config, text=replace(config.text, max_positions=positions))


@pytest.mark.parametrize(
    ("config", "total", "tower", "projector", "language"),
    [
        pytest.param(PRESETS["base"], 231_414_016, 90_368_000, 839_168, 140_206_848, id="base"),
        pytest.param(PRESETS["large"], 770_173_952, 360_632_320, 2_201_600, 407_340_032, id="large"),
        pytest.param(
            with_positions(PRESETS["large"], 4096), 776_465_408, 360_632_320, 2_201_600, 413_631_488, id="large-4k"
        ),
    ],
)
def test_published_parameter_counts(config, total, tower, projector, language):
    assert count(config) == (total, tower, projector, language)


@pytest.mark.parametrize(
    ("config", "total"),
    [
        pytest.param(PRESETS["base"], 231_443_968, id="base"),
        pytest.param(PRESETS["large"], 770_213_888, id="large"),
        pytest.param(with_positions(PRESETS["large"], 4096), 776_505_344, id="large-4k"),
    ],
)
def test_parameter_counts_of_the_native_vocabulary(config, total):
    assert count(config.with_vocabulary(51328, image_token_id=51289))[0] == total


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("base", (420_864, 1_885_184, 58_107_904, 29_954_048)),
        ("large", (1_628_160, 7_505_920, 231_821_312, 119_676_928)),
    ],
)
def test_parameter_counts_of_the_stages(name, stages):
    with torch.device("meta"):
        tower = Florence(PRESETS[name]).vision_tower
    both = zip(tower.convs, tower.blocks, strict=True)
    assert tuple(sum(p.numel() for part in pair for p in part.parameters()) for pair in both) == stages


def test_tiny_is_small():
    total, *_ = count(PRESETS["tiny"])
    assert total < 5_000_000


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PRESETS)
def test_written_configs_are_read_back(name, layout):
    for config in (PRESETS[name], PRESETS[name].with_vocabulary(1400, image_token_id=1390)):
        assert FlorenceConfig.from_json(json.loads(json.dumps(config.to_json(layout)))) == config


def test_the_recorded_config_of_the_original_code(data_folder):
    path = data_folder / "florence2_original_reference" / "variant_a_1024" / "config.json"
    config = FlorenceConfig.from_json(json.loads(path.read_text()))
    assert config.vision.dims == (32, 64, 128, 256)
    assert (config.vision.positions, config.vision.frames) == (50, 100)
    assert (config.text.d_model, config.text.vocab_size, config.text.decoder_start) == (64, 51289, 2)


def test_transformers_writes_what_we_read():
    transformers = pytest.importorskip("transformers")
    written = transformers.Florence2Config(**PRESETS["base"].to_json("native")).to_dict()
    assert FlorenceConfig.from_json(written) == replace(PRESETS["base"], image_token_id=51289)


def test_quirks_of_saved_configs():
    """The original writes an empty model_type for what it loaded, and early files had wrong ids at the top level."""
    record = PRESETS["base"].to_json("microsoft")
    record["vision_config"]["model_type"] = ""
    record |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    assert FlorenceConfig.from_json(record) == PRESETS["base"]


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("vision_config", {"model_type": "clip_vision_model"}, "clip_vision_model"),
        ("vision_config", {"depths": None}, "gives no depths"),
        ("vision_config", {"image_feature_source": ["last_frame"]}, "last_frame"),
        ("vision_config", {"image_pos_embed": {"type": "rotary"}}, "rotary"),
        ("vision_config", {"qkv_bias": False}, "qkv_bias"),
        ("text_config", {"d_model": 512}, "d_model 512"),
        ("text_config", {"scale_embedding": True}, "scale_embedding"),
        ("text_config", {"encoder_layers": None}, "gives no encoder_layers"),
    ],
)
def test_what_no_florence_has_is_refused_in_one_sentence(part, change, sentence):
    record = PRESETS["base"].to_json("microsoft")
    record[part] |= change
    with pytest.raises(ConfigError, match=sentence):
        FlorenceConfig.from_json(record)


def test_another_models_config_is_refused():
    with pytest.raises(ConfigError, match="not a Florence-2"):
        FlorenceConfig.from_json({"model_type": "bert"})
    with pytest.raises(ConfigError, match="native, microsoft"):
        PRESETS["base"].to_json("onnx")


@pytest.mark.parametrize(
    ("size", "image", "used"),
    [(51289, None, 51289), (51328, 51289, 51289), (320, 4, 320), (51289, 51289, 51289)],
)
def test_ids_that_may_be_answered(size, image, used):
    assert PRESETS["base"].with_vocabulary(size, image).used_vocab == used
