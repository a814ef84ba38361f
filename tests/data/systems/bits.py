"""Models with binary numbers inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import Block, Heads, Vit


def sign(x: Tensor) -> Tensor:
    """1 where ``x`` is not negative, −1 elsewhere."""
    return torch.where(x >= 0, 1.0, -1.0)


class EcoFormer(Heads):
    """EcoFormer (Liu et al. 2022): queries and keys become codes of a kernelised hash.

    Codes are signs of weighed Gaussian similarities to support samples; their products, moved
    to be positive, are the weights of linear attention.
    """

    def __init__(self, bits: int = 8, support: int = 6) -> None:
        super().__init__()
        self.support = nn.Parameter(torch.randn(self.heads, support, self.width) * 0.5)
        self.weights = nn.Parameter(torch.randn(self.heads, support, bits))
        self.bits = bits

    def code(self, x: Tensor) -> Tensor:
        square = x.pow(2).sum(-1, keepdim=True)
        square = square + self.support.pow(2).sum(-1)[:, None]
        away = square - 2.0 * x @ self.support.transpose(-1, -2)
        near = torch.exp(-0.5 * away)
        return sign((near - near.mean(-1, keepdim=True)) @ self.weights)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # (bits + <a, b>) / 2 bits that agree: a one beside the codes adds the constant
        q, k = (functional.pad(self.code(x), (0, 1), value=self.bits**0.5) for x in (q, k))
        sums = q @ k.sum(-2)[..., None]
        return q @ (k.transpose(-1, -2) @ v) / (sums + 1e-3)


class BinaryLinear(nn.Linear):
    """Signs of weights, a scale of each output; signs of what is read, after a learned shift."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer)
        self.shift = nn.Parameter(torch.randn(inner) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        weight = sign(self.weight) * self.weight.abs().mean(1, keepdim=True)
        return functional.linear(sign(x + self.shift), weight, self.bias)


class BiVit(Heads):
    """BiViT (He et al. 2023): binary queries, keys and values, and binary attention weights.

    A weight is one where the softmax is above a threshold of its head, times a learned scale.
    """

    def __init__(self, dim: int = 12) -> None:
        super().__init__(dim)
        self.qkv, self.proj = BinaryLinear(dim, 3 * dim), BinaryLinear(dim, dim)
        self.above = nn.Parameter(torch.full((self.heads, 1, 1), 0.06))
        self.scale = nn.Parameter(torch.rand(self.heads, 1, 1) * 0.1 + 0.1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = self.scores(sign(q), sign(k)).softmax(-1)
        return self.scale * (weights > self.above).to(v.dtype) @ sign(v)


def bivit() -> nn.Module:
    feed = nn.Sequential(BinaryLinear(12, 16), nn.GELU(), BinaryLinear(16, 12))
    return Vit(Block(BiVit(), feed))


SYSTEMS = {"ecoformer": lambda: Vit(Block(EcoFormer())), "bivit": bivit}
