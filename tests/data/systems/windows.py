"""Attention in windows and grids."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import CLASSES, SIDE, Block, Heads, mlp
from .maps import (
    ChannelNorm,
    OnTokens,
    Pooled,
    Residual,
    depthwise,
    entries,
    joined,
    map_of,
    tokens_of,
    windows,
)

WINDOW = 2


class Biased(Heads):
    """Attention with a table of relative positions for each head."""

    def __init__(self, dim: int, heads: int, size: int = WINDOW) -> None:
        super().__init__(dim, heads)
        wide = 2 * size - 1
        self.table = nn.Parameter(torch.randn(wide * wide, heads))
        self.register_buffer("index", entries(size), persistent=False)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return super().scores(q, k) + self.table[self.index].permute(2, 0, 1)


class Partitioned(nn.Module):
    """MaxViT (Tu et al. 2022): a block of attention in windows or in a dilated grid."""

    def __init__(self, dim: int, heads: int, *, grid: bool) -> None:
        super().__init__()
        self.grid, self.block = grid, Block(Biased(dim, heads), dim=dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        side = x.shape[1]
        if not self.grid:
            return joined(self.block(windows(x, WINDOW)), WINDOW, side).permute(0, 3, 1, 2)
        step = side // WINDOW
        x = x.unflatten(1, (WINDOW, step)).unflatten(3, (WINDOW, step)).permute(0, 2, 4, 1, 3, 5)
        y = self.block(x.flatten(0, 2).flatten(1, 2))
        y = y.view(-1, step, step, WINDOW, WINDOW, y.shape[-1]).permute(0, 3, 1, 4, 2, 5)
        return y.flatten(1, 2).flatten(2, 3).permute(0, 3, 1, 2)


class MbConv(nn.Module):
    """MaxViT's inverted bottleneck: pre-norm, GELU, squeeze and excite, a pooled shortcut."""

    def __init__(self, dim: int, out: int, wide: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(dim), nn.Conv2d(dim, wide, 1, bias=False), nn.BatchNorm2d(wide),
            nn.GELU(), depthwise(wide, 3, 2, bias=False), nn.BatchNorm2d(wide), nn.GELU(),
        )  # fmt: skip
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 4, 1), nn.SiLU(), nn.Conv2d(4, wide, 1),
            nn.Sigmoid(),
        )  # fmt: skip
        self.last = nn.Conv2d(wide, out, 1)
        self.short = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(dim, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.short(x) + self.last(y * self.squeeze(y))


class Nest(nn.Module):
    """NesT (Zhang et al. 2022): attention within blocks; then a convolution merges them."""

    def __init__(self, dim: int = 8, out: int = 12) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.position = nn.ParameterList(
            torch.randn(1, count, WINDOW**2, width) for count, width in ((4, dim), (1, out))
        )
        self.levels = nn.ModuleList(Block(Heads(w, h), dim=w) for w, h in ((dim, 2), (out, 3)))
        self.merge = nn.Sequential(
            nn.Conv2d(dim, out, 3, padding=1), ChannelNorm(out), nn.MaxPool2d(3, 2, 1)
        )
        self.head = Pooled(out)

    def level(self, x: Tensor, number: int) -> Tensor:
        n, dim, side, _ = x.shape
        x = windows(x.permute(0, 2, 3, 1), WINDOW).view(n, -1, WINDOW**2, dim)
        x = (x + self.position[number]).flatten(0, 1)
        return joined(self.levels[number](x), WINDOW, side).permute(0, 3, 1, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.merge(self.level(self.patch(image), 0))
        return self.head(self.level(x, 1))


class HiLo(nn.Module):
    """LITv2 (Pan et al. 2022): some heads attend in windows, the others to pooled windows."""

    def __init__(self, dim: int = 16, heads: int = 4, low: int = 2) -> None:
        super().__init__()
        self.width, self.low = dim // heads, low
        low_dim, high_dim = low * self.width, (heads - low) * self.width
        self.q, self.kv = nn.Linear(dim, low_dim), nn.Linear(dim, 2 * low_dim)
        self.low_proj = nn.Linear(low_dim, low_dim)
        self.high = nn.Linear(dim, 3 * high_dim)
        self.high_proj = nn.Linear(high_dim, high_dim)
        self.pool = nn.AvgPool2d(WINDOW, WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        n, count, dim = x.shape
        grid = x.view(n, SIDE, SIDE, dim)
        q, k, v = self.high(windows(grid, WINDOW)).unflatten(-1, (3, -1, self.width)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        y = ((q @ k.transpose(-1, -2)) * self.width**-0.5).softmax(-1) @ v
        high = self.high_proj(joined(y.transpose(1, 2).flatten(2), WINDOW, SIDE)).flatten(1, 2)
        small = tokens_of(self.pool(grid.permute(0, 3, 1, 2)))
        q = self.q(x).view(n, count, self.low, self.width).transpose(1, 2)
        kv = self.kv(small).view(n, -1, 2, self.low, self.width).permute(2, 0, 3, 1, 4)
        y = ((q @ kv[0].transpose(-1, -2)) * self.width**-0.5).softmax(-1) @ kv[1]
        return torch.cat([high, self.low_proj(y.transpose(1, 2).flatten(2))], -1)


class MaskUnits(nn.Module):
    """Hiera (Ryali et al. 2023): attention in mask units, whose queries are pooled by a maximum.

    Tokens are [N, stride · units · count, dim]; those that one query pools are ``stride`` apart.
    """

    def __init__(self, dim: int, out: int, heads: int, units: int, stride: int) -> None:
        super().__init__()
        self.out, self.heads, self.units, self.stride = out, heads, units, stride
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(out)
        self.qkv, self.proj = nn.Linear(dim, 3 * out), nn.Linear(out, out)
        self.short, self.feed = nn.Linear(dim, out), mlp(out)

    def pooled(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.stride, -1)).amax(1)

    def forward(self, x: Tensor) -> Tensor:
        n, y = x.shape[0], self.norm1(x)
        short = self.pooled(self.short(y)) if self.stride > 1 else x
        qkv = self.qkv(y).reshape(n, -1, self.units, 3, self.heads, self.out // self.heads)
        q, k, v = qkv.permute(3, 0, 4, 2, 1, 5)
        if self.stride > 1:
            q = q.unflatten(3, (self.stride, -1)).amax(3)
        y = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        x = short + self.proj(y.transpose(1, 3).reshape(n, -1, self.out))
        return x + self.feed(self.norm2(x))


class Hiera(nn.Module):
    """Two stages: four mask units of four tokens, then their maxima with one another."""

    def __init__(self, dim: int = 8, out: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 7, 4, 3)
        self.position = nn.Parameter(torch.randn(1, SIDE * SIDE, dim))
        self.blocks = nn.Sequential(
            MaskUnits(dim, dim, 2, 4, 1), MaskUnits(dim, out, 2, 4, 4), MaskUnits(out, out, 2, 1, 1)
        )
        self.norm, self.head = nn.LayerNorm(out), nn.Linear(out, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = tokens_of(self.patch(image)) + self.position
        x = x.view(-1, 2, 2, 2, 2, x.shape[-1]).permute(0, 2, 4, 1, 3, 5).flatten(1, 4)
        return self.head(self.norm(self.blocks(x).mean(1)))


class ChannelGroups(Heads):
    """DaViT (Ding et al. 2022): in each group channels attend to channels."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = ((k * self.width**-0.5).transpose(-1, -2) @ v).softmax(-1)
        return (weights @ q.transpose(-1, -2)).transpose(-1, -2)


class InWindows(nn.Module):
    """Tokens [N, T, dim] cut into windows for ``mix`` and put together again."""

    def __init__(self, mix: nn.Module) -> None:
        super().__init__()
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        grid = x.view(x.shape[0], SIDE, SIDE, x.shape[-1])
        return joined(self.mix(windows(grid, WINDOW)), WINDOW, SIDE).flatten(1, 2)


class Subsampled(nn.Module):
    """Twins (Chu et al. 2021): queries of all tokens, keys of a strided convolution."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(dim)
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.reduce = nn.Conv2d(dim, dim, WINDOW, WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        small = self.norm(tokens_of(self.reduce(map_of(x, SIDE))))
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(small).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class SwinV2(nn.Module):
    """Swin V2 (Liu et al. 2022): cosines, a bias from log-spaced offsets, norms after branches.

    Queries and values have a bias, keys have none; windows are shifted by half of one.
    """

    def __init__(self, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.heads, self.shift = heads, shift
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))
        self.scale = nn.Parameter(torch.log(10 * torch.ones(heads, 1, 1)))
        self.say = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, heads, bias=False))
        self.norm1, self.norm2, self.feed = nn.LayerNorm(dim), nn.LayerNorm(dim), mlp(dim)
        wide = torch.arange(1.0 - WINDOW, WINDOW) / (WINDOW - 1) * 8
        wide = wide.sign() * torch.log2(wide.abs() + 1) / math.log2(8)
        table = torch.stack(torch.meshgrid(wide, wide, indexing="ij"), -1)
        self.register_buffer("table", table[None], persistent=False)
        self.register_buffer("index", entries(WINDOW), persistent=False)
        area = torch.zeros(SIDE, SIDE)
        for part in (slice(-WINDOW, -shift), slice(-shift, None)) if shift else ():
            area[part] += 1
            area[:, part] += 4
        area = windows(area[None, :, :, None], WINDOW).squeeze(-1)
        mask = (area[:, :, None] != area[:, None]) * -100.0
        self.register_buffer("mask", mask[:, None], persistent=False)

    def attend(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = functional.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-2, -1)
        scores = scores * torch.clamp(self.scale, max=math.log(100.0)).exp()
        bias = self.say(self.table).view(-1, self.heads)[self.index.view(-1)]
        bias = bias.view(*self.index.shape, -1).permute(2, 0, 1)
        scores = scores + 16 * torch.sigmoid(bias)[None]
        if self.shift:
            shape, count = scores.shape, self.mask.shape[0]
            scores = (scores.view(-1, count, *shape[1:]) + self.mask[None]).view(-1, *shape[1:])
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        grid = x.view(x.shape[0], SIDE, SIDE, x.shape[-1])
        if self.shift:
            grid = torch.roll(grid, (-self.shift, -self.shift), (1, 2))
        y = joined(self.attend(windows(grid, WINDOW)), WINDOW, SIDE)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + self.norm1(y.flatten(1, 2))
        return x + self.norm2(self.feed(x))


def patches(dim: int, size: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, dim, size, size), ChannelNorm(dim))


def davit(dim: int = 12) -> nn.Module:
    """Two blocks, each with a depthwise convolution before attention and before the MLP."""
    near = (Residual(depthwise(dim)), OnTokens(Block(InWindows(Heads(dim)), dim=dim)))
    far = (Residual(depthwise(dim)), OnTokens(Block(ChannelGroups(dim), dim=dim)))
    return nn.Sequential(patches(dim), *near, *far, Pooled(dim))


def twins(dim: int = 12) -> nn.Module:
    """Locally grouped attention, a positional convolution, global subsampled attention."""
    return nn.Sequential(
        patches(dim), OnTokens(Block(InWindows(Heads(dim)), dim=dim)), Residual(depthwise(dim)),
        OnTokens(Block(Subsampled(dim, 3), dim=dim)), Pooled(dim),
    )  # fmt: skip


def maxvit(dim: int = 8, out: int = 8) -> nn.Module:
    """A stem of two convolutions, MBConv with stride, block and grid attention."""
    stem = nn.Conv2d(3, dim, 3, 2, 1), nn.BatchNorm2d(dim), nn.GELU(), nn.Conv2d(dim, dim, 3, 1, 1)
    attention = (Partitioned(out, 2, grid=grid) for grid in (False, True))
    return nn.Sequential(*stem, MbConv(dim, out, 16), *attention, Pooled(out))


SYSTEMS = {
    "maxvit": maxvit,
    "nest": Nest,
    "hilo": lambda: nn.Sequential(patches(16), OnTokens(Block(HiLo(), dim=16)), Pooled(16)),
    "hiera": Hiera,
    "davit": davit,
    "twins": twins,
    "swin_v2": lambda: nn.Sequential(
        patches(12), OnTokens(SwinV2(12, 3, 0), SwinV2(12, 3, 1)), Pooled(12)
    ),
}
