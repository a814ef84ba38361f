"""Positions and norms: biases of scores, rotations, and what stands in for LayerNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import SIDE, TOKENS, Block, Heads, Vit, mlp
from .maps import entries, places


class BeitAttention(Heads):
    """BEiT (Bao et al. 2021): a table of relative positions, with entries for the class token.

    Queries and values have a bias, keys have none.
    """

    def __init__(self) -> None:
        super().__init__(bias=False)
        dim, count = self.heads * self.width, (2 * SIDE - 1) ** 2
        self.q_bias, self.v_bias = (nn.Parameter(torch.randn(dim)) for _ in range(2))
        self.table = nn.Parameter(torch.randn(count + 3, self.heads))
        index = torch.zeros(TOKENS + 1, TOKENS + 1, dtype=torch.long)
        index[1:, 1:] = entries(SIDE)
        index[0], index[:, 0], index[0, 0] = count, count + 1, count + 2
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = functional.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        table = self.table[self.index.flatten()].unflatten(0, self.index.shape).permute(2, 0, 1)
        y = (self.scores(q, k) + table).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class SharedBias(Heads):
    """data2vec (Baevski et al. 2022): one table for all layers."""

    def __init__(self, table: nn.Parameter) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("index", entries(SIDE))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return super().scores(q, k) + self.table[self.index].permute(2, 0, 1)


class MlpBias(Heads):
    """Relative positions by an MLP of logarithmic offsets (Swin V2; timm's relpos ViTs)."""

    def __init__(self) -> None:
        super().__init__()
        self.say = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, self.heads, bias=False))
        away = 8.0 * places(SIDE) / (SIDE - 1)
        away = away.sign() * torch.log2(1.0 + away.abs()) / 3.0
        self.register_buffer("away", away)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        bias = 16.0 * torch.sigmoid(self.say(self.away))
        return super().scores(q, k) + bias.permute(2, 0, 1)[None]


class Eva(Heads):
    """EVA-02 (Fang et al. 2023): pairs of channels turn, the class token does not."""

    def __init__(self) -> None:
        super().__init__()
        bands = SIDE * torch.tensor([1.0, 0.3][: self.width // 4])
        at = torch.arange(TOKENS)
        angle = torch.cat([(at // SIDE)[:, None] / bands, (at % SIDE)[:, None] / bands], -1)
        angle = angle.repeat_interleave(2, -1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def turn(self, x: Tensor) -> Tensor:
        first, x = x[:, :, :1], x[:, :, 1:]
        other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        return torch.cat([first, x * self.cos + other * self.sin], 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.turn(q), self.turn(k), v)


class SwiGlu(nn.Module):
    """EVA-02's MLP: two projections, and a LayerNorm between product and output."""

    def __init__(self, dim: int = 12, hidden: int = 16) -> None:
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(dim, hidden), nn.Linear(dim, hidden), nn.Linear(hidden, dim),
        )  # fmt: skip
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(functional.silu(self.gate(x)) * self.up(x)))


class DinoV3(Heads):
    """DINOv3 (Siméoni et al. 2025): halves turn, axial positions in [-1, 1], five tokens stay."""

    KEPT = 5

    def __init__(self) -> None:
        super().__init__(16, 2, bias=False)
        self.register_buffer("periods", 100.0 ** (torch.arange(2) / 2.0))

    def angles(self) -> tuple[Tensor, Tensor]:
        at = (torch.arange(SIDE) + 0.5) / SIDE * 2.0 - 1.0
        grid = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).flatten(0, 1)
        angle = 2 * torch.pi * grid[:, :, None] / self.periods
        angle = angle.reshape(TOKENS, -1)
        angle = torch.cat([angle, angle], -1)
        return angle.cos(), angle.sin()

    def turn(self, x: Tensor) -> Tensor:
        cos, sin = self.angles()
        kept, x = x.split((self.KEPT, TOKENS), -2)
        first, second = x.chunk(2, -1)
        return torch.cat([kept, x * cos + torch.cat([-second, first], -1) * sin], -2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(self.turn(q), self.turn(k), v)


class Vit22b(nn.Module):
    """ViT-22B (Dehghani et al. 2023): attention and MLP side by side, LayerNorm of q and k."""

    def __init__(self, dim: int = 12, heads: int = 3, hidden: int = 16) -> None:
        super().__init__()
        self.sizes, self.heads = (hidden, dim, dim, dim), heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.first = nn.Linear(dim, hidden + 3 * dim)
        self.out_mix, self.out_mlp = nn.Linear(dim, dim), nn.Linear(hidden, dim)
        self.q_norm, self.k_norm = (nn.LayerNorm(dim // heads, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        up, *qkv = self.first(self.norm(x)).split(self.sizes, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv)
        y = functional.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        y = self.out_mix(y.transpose(1, 2).flatten(2))
        return x + y + self.out_mlp(functional.gelu(up))


class RmsNorm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019), as Hugging Face spells it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class RmsHeads(Heads):
    """Queries and keys of RMS norm one, a gain for each channel (timm's SigLIP 2 and Gemma)."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.k_norm = RmsNorm(self.width), RmsNorm(self.width)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.q_norm(q), self.k_norm(k), v)


class TokenBatchNorm(nn.BatchNorm1d):
    """BatchNorm of channels (Yao et al. 2021, "Leveraging batch normalization for ViTs")."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class BatchNormMlp(nn.Sequential):
    """The MLP of the same paper: a BatchNorm between its layers as well."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(12, 16), TokenBatchNorm(16), nn.GELU(), nn.Linear(16, 12))


class TokenGroupNorm(nn.GroupNorm):
    """GroupNorm of a map of tokens (MetaFormer, Yu et al. 2022), here of two groups."""

    def __init__(self, dim: int) -> None:
        super().__init__(2, dim)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class DynamicTanh(nn.Module):
    """Transformers without normalization (Zhu et al. 2025): tanh in place of every norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.alpha * x) * self.weight + self.bias


class OverTokens(nn.Module):
    """A norm over the tokens: every channel of an image has mean zero and variance one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5) * self.weight + self.bias


def data2vec() -> nn.Module:
    table = nn.Parameter(torch.randn((2 * SIDE - 1) ** 2, 3))
    return Vit(Block(SharedBias(table)), Block(SharedBias(table)))


SYSTEMS = {
    "beit": lambda: Vit(Block(BeitAttention()), before=1),
    "data2vec": data2vec,
    "relpos_mlp": lambda: Vit(Block(MlpBias())),
    "eva02": lambda: Vit(Block(Eva(), SwiGlu()), before=1),
    "dinov3": lambda: Vit(Block(DinoV3(), mlp(16), 16), dim=16, before=5),
    "vit22b": lambda: Vit(Vit22b()),
    "qk_rms_norm": lambda: Vit(Block(RmsHeads(), norm=RmsNorm)),
    "batch_norm": lambda: Vit(Block(Heads(), BatchNormMlp(), norm=TokenBatchNorm)),
    "group_norm": lambda: Vit(Block(Heads(), norm=TokenGroupNorm)),
    "dynamic_tanh": lambda: Vit(Block(Heads(), norm=DynamicTanh)),
    "norm_over_tokens": lambda: Vit(Block(Heads(), norm=OverTokens)),
}
