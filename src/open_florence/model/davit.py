"""DaViT, the image tower: attention over windows of the image, then over channels, in turn.

Follows Ding et al., "DaViT: Dual Attention Vision Transformers" (arXiv 2204.03645), in the form Florence-2 uses:
overlapping convolutional patches, two depthwise convolutions a block, and channel attention scaled by the number of
tokens. Shapes: B images, H and W of the grid at a stage, N = H W tokens, C channels, G heads or groups, D = C / G.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from open_florence.model.attention import attend
from open_florence.model.config import VisionConfig
from open_florence.model.packed import PackedLinear, being_recorded, linear_gelu, packable


class DaViT(nn.Module):
    """Four stages, each a strided convolution and pairs of a spatial and a channel block; no norm or head on top."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        rates = torch.linspace(0, config.drop_path, 2 * sum(config.depths), device="cpu").tolist()
        self.convs = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for i, dim in enumerate(config.dims):
            before = 3 if i == 0 else config.dims[i - 1]
            self.convs.append(ConvEmbed(config, i, before, dim))
            pairs = nn.ModuleList()
            for _ in range(config.depths[i]):
                window = WindowAttention(dim, config.heads[i], config.window)
                channel = ChannelAttention(dim, config.groups[i])
                spatial_rate, channel_rate, *rates = rates
                pairs.append(
                    DualBlock(
                        Block(dim, window, config.mlp_ratio, spatial_rate),
                        Block(dim, channel, config.mlp_ratio, channel_rate),
                    )
                )
            self.blocks.append(pairs)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels (B, 3, height, width) -> the last stage's feature map (B, C, H, W)."""
        x = pixel_values.permute(0, 2, 3, 1)  # (B, H, W, C): attention and norms want the channels last
        for conv, pairs in zip(self.convs, self.blocks, strict=True):
            x = conv(x)
            for pair in pairs:  # type: ignore[attr-defined]
                x = pair(x)
        return x.permute(0, 3, 1, 2)


class ConvEmbed(nn.Module):
    """Overlapping patches: the first stage normalises what the convolution gives, the others what it takes."""

    def __init__(self, config: VisionConfig, stage: int, before: int, dim: int) -> None:
        super().__init__()
        self.prenorm = config.patch_prenorm[stage]
        self.conv = nn.Conv2d(
            before,
            dim,
            kernel_size=config.patch_sizes[stage],
            stride=config.patch_strides[stage],
            padding=config.patch_paddings[stage],
        )
        self.norm = nn.LayerNorm(before if self.prenorm else dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        if self.prenorm:
            x = self.norm(x)
        x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x if self.prenorm else self.norm(x)


class DualBlock(nn.Module):
    """A spatial block, then a channel block."""

    def __init__(self, spatial_block: Block, channel_block: Block) -> None:
        super().__init__()
        self.spatial_block = spatial_block
        self.channel_block = channel_block

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        return self.channel_block(self.spatial_block(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Depthwise convolution, attention, depthwise convolution, MLP, each added to what came in.

    The convolutions are the tower's only sense of position; they have no norm, and stochastic depth leaves them be.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, int(dim * mlp_ratio))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = self._with_attention(_with_depthwise(self.conv1, x))
        x = _with_depthwise(self.conv2, x)
        if not _in_strips(x):
            return x + self._drop(self.ffn(self.norm2(x)))
        for strip in _strips(x, 1):
            strip += self.ffn(self.norm2(strip))
        return x

    def _with_attention(self, x: Tensor) -> Tensor:
        if _in_strips(x) and isinstance(self.attn, WindowAttention):
            for strip in _strips(x, self.attn.window):
                strip += self.attn(self.norm1(strip))
            return x
        if _in_strips(x) and isinstance(self.attn, ChannelAttention) and self.attn.packed:
            return self.attn.add_to(x, self.norm1)
        return x + self._drop(self.attn(self.norm1(x)))

    def _drop(self, x: Tensor) -> Tensor:
        """Stochastic depth (arXiv 1603.09382): in training, leave the branch out for some images, whole."""
        if not self.training or self.drop_path == 0.0:
            return x
        keep = 1.0 - self.drop_path
        return x * (torch.rand(x.shape[0], 1, 1, 1, device=x.device) < keep).to(x.dtype) / keep


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(linear_gelu(self.fc1, x))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Self-attention inside windows that do not overlap, without shift, position bias or mask.

    A grid that the window does not divide is padded with zeros at the right and bottom, after the norm; the padding is
    attended to, as in the published model.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        b, h, w, c = x.shape
        s = self.window
        bottom, right = -h % s, -w % s
        if bottom or right:
            x = F.pad(x, (0, 0, 0, right, 0, bottom))
        rows, columns = (h + bottom) // s, (w + right) // s
        x = x.view(b, rows, s, columns, s, c).transpose(2, 3).reshape(b * rows * columns, s * s, c)
        qkv = self.qkv(x).view(-1, s * s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        x = attend(*qkv.unbind(0)).transpose(1, 2).reshape(b * rows * columns, s * s, c)
        x = self.proj(x).view(b, rows, columns, s, s, c).transpose(2, 3)  # (B, rows, s, columns, s, C)
        return x.reshape(b, h + bottom, w + right, c)[:, :h, :w]


class ChannelAttention(nn.Module):
    """Attention whose tokens are channels: inside each group, every channel reads every other over the whole image.

    The logits are scaled by N ** -0.5, N being the number of grid cells at this stage, not by the group's width; the
    query is scaled before the sum over N, which keeps half precision in range.
    """

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.packed: tuple[PackedLinear, PackedLinear] | None = None
        """Queries and keys in one; the values' matrix transposed, without a bias. Made by `pack`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        b, h, w, c = x.shape
        n = h * w
        qkv = self.qkv(x).view(b, n, 3, self.groups, c // self.groups).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # each (B, G, N, D)
        weights = ((query * n**-0.5).transpose(2, 3) @ key).softmax(-1)  # (B, G, D, D)
        x = value @ weights.to(value.dtype).transpose(2, 3)  # (B, G, N, D)
        return self.proj(x.transpose(1, 2).reshape(b, h, w, c))  # type: ignore[no-any-return]

    def add_to(self, x: Tensor, norm: nn.Module) -> Tensor:
        """x + self(norm(x)) for x (B, H, W, C), written into x strip by strip, in two passes over each image.

        Once it is known what the channels read of each other, values, attention and projection are one matrix. Only
        after `pack`.
        """
        assert self.packed is not None
        exact = torch.promote_types(x.dtype, torch.float32)
        for image in x.chunk(len(x)):
            _, h, w, c = image.shape
            scores = torch.zeros(self.groups, c // self.groups, c // self.groups, dtype=exact)  # (G, D, D)
            for strip in _strips(image, 1):
                query, key = self.packed[0](norm(strip)).view(-1, 2, self.groups, c // self.groups).unbind(1)
                scores += (query.permute(1, 2, 0) @ key.transpose(0, 1)).to(exact)
            weights = (scores * (h * w) ** -0.5).softmax(-1).to(x.dtype)
            read = self.proj.weight.view(c, self.groups, -1).transpose(0, 1) @ weights  # (G, C, D)
            read = read.transpose(0, 1).reshape(c, c)
            layer = PackedLinear(self.packed[1](read), torch.addmv(self.proj.bias, read, self.qkv.bias[2 * c :]))
            for strip in _strips(image, 1):
                strip += layer(norm(strip))
        return x

    def pack(self) -> None:
        """Lays out what `add_to` needs of the weights; the layers themselves stay, for it reads them too."""
        c = self.proj.in_features
        if packable(self.proj.weight):
            self.packed = (
                PackedLinear(self.qkv.weight[: 2 * c], self.qkv.bias[: 2 * c]),
                PackedLinear(self.qkv.weight[2 * c :].T.contiguous(), None),
            )


STRIP = 1152
"""Grid cells worked on at a time on a CPU: what is made of them stays in its cache, in memory that is used again."""


def _in_strips(x: Tensor) -> bool:
    """Whether x (B, H, W, C) is better worked on in strips, in place: on a CPU, where nothing is to be learnt."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not being_recorded()


def _strips(x: Tensor, rows: int) -> Iterator[Tensor]:
    """Views of x (B, H, W, C) that cover it, (1, a multiple of `rows` but for the last, W, C)."""
    height = rows * max(1, STRIP // (rows * x.shape[2]))
    for image in x.chunk(len(x)):
        yield from torch.split(image, height, dim=1)


def _with_depthwise(conv: nn.Module, x: Tensor) -> Tensor:
    """x + a convolution of it, (B, H, W, C): the permuted view is PyTorch's channels-last format, nothing is copied."""
    seen: Tensor = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return seen.add_(x) if _in_strips(x) else x + seen
