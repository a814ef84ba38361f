"""Attention whose queries or keys are others than the tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import SIDE, Block, Heads, Vit, mlp


class ClassAttention(nn.Module):
    """CaiT (Touvron et al. 2021): only the class token asks, and only it changes; LayerScale."""

    def __init__(self, dim: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        self.norm1, self.norm2, self.feed = nn.LayerNorm(dim), nn.LayerNorm(dim), mlp(dim)
        self.scale1, self.scale2 = (nn.Parameter(torch.randn(dim)) for _ in range(2))

    def forward(self, cls: Tensor, x: Tensor) -> Tensor:
        y = self.norm1(torch.cat([cls, x], 1))
        q = self.q(y[:, 0])[:, None].unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        cls = cls + self.scale1 * self.proj(y)
        return cls + self.scale2 * self.feed(self.norm2(cls))


class Cait(Vit):
    """Two layers of class attention behind a block."""

    def __init__(self) -> None:
        super().__init__(Block(Heads()))
        self.cls = nn.Parameter(torch.randn(1, 1, 12))
        self.late = nn.ModuleList(ClassAttention() for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.tokens(image))
        cls = self.cls.expand(x.shape[0], -1, -1)
        for layer in self.late:
            cls = layer(cls, x)
        return self.head(self.norm(torch.cat([cls, x], 1))[:, 0])


class MapHead(Vit):
    """SigLIP (Zhai et al. 2023): a learned probe asks all tokens, then a residual MLP."""

    def __init__(self) -> None:
        super().__init__(Block(Heads()))
        self.probe = nn.Parameter(torch.randn(1, 1, 12))
        self.ask = nn.MultiheadAttention(12, 3, batch_first=True)
        self.after, self.feed = nn.LayerNorm(12), mlp(act=lambda: nn.GELU("tanh"))

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.tokens(image)))
        probe = self.probe.repeat(x.shape[0], 1, 1)
        y = self.ask(probe, x, x, need_weights=False)[0]
        return self.head((y + self.feed(self.after(y)))[:, 0])


class Detr(Vit):
    """DETR (Carion et al. 2020): object queries ask each other and the image; classes and boxes.

    Positions are added to queries and keys of every attention, never to values.
    """

    QUERIES = 5

    def __init__(self, dim: int = 12) -> None:
        super().__init__(Block(Heads()))
        self.queries = nn.Parameter(torch.randn(1, self.QUERIES, dim))
        self.own, self.cross = (nn.MultiheadAttention(dim, 3, batch_first=True) for _ in range(2))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.feed = mlp(dim, act=nn.ReLU)
        self.boxes = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4), nn.Sigmoid())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.blocks(self.tokens(image))
        where = self.queries.expand(memory.shape[0], -1, -1)
        y = torch.zeros_like(where)
        asked = y + where
        y = self.norm1(y + self.own(asked, asked, y, need_weights=False)[0])
        keys = memory + self.position
        y = self.norm2(y + self.cross(y + where, keys, memory, need_weights=False)[0])
        y = self.norm3(y + self.feed(y))
        return self.head(y), self.boxes(y)


class SequencePooling(Vit):
    """CCT (Hassani et al. 2021): a convolutional stem, and a softmax over tokens pools them."""

    def __init__(self) -> None:
        super().__init__(Block(Heads()))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.weigh = nn.Linear(12, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).flatten(2).transpose(1, 2) + self.position
        x = self.norm(self.blocks(x))
        weights = functional.softmax(self.weigh(x), dim=1)
        return self.head(torch.matmul(weights.transpose(-1, -2), x).squeeze(-2))


class HopfieldLookup(nn.Module):
    """Hopfield layer (Ramsauer et al. 2020): stored patterns are parameters, so keys are static."""

    def __init__(self, dim: int = 12, heads: int = 3, stored: int = 7) -> None:
        super().__init__()
        self.heads, self.beta = heads, 0.8
        self.norm_state, self.norm_stored = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.stored = nn.Parameter(torch.randn(1, stored, dim))
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        stored = self.norm_stored(self.stored).expand(x.shape[0], -1, -1)
        parts = self.q(self.norm_state(x)), self.k(stored), self.v(stored)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        y = (self.beta * (q @ k.transpose(-1, -2))).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class LinearReduction(Heads):
    """PVTv2 (Wang et al. 2022), linear: keys and values of a map that pooling has made small."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__(dim)
        self.pool, self.reduce = nn.AdaptiveAvgPool2d(2), nn.Conv2d(dim, dim, 1)
        self.after, self.kv = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim)
        self.q = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, _, dim = x.shape
        small = self.reduce(self.pool(x.transpose(1, 2).reshape(n, dim, SIDE, SIDE)))
        small = functional.gelu(self.after(small.flatten(2).transpose(1, 2)))
        k, v = self.kv(small).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(self.attend(self.split(self.q(x)), k, v).transpose(1, 2).flatten(2))


class Perceiver(Vit):
    """A Perceiver-like resampler: latent queries read the image twice, the keys hold them too."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__(Block(Heads()))
        self.latents = nn.Parameter(torch.randn(3, dim))
        self.ask = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.norm_in, self.feed = nn.LayerNorm(dim), mlp(dim)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm_in(self.tokens(image))
        y = self.latents.expand(x.shape[0], -1, -1)
        for _ in range(2):
            y = y + self.ask(y, torch.cat([x, y], 1), torch.cat([x, y], 1), need_weights=False)[0]
            y = y + self.feed(y)
        return self.head(self.norm(y).mean(1))


SYSTEMS = {
    "cait": Cait,
    "map_head": MapHead,
    "detr": Detr,
    "sequence_pooling": SequencePooling,
    "hopfield": lambda: Vit(Block(HopfieldLookup())),
    "linear_reduction": lambda: Vit(Block(LinearReduction())),
    "resampler": Perceiver,
}
