"""Blocks that are a paper's whole model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import CLASSES, SIDE, Block, Heads, Vit


class Crate(nn.Module):
    """CRATE (Yu et al. 2023): one projection is query, key and value; then a step of ISTA."""

    def __init__(self, dim: int = 12, heads: int = 3, step: float = 0.1) -> None:
        super().__init__()
        self.heads, self.step, self.sparse = heads, step, 0.1
        self.u, self.out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.dictionary = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        w = self.u(self.norm1(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = (w @ w.transpose(-1, -2) * w.shape[-1] ** -0.5).softmax(-1) @ w
        x = self.norm2(x + self.out(y.transpose(1, 2).flatten(2)))
        back = functional.linear(x, self.dictionary)
        gradient = functional.linear(x - back, self.dictionary.t())
        return functional.relu(x + self.step * gradient - self.step * self.sparse)


class Ulsam(nn.Module):
    """ULSAM (Saini et al. 2020): every subspace of channels has one attention map of its own."""

    def __init__(self, dim: int = 12, groups: int = 3) -> None:
        super().__init__()
        self.parts = dim // groups
        self.deep = nn.ModuleList(
            nn.Conv2d(self.parts, self.parts, 1, groups=self.parts) for _ in range(groups)
        )
        self.point = nn.ModuleList(nn.Conv2d(self.parts, 1, 1) for _ in range(groups))
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, dim = x.shape
        grid, found = x.transpose(1, 2).reshape(n, dim, SIDE, SIDE), []
        for part, deep, point in zip(
            grid.split(self.parts, 1), self.deep, self.point, strict=True
        ):
            map_ = point(self.pool(functional.relu(deep(part))))
            weights = map_.view(n, 1, -1).softmax(2).view(n, 1, SIDE, SIDE)
            found.append(weights * part + part)
        return torch.cat(found, 1).flatten(2).transpose(1, 2)


class Gaussian(nn.Module):
    """GAAM (Ioannides et al. 2024): every head weighs its channels by learned Gaussians."""

    def __init__(self, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.offset = nn.Parameter(torch.randn(heads, 1, 1) * 0.3)
        self.scale = nn.Parameter(torch.rand(heads, 1, 1) + 1.0)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mean = parts.mean(-1, keepdim=True)
        spread = (parts - mean).pow(2).mean(-1, keepdim=True)
        y = (parts - mean - self.offset) / torch.sqrt(spread + 1e-5)
        weights = torch.exp(-y.pow(2) / (2.0 * self.scale**2))
        weights = weights / torch.sqrt(2.0 * math.pi * self.scale**2)
        return (parts * weights).transpose(1, 2).flatten(2)


class SoftHypergraph(nn.Module):
    """SoftHGNN (Lei et al. 2025): tokens take part in hyperedges, whose prototypes they shape.

    Prototypes are learned ones plus what mean and maximum of the tokens say.
    """

    def __init__(self, dim: int = 12, edges: int = 4, heads: int = 3) -> None:
        super().__init__()
        self.edges, self.heads, self.width = edges, heads, dim // heads
        self.base = nn.Parameter(torch.randn(edges, dim))
        self.context, self.project = nn.Linear(2 * dim, edges * dim), nn.Linear(dim, dim)
        self.edge, self.node = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        context = self.context(torch.cat([x.mean(1), x.amax(1)], -1))
        prototypes = self.base + context.unflatten(-1, (self.edges, -1))
        scores = self.split(self.project(x)) @ self.split(prototypes).transpose(-1, -2)
        part = (scores * self.width**-0.5).mean(1).softmax(1)
        edges = functional.gelu(self.edge(part.transpose(1, 2) @ x))
        return functional.gelu(self.node(part @ edges))


class TaskHeads(Heads):
    """ConTraCon (Roy et al. 2023): a small convolution of each task changes weights of attention.

    The weights of every task are constants of the model; the task number chooses among them.
    """

    def __init__(self, tasks: int = 3) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(tasks, 1, 3, 3) * 0.3)
        self.gates = nn.Parameter(torch.randn(tasks, 1, 1))

    def weights(self) -> Tensor:
        """[tasks, 3 dim, dim]."""
        base = self.qkv.weight[None]
        changed = functional.conv2d(base, self.kernels, padding=1)[0]
        return base + torch.sigmoid(self.gates) * changed

    def of_task(self, x: Tensor, task: Tensor) -> Tensor:
        weight = self.weights()[task]
        qkv = torch.bmm(x, weight.transpose(1, 2)) + self.qkv.bias
        q, k, v = (self.split(part) for part in qkv.chunk(3, -1))
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


class ConTraCon(Vit):
    """A block with weights of each task, and a head of each task."""

    def __init__(self, tasks: int = 3, dim: int = 12) -> None:
        super().__init__(Block(Heads()))
        self.norm1, self.mix = nn.LayerNorm(dim), TaskHeads(tasks)
        self.heads = nn.Parameter(torch.randn(tasks, dim, CLASSES))

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        x = self.blocks(self.tokens(image))
        x = x + self.mix.of_task(self.norm1(x), task)
        return torch.bmm(self.norm(x).mean(1)[:, None], self.heads[task])[:, 0]


SYSTEMS = {
    "crate": lambda: Vit(Crate(), Crate()),
    "ulsam": lambda: Vit(Block(Ulsam())),
    "gaam": lambda: Vit(Block(Gaussian())),
    "softhgnn": lambda: Vit(Block(SoftHypergraph())),
    "contracon": ConTraCon,
}
