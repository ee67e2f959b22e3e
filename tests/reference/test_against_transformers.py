"""The same random weights in transformers' Florence-2 and in ours: every stage, state and logit is the same."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from open_florence.inference.pretrained import build
from open_florence.model.checkpoint import read_weights, to_layout, write_weights
from open_florence.model.config import PRESETS, FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence

transformers = pytest.importorskip("transformers")

SMALL = FlorenceConfig(
    VisionConfig((32, 64, 96, 128), (1, 2, 1, 1), (1, 2, 3, 4), (1, 2, 3, 4), projection_dim=64),
    TextConfig(320, 64, 2, 3, encoder_heads=4, decoder_heads=4, encoder_ffn=96, decoder_ffn=160, max_positions=300),
    image_token_id=300,
)
"""No two sizes that could be mistaken for each other are the same."""


def native(name):
    config = PRESETS[name]
    return config.with_vocabulary(51328, image_token_id=51289)


SHAPES = [
    pytest.param(SMALL, 210, id="small"),  # grids of 53, 27, 14 and 7: every window is padded
    pytest.param(native("base"), 768, id="base", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    pytest.param(native("large"), 768, id="large", marks=[pytest.mark.slow, pytest.mark.timeout(2400)]),
]


def published(config, spread, seed=0):
    """transformers' model of a shape, with spread weights."""
    settings = transformers.Florence2Config(**config.to_json("native"))
    model = transformers.Florence2ForConditionalGeneration._from_config(settings, attn_implementation="eager")
    spread(model, seed)
    return model.eval()


def through_our_loader(theirs, folder):
    """Our model with the weights of transformers' one, by way of the files that it saves."""
    theirs.save_pretrained(folder)
    config, state = read_weights(folder)
    shutil.rmtree(folder)
    return build(config, state, torch.float32)


def inputs(config, size, rows=2):
    """Pixels, prompts of different lengths (right-padded) and answers."""
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randn(rows, 3, size, size, generator=draw)
    input_ids = torch.randint(3, config.used_vocab, (rows, 9), generator=draw)
    mask = torch.ones_like(input_ids)
    if rows > 1:
        mask[1, 6:] = 0
        input_ids[1, 6:] = config.text.pad
    labels = torch.randint(3, config.used_vocab, (rows, 11), generator=draw)
    return pixels, input_ids, mask, labels


def with_placeholders(config, input_ids, mask, tokens):
    """The prompt as transformers wants it: image placeholders before the text."""
    image = input_ids.new_full((len(input_ids), tokens), config.image_token_id)
    return torch.cat([image, input_ids], 1), torch.cat([torch.ones_like(image), mask], 1)


@pytest.mark.parametrize(("config", "size"), SHAPES)
def test_every_state_is_equal(config, size, spread, relative_error, tmp_path):
    theirs = published(config, spread)
    ours = through_our_loader(theirs, tmp_path / "native")
    assert ours.config.text == config.text
    pixels, input_ids, mask, labels = inputs(config, size, rows=2 if config is SMALL else 1)
    stages = {"theirs": [], "ours": []}
    for stage in range(4):
        last = theirs.model.vision_tower.blocks[stage][-1]
        last.register_forward_hook(lambda _m, _i, out: stages["theirs"].append(out.permute(0, 2, 3, 1).flatten(1, 2)))
        ours.vision_tower.blocks[stage][-1].register_forward_hook(
            lambda _m, _i, out: stages["ours"].append(out.flatten(1, 2))
        )
    with torch.inference_mode():
        features = ours.encode_image(pixels)
        memory = ours.encode(features, input_ids, mask)
        decoder_ids = ours.shift_right(labels)
        logits = ours.decode(decoder_ids, memory)
        long_ids, long_mask = with_placeholders(config, input_ids, mask, features.shape[1])
        reference = theirs(
            input_ids=long_ids, attention_mask=long_mask, pixel_values=pixels, decoder_input_ids=decoder_ids
        )
        projected = theirs.get_image_features(pixels).pooler_output
    for mine, other in zip(stages["ours"], stages["theirs"][:4], strict=True):
        assert relative_error(mine, other) < 1e-5
    assert relative_error(features, projected) < 1e-5
    assert relative_error(memory.hidden[long_mask.bool()], reference.encoder_last_hidden_state[long_mask.bool()]) < 1e-5
    assert relative_error(logits, reference.logits) < 1e-5


def test_loss_and_gradients_are_equal(spread, tmp_path):
    """In float64, so that only a mistake can make a difference; through the path that training takes."""
    theirs = published(SMALL, spread).double()
    theirs.save_pretrained(tmp_path)
    config, state = read_weights(tmp_path)
    ours = build(config, state, torch.float64)
    pixels, input_ids, mask, labels = inputs(SMALL, 96)
    labels[0, 8:] = -100
    logits = ours(pixels.double(), input_ids, mask, labels)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    loss.backward()
    long_ids, long_mask = with_placeholders(SMALL, input_ids, mask, 1 + 9)
    reference = theirs(input_ids=long_ids, attention_mask=long_mask, pixel_values=pixels.double(), labels=labels)
    reference.loss.backward()
    assert loss.item() == pytest.approx(reference.loss.item(), rel=1e-6)  # theirs is computed in float32
    state = {name: p.grad for name, p in ours.named_parameters()} | {"projector.temporal": ours.projector.temporal}
    gradients = dict(to_layout(config, state, "native"))
    for name, parameter in theirs.named_parameters():
        scale = parameter.grad.abs().max()
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=float(1e-6 * scale + 1e-12), msg=name)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_what_we_write(spread, tmp_path, tied):
    config = replace(SMALL, text=replace(SMALL.text, tied=tied))
    ours = Florence(config).eval()
    spread(ours, 3)
    write_weights(tmp_path, config, ours.state_dict(), "native")
    theirs, report = transformers.Florence2ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    pixels, input_ids, mask, labels = inputs(config, 64)
    long_ids, long_mask = with_placeholders(config, input_ids, mask, 1 + 4)
    with torch.inference_mode():
        logits = ours(pixels, input_ids, mask, labels)
        reference = theirs.eval()(
            input_ids=long_ids,
            attention_mask=long_mask,
            pixel_values=pixels,
            decoder_input_ids=ours.shift_right(labels),
        )
    torch.testing.assert_close(logits, reference.logits, rtol=1e-5, atol=1e-4)
    assert theirs.generation_config.num_beams == 3
