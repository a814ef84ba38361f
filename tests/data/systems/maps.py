"""Parts of networks whose activations are maps [N, dim, side, side]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .encoder import CLASSES


def tokens_of(x: Tensor) -> Tensor:
    """[N, dim, H, W] to [N, H·W, dim]."""
    return x.flatten(2).transpose(1, 2)


def map_of(x: Tensor, side: int) -> Tensor:
    """[N, side², dim] to [N, dim, side, side]."""
    return x.transpose(1, 2).reshape(x.shape[0], -1, side, side)


def windows(x: Tensor, size: int) -> Tensor:
    """[N, H, W, dim] to [N · windows, size², dim]."""
    n, height, width, dim = x.shape
    x = x.view(n, height // size, size, width // size, size, dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, dim)


def joined(x: Tensor, size: int, side: int) -> Tensor:
    """What :func:`windows` took apart: [N, side, side, dim]."""
    count = side // size
    x = x.view(-1, count, count, size, size, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, side, side, x.shape[-1])


def places(size: int) -> Tensor:
    """[size², size², 2]: how far a place is from another, in rows and columns."""
    at = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), -1)
    at = at.reshape(-1, 2)
    return at[:, None] - at[None]


def entries(size: int) -> Tensor:
    """[size², size²]: entries of a table of (2 size - 1)² relative positions."""
    return (places(size) + size - 1) @ torch.tensor([2 * size - 1, 1])


class Residual(nn.Module):
    """``x + scale · part(x)``, with a scale for each channel of a map where ``dim`` is given."""

    def __init__(self, *parts: nn.Module, dim: int | None = None) -> None:
        super().__init__()
        self.part = nn.Sequential(*parts)
        self.scale = None if dim is None else nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.part(x)
        return x + (y if self.scale is None else self.scale[:, None, None] * y)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm of the channels of every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class OnTokens(nn.Module):
    """A map as tokens, the parts, and a map again."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return map_of(self.parts(tokens_of(x)), x.shape[-1])


class Pooled(nn.Module):
    """The mean of all pixels, LayerNorm, the logits."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.mean((2, 3))))


def depthwise(dim: int, kernel: int = 3, stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, kernel, stride, kernel // 2, groups=dim, bias=bias)


def pixel_mlp(dim: int, hidden: int, act: Callable[[], nn.Module] = nn.GELU) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim, hidden, 1), act(), nn.Conv2d(hidden, dim, 1))
