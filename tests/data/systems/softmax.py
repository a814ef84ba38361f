"""Attention whose weights are no plain softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import TOKENS, Block, Heads, Vit


class GatedAttention(Heads):
    """Quantizable Transformers (Bondarenko et al. 2023): each head has a gate of its own channels.

    The weights of all heads are one tensor [heads, width]; the softmax is stretched and clipped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(self.heads, self.width))
        self.gate_bias = nn.Parameter(torch.randn(self.heads))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, -1))
        weights = (1.06 * self.scores(q, k).softmax(-1) - 0.03).clamp(0.0, 1.0)
        said = (self.split(x) * self.gate[:, None]).sum(-1) + self.gate_bias[:, None]
        y = torch.sigmoid(said)[..., None] * (weights @ v)
        return self.proj(y.transpose(1, 2).flatten(2))


class MpcAttention(Heads):
    """MPCViT (Zeng et al. 2023): a head is ReLU softmax or scaled attention, as was searched."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("chosen", torch.tensor([1.0, 0.0, 1.0])[:, None, None])

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = self.scores(q, k)
        positive = functional.relu(scores)
        share = positive / (positive.sum(-1, keepdim=True) + 1e-3)
        return self.chosen * (share @ v) + (1.0 - self.chosen) * (scores @ v / TOKENS)


class SelectiveAttention(Heads):
    """Selective self-attention (Zhang et al. 2024): temperatures for every query and value.

    Each is said by the token, tanh(f(x)), and by its position, 1 + sigmoid(a) log(n).
    """

    def __init__(self) -> None:
        super().__init__()
        dim = self.heads * self.width
        self.query, self.value = (
            nn.Sequential(nn.Linear(dim, 4), nn.GELU(), nn.Linear(4, self.heads)) for _ in range(2)
        )
        self.slope = nn.Parameter(torch.randn(2, self.heads, 1, 1))
        count = torch.arange(1, TOKENS + 1).float()
        self.register_buffer("log", count.log()[:, None])

    def temperature(self, x: Tensor, said: nn.Module, slope: Tensor) -> Tensor:
        token = torch.tanh(said(x)).transpose(1, 2)[..., None]
        return token + 1.0 + torch.sigmoid(slope) * self.log

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, -1))
        q = q * self.temperature(x, self.query, self.slope[0])
        v = v * self.temperature(x, self.value, self.slope[1])
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


class SoftplusReweighted(Heads):
    """Softplus of scores scaled by log n, divided by their sum, powered and divided again.

    Gao et al. 2025: "softplus attention with re-weighting"; the power is 3.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = functional.softplus(self.scores(q, k) * math.log(TOKENS))
        weights = weights / weights.sum(-1, keepdim=True)
        sharp = functional.relu(TOKENS * weights - 0.5) ** 3
        return sharp / (sharp.sum(-1, keepdim=True) + 1e-3) @ v


class TalkingHeads(Heads):
    """Talking-heads attention (Shazeer et al. 2020): more heads of weights than of values."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.randn(self.heads, 4) * 0.6)
        self.after = nn.Parameter(torch.randn(4, self.heads) * 0.6)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhqk,hm->bmqk", self.scores(q, k), self.before)
        weights = torch.einsum("bmqk,mh->bhqk", scores.softmax(-1), self.after)
        return weights @ v


SYSTEMS = {
    "gated_attention": lambda: Vit(Block(GatedAttention())),
    "mpcvit": lambda: Vit(Block(MpcAttention())),
    "selective_attention": lambda: Vit(Block(SelectiveAttention())),
    "softplus_reweighted": lambda: Vit(Block(SoftplusReweighted())),
    "talking_more_heads": lambda: Vit(Block(TalkingHeads())),
}
