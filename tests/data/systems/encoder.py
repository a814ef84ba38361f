"""A small vision transformer whose parts the systems of this folder replace.

Everything is [N, T, dim] between patches and head; ``Block`` has the two residual branches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE, PATCH, CLASSES = 16, 4, 5
#: Patches along a side, tokens without those before them.
SIDE = SIZE // PATCH
TOKENS = SIDE * SIDE


class Heads(nn.Module):
    """Multi-head attention; ``weigh`` is what a paper replaces."""

    def __init__(self, dim: int = 12, heads: int = 3, *, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.width = heads, dim // heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=bias), nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """[N, T, dim] to [N, heads, T, width]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.transpose(-1, -2) * self.width**-0.5

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.scores(q, k).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, -1))
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


def mlp(dim: int = 12, hidden: int = 16, act: type[nn.Module] = nn.GELU) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, hidden), act(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed(norm(x))``."""

    def __init__(
        self, mix: nn.Module, feed: nn.Module | None = None, dim: int = 12,
        norm: type[nn.Module] = nn.LayerNorm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1, self.mix, self.norm2 = norm(dim), mix, norm(dim)
        self.feed = mlp(dim) if feed is None else feed

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Vit(nn.Module):
    """Patches, ``before`` learned tokens, positions, the blocks, a norm, pooled or first token."""

    def __init__(self, *blocks: nn.Module, dim: int = 12, before: int = 0) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, before, dim)) if before else None
        self.position = nn.Parameter(0.5 * torch.randn(1, before + TOKENS, dim))
        self.blocks, self.norm = nn.Sequential(*blocks), nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def tokens(self, image: Tensor) -> Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)
        if self.first is not None:
            x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
        return x + self.position

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.tokens(image)))
        return self.head(x.mean(1) if self.first is None else x[:, 0])
