"""The language model: masks, positions, the cache, and the two ways attention is computed."""

import pytest
import torch

from open_florence.model.attention import attend, causal_mask
from open_florence.model.bart import Bart
from open_florence.model.kv_cache import STEP, KVCache


@pytest.mark.parametrize("causal", [False, True])
def test_training_on_a_cpu_computes_the_same_attention(causal):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64).unbind(0)
    mask = None if causal else torch.rand(2, 1, 1, 6) < 0.7
    if mask is not None:
        mask[..., 0] = True
    fused = attend(query, key, value, mask, causal)
    manual = attend(query.requires_grad_(), key, value, mask, causal)
    assert manual.requires_grad
    torch.testing.assert_close(fused, manual.detach())


def test_attention_dropout_keeps_the_mean():
    torch.manual_seed(0)
    query = torch.zeros(64, 1, 64, 4, requires_grad=True)
    value = torch.ones(64, 1, 64, 4)
    dropped = attend(query, value, value, dropout=0.5)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropped.std() > 0.05


def test_causal_mask_continues_what_was_said():
    expected = torch.tensor([[True, True, True, False], [True, True, True, True]])
    assert torch.equal(causal_mask(2, 2, torch.device("cpu")), expected)


def test_the_decoder_does_not_read_ahead(make_model, config):
    bart = make_model().language_model
    memory, mask = torch.randn(1, 5, 48), torch.ones(1, 5, dtype=torch.bool)
    ids = torch.tensor([[2, 0, 9, 17, 40]])
    changed = ids.clone()
    changed[0, 3:] = 99
    with torch.inference_mode():
        before, after = (bart.decoder(bart.embed(row), memory, mask, None) for row in (ids, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().max() > 0.1


def test_padding_in_the_memory_is_not_read(make_model):
    bart = make_model().language_model
    memory = torch.randn(1, 5, 48)
    mask = torch.tensor([[True, True, True, False, False]])
    ids = torch.tensor([[2, 0, 9]])
    with torch.inference_mode():
        padded = bart.decoder(bart.embed(ids), memory, mask, None)
        short = bart.decoder(bart.embed(ids), memory[:, :3], mask[:, :3], None)
    torch.testing.assert_close(padded, short)


def test_positions_start_at_the_third_row_of_their_table(make_model):
    embedding = make_model().language_model.encoder.embedding
    x = torch.randn(1, 4, 48)
    rows = embedding.embed_positions.weight[5:9]
    with torch.inference_mode():
        torch.testing.assert_close(embedding(x, 3), embedding.layernorm_embedding(x + rows))


def test_a_sequence_beyond_the_table_is_refused(make_model, config):
    bart = make_model().language_model
    with pytest.raises(ValueError, match="65 tokens does not fit this model's 64 positions"):
        bart.encoder(torch.randn(1, 65, 48), torch.ones(1, 65, dtype=torch.bool))


def test_initial_weights(config):
    torch.manual_seed(0)
    bart = Bart(config.text)
    assert bart.shared.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not bart.shared.weight[config.text.pad].any()
    assert bart.encoder.layers[0].self_attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not bart.decoder.layers[0].cross_attn.kv.bias.any()
    assert bart.lm_head is None


def test_the_output_layer_is_the_embedding_unless_untied(make_model):
    hidden = torch.randn(1, 2, 48)
    tied, untied = (make_model(tied=tied).language_model for tied in (True, False))
    torch.testing.assert_close(tied.logits(hidden), hidden @ tied.shared.weight.T)
    torch.testing.assert_close(untied.logits(hidden), hidden @ untied.lm_head.weight.T)


def test_the_cache_grows_and_reorders():
    cache = KVCache()
    kept = []
    for step in range(STEP + 6):
        new = torch.full((2, 3, 1, 1, 1), float(step)) + torch.arange(3.0).view(1, 3, 1, 1, 1) / 10
        kept.append(new)
        held, _ = cache.append(0, new)
        cache.advance(1)
        torch.testing.assert_close(held, torch.cat(kept, dim=3))
    assert cache.length == STEP + 6
    cache.reorder(torch.tensor([2, 2, 0]))
    held, _ = cache.append(0, kept[0])
    torch.testing.assert_close(held[:, :, :, :-1], torch.cat(kept, dim=3)[:, [2, 2, 0]])
    cache.reorder(torch.tensor([1, 0, 0, 2, 2, 1]))  # more rows than before: one for every beam
    assert cache.append(0, torch.zeros(2, 6, 1, 1, 1))[0].shape == (2, 6, 1, STEP + 7, 1)


def test_half_precision_is_kept_from_overflowing(config):
    layer = Bart(config.text).encoder.layers[0].eval().half()
    with torch.no_grad():
        layer.final_layer_norm.bias.fill_(65504.0)
        layer.final_layer_norm.weight.fill_(60000.0)
    x = layer(torch.randn(1, 3, 48).half(), torch.ones(1, 1, 1, 3, dtype=torch.bool))
    assert bool(torch.isfinite(x).all())


def test_dropout_only_in_training(make_model):
    bart = make_model().language_model
    x, mask = torch.randn(1, 4, 48), torch.ones(1, 4, dtype=torch.bool)
    with torch.inference_mode():
        assert torch.equal(bart.encoder(x, mask), bart.encoder(x, mask))
        bart.train()
        assert not torch.equal(bart.encoder(x, mask), bart.encoder(x, mask))
