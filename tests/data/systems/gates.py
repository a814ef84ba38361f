"""Products of activations: gated MLPs, channel gates, modulation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import Block, Heads, Vit, mlp


class Gated(nn.Module):
    """GLU variants (Shazeer 2020): one packed projection, one half gates the other.

    DINOv2-g has SiLU here.
    """

    def __init__(self, act: Callable[[Tensor], Tensor], dim: int = 12, hidden: int = 16) -> None:
        super().__init__()
        self.act = act
        self.both, self.down = nn.Linear(dim, 2 * hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.both(x).chunk(2, -1)
        return self.down(self.act(gate) * up)


class SqueezeExcite(nn.Module):
    """Squeeze and excite (Hu et al. 2018) of tokens, in front of the MLP's last layer."""

    def __init__(self, dim: int = 12, hidden: int = 16) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.gate = nn.Sequential(
            nn.Linear(hidden, 4), nn.ReLU(), nn.Linear(4, hidden), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.up(x))
        return self.down(y * self.gate(y.mean(1, keepdim=True)))


class AdaLayerNorm(nn.Module):
    """DiT (Peebles & Xie 2023): shift, scale and gate of every branch come from a condition.

    The condition is the mean of what the block reads.
    """

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, elementwise_affine=False) for _ in range(2))
        self.mix, self.feed = Heads(dim), mlp(dim)
        self.say = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor) -> Tensor:
        says = self.say(x.mean(1))[:, None].chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = says
        x = x + gate1 * self.mix(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.feed(self.norm2(x) * (1 + scale2) + shift2)


SYSTEMS = {
    "swiglu": lambda: Vit(Block(Heads(), Gated(functional.silu))),
    "geglu": lambda: Vit(Block(Heads(), Gated(functional.gelu))),
    "reglu": lambda: Vit(Block(Heads(), Gated(torch.relu))),
    "squeeze_excite": lambda: Vit(Block(Heads(), SqueezeExcite())),
    "adaln": lambda: Vit(AdaLayerNorm()),
}
