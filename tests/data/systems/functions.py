"""Learned functions of one variable: rationals, Fourier series, splines."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import TOKENS, Block, Heads, Vit


class GroupRational(nn.Module):
    """KAT (Yang & Wang 2024): P(x) / (1 + |Q(x)|), coefficients of a group of channels."""

    #: What fits SiLU, with which every group begins.
    ABOVE = (-0.00124, 0.50805, 0.41586, 0.13023, 0.02436, 0.0029)
    BELOW = (-0.06675, 0.17928, 0.03747, 0.0)

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.above = nn.Parameter(torch.tensor([self.ABOVE]))
        below = torch.tensor(self.BELOW) * (1.0 + 0.3 * torch.randn(groups, 1))
        self.below = nn.Parameter(below)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, (self.groups, -1))
        above = self.above[0, -1]
        for number in range(len(self.ABOVE) - 2, -1, -1):
            above = above * x + self.above[0, number]
        below = self.below[:, -1:]
        for number in range(len(self.BELOW) - 2, -1, -1):
            below = below * x + self.below[:, number, None]
        return (above / (1.0 + (below * x).abs())).flatten(-2)


class KatMlp(nn.Sequential):
    """GR-KAN in place of the MLP: a rational in front of every linear layer."""

    def __init__(self, dim: int = 12, hidden: int = 16) -> None:
        super().__init__(
            GroupRational(), nn.Linear(dim, hidden), GroupRational(), nn.Linear(hidden, dim)
        )


class FourierAttention(Heads):
    """KArAt (Maity et al. 2025): scores pass a Fourier series for each place, then a projection.

    [T, T] scores become [T, rank] by sums of cosines and sines over the keys, then [T, T].
    """

    def __init__(self, rank: int = 4, grid: int = 2) -> None:
        super().__init__()
        self.waves = nn.Parameter(torch.randn(2, grid, TOKENS, rank) * 0.3)
        self.project = nn.Parameter(torch.randn(self.heads, rank, TOKENS) * 0.3)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores, few = self.scores(q, k), 0.0
        for number, (even, odd) in enumerate(zip(*self.waves, strict=True), 1):
            few = few + torch.cos(number * scores) @ even + torch.sin(number * scores) @ odd
        return few @ self.project @ v


class FastKan(nn.Module):
    """MedViTV2's KAN layer (Manzari et al. 2025): reflectional switches around a grid."""

    def __init__(self, inner: int, outer: int, grid: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inner)
        self.register_buffer("grid", torch.linspace(-1.2, 0.2, grid))
        self.width = nn.Parameter(torch.tensor(0.33))
        self.linear = nn.Linear(grid * inner, outer, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        away = (self.norm(x)[..., None] - self.grid) * self.width
        return self.linear((1.0 - torch.tanh(away).pow(2)).flatten(-2))


class SplineKan(nn.Module):
    """The original KAN layer (Liu et al. 2024): SiLU, and splines of the third degree."""

    def __init__(self, inner: int, outer: int, grid: int = 3, degree: int = 3) -> None:
        super().__init__()
        self.degree = degree
        step = 4.0 / grid
        knots = torch.arange(-degree, grid + degree + 1) * step - 2.0
        self.register_buffer("knots", knots.repeat(inner, 1))
        self.base = nn.Parameter(torch.randn(outer, inner) * 0.3)
        self.spline = nn.Parameter(torch.randn(outer, inner, grid + degree) * 0.5)

    def bases(self, x: Tensor) -> Tensor:
        knots, x = self.knots, x[..., None]
        bases = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        for k in range(1, self.degree + 1):
            left = (x - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)])
            right = (knots[:, k + 1 :] - x) / (knots[:, k + 1 :] - knots[:, 1:-k])
            bases = left * bases[..., :-1] + right * bases[..., 1:]
        return bases

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(functional.silu(x), self.base)
        return y + functional.linear(self.bases(x).flatten(-2), self.spline.flatten(1))


SYSTEMS = {
    "kat": lambda: Vit(Block(Heads(), KatMlp())),
    "karat": lambda: Vit(Block(FourierAttention())),
    "medvit_v2": lambda: Vit(Block(Heads(), nn.Sequential(FastKan(12, 8), FastKan(8, 12)))),
    "spline_kan": lambda: Vit(Block(Heads(), nn.Sequential(SplineKan(12, 4), SplineKan(4, 12)))),
}
