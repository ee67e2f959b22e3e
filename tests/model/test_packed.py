"""The fast paths of inference on a CPU against the plain ones that training takes: the same but for rounding."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from open_florence.errors import OpenFlorenceError
from open_florence.inference.pretrained import load_model, save_model
from open_florence.model import attention, davit
from open_florence.model.attention import attend
from open_florence.model.packed import PackedLinear, linear_gelu, pack, packable

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def relative(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference over the largest value."""
    return float((mine.double() - theirs.double()).abs().max() / theirs.double().abs().max())


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("rows", [(1,), (3, 5), (2, 7, 9)])
@torch.inference_mode()
def test_a_packed_layer_is_the_layer(dtype, rows):
    torch.manual_seed(0)
    if not packable(torch.zeros(48, 80, dtype=dtype)):
        pytest.skip(f"this processor does not compute in {dtype}")
    for layer in (nn.Linear(48, 80, dtype=dtype), nn.Linear(80, 48, bias=False, dtype=dtype)):
        packed = PackedLinear(layer.weight, layer.bias)
        x = torch.randn(*rows, layer.in_features, dtype=dtype)
        assert packed(x).shape == layer(x).shape
        assert relative(packed(x), layer(x)) < LIMITS[dtype]
        assert relative(linear_gelu(packed, x), F.gelu(layer(x).double())) < LIMITS[dtype]
        assert torch.equal(linear_gelu(layer, x), F.gelu(layer(x)))


def test_what_has_no_faster_order_is_left_alone():
    model = nn.ModuleDict(
        {
            "small": nn.Linear(8, 64),
            "exact": nn.Linear(64, 64, dtype=torch.float64),
            "kept": nn.Linear(64, 64),
            "nested": nn.Sequential(nn.Linear(64, 64)),
        }
    )
    pack(model, keep=[model["kept"]])
    assert [type(module) for name, module in model.items() if name != "nested"] == [nn.Linear] * 3
    assert isinstance(model["nested"][0], PackedLinear)
    assert not packable(torch.zeros(64, 64, dtype=torch.float16))


@pytest.fixture(scope="module")
def pixels():
    torch.manual_seed(1)
    return torch.randn(2, 3, 168, 168)  # a grid the windows of tiny do not divide, and more than a strip


def answer(model, pixels, prompt):
    """Image features, encoder states and logits of two rows with one cache step at the end."""
    features = model.encode_image(pixels)
    memory = model.encode(features, prompt, prompt != 1)
    cache = model.new_cache()
    first = model.decode(torch.tensor([[2, 0], [2, 0]]), memory, cache)
    return features, memory.hidden, torch.cat([first, model.decode(torch.tensor([[7], [9]]), memory, cache)], 1)


@pytest.mark.parametrize("dtype", LIMITS)
def test_a_packed_model_answers_as_the_plain_one(dtype, pixels):
    """The plain one with gradients, as in training: no strips, no blocks."""
    prompt = torch.tensor([[0, 20, 30, 2], [0, 40, 2, 1]])
    plain, fast = (load_model("tiny", dtype=dtype)[0] for _ in range(2))
    fast.pack()
    slow = [part.detach() for part in answer(plain, pixels, prompt)]
    with torch.inference_mode():
        for name, mine, theirs in zip(("image", "encoder", "logits"), answer(fast, pixels, prompt), slow, strict=True):
            assert relative(mine, theirs) < LIMITS[dtype], name
        states = torch.randn(2, 3, 128, dtype=dtype)
        assert relative(fast.logits(states, range(10, 50)), fast.logits(states)[..., 10:50]) < LIMITS[dtype]


def test_strips_are_the_whole(pixels, monkeypatch):
    """Strips of any height, in float64, where every difference would be a mistake."""
    model = load_model("tiny", dtype=torch.float32)[0].double()
    whole = model.encode_image(pixels.double()).detach()
    for size in (1, 100, 1152):
        monkeypatch.setattr(davit, "STRIP", size)
        with torch.inference_mode():
            torch.testing.assert_close(model.encode_image(pixels.double()), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("queries", [1, 3, 20])
@pytest.mark.parametrize("mask", [None, "memory", "causal"])
@torch.inference_mode()
def test_attention_in_blocks_is_attention(queries, mask, monkeypatch):
    torch.manual_seed(2)
    monkeypatch.setattr(attention, "FEW", 100)
    q, k, v = (torch.randn(5, 2, n, 8, dtype=torch.float64) for n in (queries, 30, 30))
    seen = {
        None: None,
        "memory": torch.rand(5, 1, 1, 30) > 0.3,
        "causal": torch.ones(queries, 30, dtype=torch.bool).tril(30 - queries),
    }[mask]
    expected = F.scaled_dot_product_attention(q, k, v, seen)
    for block in (1, 200, 2**22):
        monkeypatch.setattr(attention, "BLOCK", block)
        torch.testing.assert_close(attend(q, k, v, seen), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@torch.inference_mode()
def test_attention_head_by_head_is_attention(masked):
    torch.manual_seed(3)
    q, k, v = torch.randn(3, 2, 300, 2, 16).transpose(2, 3).unbind(0)  # as they come from a layer: not contiguous
    seen = torch.rand(2, 1, 1, 300) > 0.3 if masked else None
    assert relative(attend(q, k, v, seen), F.scaled_dot_product_attention(q, k, v, seen)) < 1e-5


def test_without_onednn_everything_is_plain(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model, _ = load_model("tiny")
    model.pack()
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    q, k, v = torch.randn(3, 1, 2, 300, 16).unbind(0)
    assert relative(attend(q, k, v), F.scaled_dot_product_attention(q, k, v)) < 1e-5
    with torch.inference_mode():
        assert model.encode_image(torch.zeros(1, 3, 160, 160)).isfinite().all()


def test_a_packed_model_is_not_saved(tmp_path):
    model, processor = load_model("tiny")
    model.pack()
    with pytest.raises(OpenFlorenceError, match="load_model"):
        save_model(model, processor, tmp_path / "out")
    assert not (tmp_path / "out").exists()
