"""Generation against transformers' `generate`, against Microsoft's recorded outputs, and against itself done slowly."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from open_florence.errors import OpenFlorenceError
from open_florence.generation import Generation, GenerationConfig
from open_florence.inference import beam
from open_florence.inference.constraints import Constraints
from open_florence.inference.generate import generate, shape_distribution
from open_florence.inference.request import Stepper
from open_florence.model.checkpoint import read_weights
from open_florence.model.florence import Florence, Memory
from open_florence.model.kv_cache import KVCache
from open_florence.processor import IMAGENET_MEAN, IMAGENET_STD


def assert_close(ours: Generation, theirs: Generation, tolerance: float = 1e-4) -> None:
    assert ours.ids == theirs.ids
    assert ours.stopped == theirs.stopped
    for one, other in zip(ours.logprobs, theirs.logprobs, strict=True):
        assert one == pytest.approx(other, abs=tolerance)
    assert ours.sequence_scores == pytest.approx(theirs.sequence_scores, rel=1e-5, abs=tolerance)


# --- against transformers


def reference(pair: Any, **settings: object) -> tuple[list[list[int]], Tensor, Tensor | None, Tensor | None]:
    """transformers' ids without the start token, transition scores, sequence scores, beam indices."""
    count = len(pair.input_ids)
    images = torch.full((count, pair.visual), pair.image_token)
    output = pair.theirs.generate(
        input_ids=torch.cat([images, pair.input_ids], 1),
        attention_mask=torch.cat([torch.ones_like(images), pair.attention_mask], 1),
        pixel_values=pair.pixels,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    beams = getattr(output, "beam_indices", None)
    scores = pair.theirs.compute_transition_scores(
        output.sequences, output.scores, beams, normalize_logits=beams is None
    )
    return output.sequences[:, 1:].tolist(), scores, getattr(output, "sequences_scores", None), beams


def check_against_reference(pair: Any, **settings: object) -> Generation:
    ours = generate(pair.ours, pair.memory(), GenerationConfig(**settings))  # type: ignore[arg-type]
    sequences, scores, totals, beams = reference(pair, **settings)
    assert len(ours.ids) == len(sequences)
    for row, ids in enumerate(ours.ids):
        assert sequences[row] == ids + [1] * (len(sequences[row]) - len(ids))
        assert ours.logprobs[row] == pytest.approx(scores[row, : len(ids)].tolist(), abs=1e-4)
        if totals is not None and beams is not None:
            assert ours.sequence_scores[row] == pytest.approx(totals[row].item(), rel=1e-5, abs=1e-4)
            assert ours.beams[row] == beams[row, : len(ids)].tolist()
    return ours


@pytest.mark.parametrize("ngram", [0, 3])
@pytest.mark.parametrize("limit", [1, 2, 12, 30])
def test_greedy_is_transformers(pair: Any, ngram: int, limit: int) -> None:
    check_against_reference(pair, num_beams=1, no_repeat_ngram_size=ngram, max_new_tokens=limit)


@pytest.mark.parametrize("ngram", [0, 3])
@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0, -1.0])
def test_beams_are_transformers(pair: Any, ngram: int, early: bool | str, penalty: float) -> None:
    for limit, returned in itertools.product((12, 30), (1, 3)):
        check_against_reference(
            pair,
            num_beams=3,
            no_repeat_ngram_size=ngram,
            early_stopping=early,
            length_penalty=penalty,
            max_new_tokens=limit,
            num_return_sequences=returned,
        )


def test_five_beams_and_bigrams_are_transformers(pair: Any) -> None:
    check_against_reference(
        pair, num_beams=5, no_repeat_ngram_size=2, early_stopping=False, length_penalty=0.5, max_new_tokens=25
    )


def test_without_forced_tokens_and_with_suppressed_ones(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair.theirs.generation_config, "forced_bos_token_id", None)
    monkeypatch.setattr(pair.theirs.generation_config, "forced_eos_token_id", None)
    suppressed = (17, 40, 54, pair.image_token)
    for beams, limit in itertools.product((1, 3), (1, 2, 15)):
        settings = GenerationConfig(
            num_beams=beams, max_new_tokens=limit, forced_first=None, forced_last=None, suppressed=suppressed
        )
        ours = generate(pair.ours, pair.memory(), settings)
        sequences, scores, *_ = reference(
            pair, num_beams=beams, max_new_tokens=limit, suppress_tokens=list(suppressed), early_stopping=beams > 1
        )
        for row, ids in enumerate(ours.ids):
            assert sequences[row][: len(ids)] == ids
            assert ours.logprobs[row] == pytest.approx(scores[row, : len(ids)].tolist(), abs=1e-4)
            assert ours.stopped[row] == ("eos" if ids[-1] == 2 else "length")


def test_the_weights_put_generation_to_the_test(pair: Any) -> None:
    """Answers differ between questions, end at different lengths, move between beams, and the ban changes them."""
    greedy = generate(pair.ours, pair.memory(), GenerationConfig(max_new_tokens=30))
    beams = generate(pair.ours, pair.memory(), GenerationConfig(num_beams=3, max_new_tokens=30, num_return_sequences=3))
    banned = generate(pair.ours, pair.memory(), GenerationConfig.published(max_new_tokens=30, num_return_sequences=3))
    assert len({tuple(ids) for ids in greedy.ids}) == 4
    assert len({len(ids) for ids in greedy.ids + beams.ids}) >= 5
    assert set(greedy.stopped) == {"eos", "length"}
    assert any(row % 3 != 0 for path in beams.beams for row in path)
    assert banned.ids != beams.ids


@pytest.mark.parametrize(
    "settings",
    [{"top_k": 7}, {"top_p": 0.6}, {"temperature": 0.7}, {"temperature": 1.6, "top_k": 40, "top_p": 0.8}],
)
def test_sampling_draws_from_transformers_distribution(settings: dict[str, float]) -> None:
    scores = torch.randn(5, 200, generator=torch.Generator().manual_seed(1)) * 3
    scores[:, 20:40] = -float("inf")
    expected = scores
    for name, warper in (
        ("temperature", TemperatureLogitsWarper),
        ("top_k", TopKLogitsWarper),
        ("top_p", TopPLogitsWarper),
    ):
        if name in settings:
            expected = warper(settings[name])(torch.zeros(5, 1, dtype=torch.long), expected)
    ours = shape_distribution(scores, GenerationConfig(do_sample=True, **settings))  # type: ignore[arg-type]
    torch.testing.assert_close(ours, expected)


# --- against the outputs of Microsoft's original code


@pytest.fixture(scope="module")
def original(data_folder: Path) -> tuple[Florence, dict[str, Tensor], list[dict]]:  # type: ignore[type-arg]
    """The small checkpoint in Microsoft's layout, its image features, and what the original code generated with it."""
    folder = data_folder / "florence2_original_reference"
    config, state = read_weights(folder / "variant_a_1024")
    model = Florence(config).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    features = {}
    with np.load(folder / "golden.npz") as golden, torch.inference_mode():
        for name in ("image_a", "image_b", "image_c", "image_d"):
            pixels = torch.from_numpy(golden[f"input.{name}"]).permute(2, 0, 1).float() / 255
            features[name] = model.encode_image(((pixels - mean) / std)[None])
    records = [json.loads(line) for line in (folder / "generation.jsonl").read_text().splitlines()]
    return model, features, records


def test_every_recorded_generation_of_the_original(original) -> None:  # type: ignore[no-untyped-def]
    model, features, records = original
    assert len({record["mode"] for record in records}) == 7
    memories: dict[str, Memory] = {}
    for record in records:
        key = f"{record['images']} {record['input_ids']}"
        if key not in memories:
            input_ids = torch.tensor(record["input_ids"])
            with torch.inference_mode():
                images = torch.cat([features[name] for name in record["images"]])
                memories[key] = model.encode(images, input_ids, torch.ones_like(input_ids))
        limit = record["max_new_tokens"] or 19  # the library's default: 20 tokens, the start token among them
        output = generate(model, memories[key], GenerationConfig.published(max_new_tokens=limit, **record["kwargs"]))
        name = f"{record['mode']} {record['prompts']}"
        assert output.ids == [sequence[1:] for sequence in record["sequences"]], name
        for ours, theirs in zip(output.logprobs, record["transition_scores"], strict=True):
            assert ours == pytest.approx(theirs[: len(ours)], abs=5e-4), name
        if "sequences_scores" in record:
            assert output.sequence_scores == pytest.approx(record["sequences_scores"], abs=2e-4), name
            for ours, theirs in zip(output.beams, record["beam_indices"], strict=True):
                assert ours == theirs[: len(ours)], name


# --- fast paths against slow ones


class Uncached:
    """A model that reads the whole answer again at every step. The cache carries the ids only, and their beams."""

    def __init__(self, model: Florence) -> None:
        self.model, self.config, self.new_cache = model, model.config, KVCache

    def decode(self, ids: Tensor, memory: Memory, cache: KVCache) -> Tensor:
        every = cache.append(0, ids.expand(2, *ids.shape)[:, :, None, :, None])[0][0, :, 0, :, 0]
        cache.advance(ids.shape[1])
        return self.model.decode(every, memory, None)


@pytest.mark.parametrize(
    "settings",
    [
        GenerationConfig(max_new_tokens=30),
        GenerationConfig.published(max_new_tokens=30),
        GenerationConfig(max_new_tokens=30, num_beams=4, early_stopping="never", num_return_sequences=4),
        GenerationConfig(max_new_tokens=30, do_sample=True, seed=5, num_return_sequences=3),
    ],
)
def test_cached_is_uncached(pair: Any, settings: GenerationConfig) -> None:
    slow = Uncached(pair.ours)
    assert_close(generate(pair.ours, pair.memory(), settings), generate(slow, pair.memory(), settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [GenerationConfig(max_new_tokens=30), GenerationConfig.published(max_new_tokens=30)]
)
def test_a_padded_batch_is_one_by_one(pair: Any, settings: GenerationConfig) -> None:
    together = generate(pair.ours, pair.memory(), settings)
    for row in range(4):
        alone = generate(pair.ours, pair.memory(slice(row, row + 1)), settings)
        assert_close(
            alone,
            Generation(
                together.ids[row : row + 1],
                together.logprobs[row : row + 1],
                together.sequence_scores[row : row + 1],
                together.stopped[row : row + 1],
                [],
            ),
        )


def test_one_beam_is_greedy(pair: Any) -> None:
    config = GenerationConfig(max_new_tokens=30)
    constraints = Constraints(30, 0, 0, 2)
    with torch.inference_mode():
        narrow = beam.beam_search(Stepper(pair.ours, pair.memory(), None), config, constraints)
    assert_close(narrow, generate(pair.ours, pair.memory(), config))


def test_likeliest_of_one_is_greedy(pair: Any) -> None:
    greedy = generate(pair.ours, pair.memory(), GenerationConfig(max_new_tokens=20))
    drawn = generate(pair.ours, pair.memory(), GenerationConfig(max_new_tokens=20, do_sample=True, top_k=1))
    assert drawn.ids == greedy.ids


def test_cross_attention_is_computed_once_per_question(pair: Any) -> None:
    calls = []
    hooks = [
        layer.cross_attn.kv.register_forward_hook(lambda *_: calls.append(1))
        for layer in pair.ours.language_model.decoder.layers
    ]
    generate(pair.ours, pair.memory(), GenerationConfig.published(max_new_tokens=12))
    for hook in hooks:
        hook.remove()
    assert len(calls) == len(hooks)


# --- sampling, limits, mistakes


def test_seeds_are_reproducible_and_private(pair: Any) -> None:
    config = GenerationConfig(max_new_tokens=15, do_sample=True, temperature=2.0, seed=3, num_return_sequences=4)
    before = torch.random.get_rng_state()
    first = generate(pair.ours, pair.memory(), config)
    torch.manual_seed(99)
    second = generate(pair.ours, pair.memory(), config)
    torch.random.set_rng_state(before)
    other = generate(pair.ours, pair.memory(), replace(config, seed=4))
    unseeded = [generate(pair.ours, pair.memory(), replace(config, seed=None)).ids for _ in range(2)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == second
    assert first.ids != other.ids
    assert unseeded[0] != unseeded[1]
    assert len(first.ids) == 16
    assert len({tuple(ids) for ids in first.ids[:4]}) > 1


def test_ids_without_meaning_are_never_said_and_take_no_probability(pair: Any) -> None:
    used = 30
    config = GenerationConfig(max_new_tokens=12, vocabulary=used)
    ours = generate(pair.ours, pair.memory(), config)
    assert max(max(ids) for ids in ours.ids) < used
    for row, ids in enumerate(ours.ids):
        with torch.inference_mode():
            logits = pair.ours.decode(torch.tensor([[2, *ids[:-1]]]), pair.memory(slice(row, row + 1)))[0, :, :used]
        said = logits.log_softmax(-1)[range(len(ids)), ids]
        assert ours.logprobs[row][1:-1] == pytest.approx(said[1:-1].tolist(), abs=1e-4)
    beams = generate(pair.ours, pair.memory(), replace(config, num_beams=3))
    assert max(max(ids) for ids in beams.ids) < used < pair.vocabulary


@pytest.mark.parametrize("beams", [1, 3])
def test_the_table_of_positions_is_the_limit(pair: Any, beams: int) -> None:
    output = generate(pair.ours, pair.memory(), GenerationConfig(max_new_tokens=4096, num_beams=beams, suppressed=(2,)))
    assert {len(ids) for ids in output.ids} == {pair.positions}
    assert set(output.stopped) == {"length"}
    assert all(ids[-1] == 2 and steps[-1] == 0 for ids, steps in zip(output.ids, output.logprobs, strict=True))


def test_bfloat16(pair: Any) -> None:
    model = Florence(pair.ours.config).eval()
    model.load_state_dict(pair.ours.state_dict())
    model.bfloat16()
    with torch.inference_mode():
        memory = model.encode(model.encode_image(pair.pixels), pair.input_ids, pair.attention_mask)
    for config in (GenerationConfig(max_new_tokens=8), GenerationConfig.published(max_new_tokens=8)):
        output = generate(model, memory, config)
        assert len(output.ids) == 4
        assert all(np.isfinite(step) and step <= 0 for steps in output.logprobs for step in steps)


@pytest.mark.parametrize(
    "mistake",
    [
        {"num_beams": 0},
        {"max_new_tokens": 0},
        {"temperature": 0.0, "do_sample": True},
        {"top_p": 0.0},
        {"top_k": 0},
        {"do_sample": True, "num_beams": 3},
        {"num_return_sequences": 2},
        {"no_repeat_ngram_size": -1},
        {"early_stopping": "later"},
    ],
)
def test_settings_that_cannot_be(mistake: dict[str, object]) -> None:
    with pytest.raises(OpenFlorenceError):
        GenerationConfig(**mistake)  # type: ignore[arg-type]
