"""Token mixers: constant matrices over tokens, and gates made by them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import SIDE, TOKENS, Block, Vit, mlp
from .maps import Residual, joined, tokens_of, windows


class Across(nn.Module):
    """``part`` over tokens instead of channels."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x.transpose(1, 2)).transpose(1, 2)


class Affine(nn.Module):
    """ResMLP's norm: a scale and a shift for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(dim) + 0.5), nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, self.scale, x)


class ResMlp(nn.Module):
    """ResMLP (Touvron et al. 2021): one matrix over patches, an MLP, LayerScale on both."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.norm1, self.norm2, self.feed = Affine(dim), Affine(dim), mlp(dim)
        self.mix = Across(nn.Linear(TOKENS, TOKENS))
        self.scale1, self.scale2 = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.mix(self.norm1(x))
        return x + self.scale2 * self.feed(self.norm2(x))


class SpatialGate(nn.Module):
    """gMLP (Liu et al. 2021): half of the channels, mixed over tokens, gates the other half."""

    def __init__(self, dim: int = 12, hidden: int = 24, count: int = TOKENS) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(dim, hidden), nn.Linear(hidden // 2, dim)
        self.norm0, self.norm = nn.LayerNorm(dim), nn.LayerNorm(hidden // 2)
        self.spatial = nn.Conv1d(count, count, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = functional.gelu(self.first(self.norm0(x))).chunk(2, -1)
        return x + self.last(u * self.spatial(self.norm(v)))


class Raster(nn.Module):
    """RaftMLP (Tatsunami & Taki 2022): an MLP over rows, then one over columns.

    ``raft`` channels that are neighbours are mixed together with the places of a line.
    """

    def __init__(self, dim: int = 12, raft: int = 2) -> None:
        super().__init__()
        self.raft, lines = raft, SIDE * raft
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.vertical, self.horizontal = mlp(lines, 2 * lines), mlp(lines, 2 * lines)

    def forward(self, x: Tensor) -> Tensor:
        n, _, dim = x.shape
        y = self.norm1(x).view(n, SIDE, SIDE, self.raft, -1).permute(0, 2, 4, 3, 1)
        y = self.vertical(y.flatten(3)).unflatten(3, (self.raft, SIDE)).permute(0, 4, 1, 3, 2)
        x = x + y.reshape(n, -1, dim)
        y = self.norm2(x).view(n, SIDE, SIDE, self.raft, -1).permute(0, 1, 4, 3, 2)
        y = self.horizontal(y.flatten(3)).unflatten(3, (self.raft, SIDE)).permute(0, 1, 4, 3, 2)
        return x + y.reshape(n, -1, dim)


class MixerBlock(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021): an MLP over tokens, then one over channels."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.block = Block(Across(mlp(TOKENS, 8)), mlp(dim), dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class NiNBlock(nn.Module):
    """NiNformer (Abdullah & Aydin 2024): what a whole Mixer block makes gates a projection.

    One LayerNorm is used twice.
    """

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.norm, self.proj, self.inner = nn.LayerNorm(dim), nn.Linear(dim, dim), MixerBlock(dim)
        self.feed = mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.proj(y) * self.inner(y)
        return x + self.feed(self.norm(x))


class AxisGate(nn.Module):
    """MAXIM's gated MLP over one axis of [N, groups, places, dim], with a residual around it."""

    def __init__(self, dim: int, count: int, axis: int) -> None:
        super().__init__()
        self.axis, self.norm0, self.norm = axis, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.first, self.last = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.spatial = nn.Linear(count, count)

    def forward(self, x: Tensor) -> Tensor:
        u, v = functional.gelu(self.first(self.norm0(x))).chunk(2, -1)
        v = self.spatial(self.norm(v).transpose(self.axis, -1)).transpose(self.axis, -1)
        return x + self.last(u * (v + 1.0))


class MultiAxis(nn.Module):
    """MAXIM (Tu et al. 2022): half of the channels is gated in a grid, half in blocks."""

    def __init__(self, dim: int = 12, size: int = 2) -> None:
        super().__init__()
        self.size, count = size, size * size
        self.norm = nn.LayerNorm(dim)
        self.first, self.last = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.grid, self.block = AxisGate(dim, count, 1), AxisGate(dim, count, 2)

    def gated(self, x: Tensor, gate: nn.Module, size: int) -> Tensor:
        y = windows(x, size)
        y = gate(y.view(x.shape[0], -1, size * size, x.shape[-1]))
        return joined(y.flatten(0, 1), size, SIDE)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.view(x.shape[0], SIDE, SIDE, x.shape[-1])
        u, v = functional.gelu(self.first(self.norm(grid))).chunk(2, -1)
        y = [self.gated(u, self.grid, SIDE // self.size), self.gated(v, self.block, self.size)]
        return x + self.last(torch.cat(y, -1)).flatten(1, 2)


class ChannelAttention(nn.Module):
    """MAXIM's residual block: LayerNorm, two convolutions, squeeze and excite."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.body = nn.Sequential(
            nn.Conv2d(dim, dim, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(dim, dim, 3, 1, 1)
        )
        self.excite = nn.Sequential(
            nn.Conv2d(dim, 4, 1), nn.ReLU(), nn.Conv2d(4, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        grid = x.view(x.shape[0], SIDE, SIDE, x.shape[-1])
        y = self.body(self.norm(grid).permute(0, 3, 1, 2))
        return x + tokens_of(y * self.excite(y.mean((2, 3), keepdim=True)))


SYSTEMS = {
    "mixer": lambda: Vit(MixerBlock(), MixerBlock()),
    "resmlp": lambda: Vit(ResMlp(), ResMlp()),
    "gmlp": lambda: Vit(SpatialGate(), SpatialGate()),
    "raftmlp": lambda: Vit(Raster(), Residual(nn.LayerNorm(12), mlp())),
    "ninformer": lambda: Vit(NiNBlock()),
    "maxim": lambda: Vit(MultiAxis(8), ChannelAttention(8), dim=8),
}
