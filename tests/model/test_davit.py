"""The image tower: shapes, windows, channel attention by its definition, stochastic depth, initial weights."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from open_florence.model.config import PRESETS
from open_florence.model.davit import Block, ChannelAttention, DaViT, WindowAttention

TINY = PRESETS["tiny"].vision


@pytest.mark.parametrize(("height", "width"), [(160, 160), (96, 160), (33, 70), (17, 17)])
def test_any_size_gives_a_grid(height, width):
    grid = DaViT(TINY).eval()(torch.randn(2, 3, height, width))
    cells = [-(-side // 16) for side in (height, width)]  # three strides of 4, 2 and 2
    assert grid.shape == (2, 192, *cells)


def test_window_attention_is_attention_in_each_window():
    torch.manual_seed(0)
    attention = WindowAttention(32, heads=2, window=4)
    x = torch.randn(2, 8, 4, 32)
    with torch.inference_mode():
        whole = attention(x)
        for top in (0, 4):
            alone = attention(x[:, top : top + 4])
            torch.testing.assert_close(whole[:, top : top + 4], alone)


def test_windows_are_padded_with_zeros_that_are_attended_to():
    torch.manual_seed(0)
    attention = WindowAttention(32, heads=2, window=4)
    x = torch.randn(1, 3, 6, 32)
    with torch.inference_mode():
        padded = attention(F.pad(x, (0, 0, 0, 2, 0, 1)))
        torch.testing.assert_close(attention(x), padded[:, :3, :6])


def test_channel_attention_by_its_definition():
    torch.manual_seed(0)
    attention = ChannelAttention(12, groups=3)
    x = torch.randn(1, 2, 5, 12)
    with torch.inference_mode():
        query, key, value = attention.qkv(x).view(10, 3, 3, 4).unbind(1)  # each (N, groups, 4)
        mixed = torch.empty(10, 3, 4)
        for group in range(3):
            q, k, v = query[:, group], key[:, group], value[:, group]
            weights = torch.softmax(q.T @ k / 10**0.5, dim=-1)  # scaled by the number of cells, 2 * 5
            mixed[:, group] = (weights @ v.T).T
        torch.testing.assert_close(attention(x), attention.proj(mixed.reshape(1, 2, 5, 12)))


def test_stochastic_depth_leaves_whole_images_out_and_keeps_the_mean():
    torch.manual_seed(0)
    block = Block(8, torch.nn.Identity(), 2.0, drop_path=0.25).train()
    ones = torch.ones(20_000, 1, 2, 8)
    dropped = block._drop(ones)
    per_image = dropped.flatten(1)
    assert bool((per_image == per_image[:, :1]).all())
    assert sorted(set(per_image[:, 0].tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert block.eval()._drop(ones) is ones


def test_stochastic_depth_rises_with_depth():
    tower = DaViT(replace(TINY, drop_path=0.1))
    rates = [
        block.drop_path
        for pairs in tower.blocks
        for pair in pairs
        for block in (pair.spatial_block, pair.channel_block)
    ]
    assert rates == pytest.approx(torch.linspace(0, 0.1, 10).tolist())


def test_initial_weights_keep_the_size_of_what_goes_through():
    torch.manual_seed(0)
    tower = DaViT(TINY)
    block = tower.blocks[3][0].spatial_block
    for weight in (block.attn.qkv.weight, block.ffn.fc1.weight, tower.convs[1].conv.weight, block.conv1.weight):
        fan_in = weight[0].numel()
        assert weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.1)


def test_training_gives_every_weight_a_gradient():
    tower = DaViT(replace(TINY, drop_path=0.0)).train()
    tower(torch.randn(1, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in tower.parameters())
