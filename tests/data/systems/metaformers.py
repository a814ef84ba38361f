"""MetaFormers (Yu et al. 2022 and 2024): one block, and a token mixer that is exchanged."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import Heads
from .maps import ChannelNorm, Pooled, Residual, depthwise, map_of, pixel_mlp, tokens_of


class StarRelu(nn.Module):
    """``s · relu(x)² + b`` with a learned scale and bias for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.8944]))
        self.bias = nn.Parameter(torch.tensor([-0.4472]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * functional.relu(x) ** 2 + self.bias


class PoolMinus(nn.Module):
    """PoolFormer's mixer: the mean of the neighbours minus the pixel."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(size, 1, size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class RandomMixing(nn.Module):
    """RandFormer's mixer: a matrix over tokens that is drawn once, each row a softmax."""

    def __init__(self, count: int = 16) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(count, count).softmax(-1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return map_of(torch.einsum("mn,bnc->bmc", self.matrix, tokens_of(x)), x.shape[-1])


class SepConv(nn.Module):
    """ConvFormer's mixer: MobileNetV2's separable convolution with StarReLU, on [N, H, W, dim]."""

    def __init__(self, dim: int, kernel: int = 7) -> None:
        super().__init__()
        wide = 2 * dim
        self.first, self.last = nn.Linear(dim, wide, bias=False), nn.Linear(wide, dim, bias=False)
        self.act, self.deep = StarRelu(), depthwise(wide, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x.permute(0, 2, 3, 1)))
        y = self.deep(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.last(y).permute(0, 3, 1, 2)


class MapHeads(Heads):
    """CAFormer's mixer: attention of the pixels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(tokens_of(x)).transpose(1, 2).reshape(x.shape)


class PlainNorm(ChannelNorm):
    """The LayerNorm of the baselines: no bias, epsilon 10⁻⁶."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 1e-6, bias=False)


class ScaledSum(nn.Module):
    """``scale · x + part(norm(x))``: ResScale of the later stages."""

    def __init__(self, dim: int, part: nn.Module) -> None:
        super().__init__()
        self.scale, self.norm, self.part = nn.Parameter(torch.rand(dim) + 0.5), PlainNorm(dim), part

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None] + self.part(self.norm(x))


def poolformer(dim: int = 12) -> nn.Module:
    """GroupNorm of one group, pooling, LayerScale."""
    blocks = [
        Residual(nn.GroupNorm(1, dim), part, dim=dim) for part in (PoolMinus(), pixel_mlp(dim, 24))
    ]
    return nn.Sequential(nn.Conv2d(3, dim, 7, 4, 2), *blocks, Pooled(dim))


def baseline(*mixers: nn.Module, dim: int = 12) -> nn.Module:
    """A stem, and for each mixer a block with StarReLU in its MLP."""
    parts: list[nn.Module] = [nn.Conv2d(3, dim, 7, 4, 2), PlainNorm(dim)]
    for mixer in mixers:
        parts += [
            Residual(PlainNorm(dim), mixer, dim=dim),
            Residual(PlainNorm(dim), pixel_mlp(dim, 24, StarRelu), dim=dim),
        ]
    return nn.Sequential(*parts, Pooled(dim))


def caformer(dim: int = 8, out: int = 16) -> nn.Module:
    """A stage of convolutions, a downsampling with its norm before it, a stage of attention."""
    parts = SepConv(dim), pixel_mlp(dim, 16, StarRelu)
    near = [Residual(PlainNorm(dim), part) for part in parts]
    parts = MapHeads(out, 2, bias=False), pixel_mlp(out, 32, StarRelu)
    far = [ScaledSum(out, part) for part in parts]
    return nn.Sequential(
        nn.Conv2d(3, dim, 7, 4, 2), PlainNorm(dim), *near, PlainNorm(dim),
        nn.Conv2d(dim, out, 3, 2, 1), *far, Pooled(out),
    )  # fmt: skip


SYSTEMS = {
    "poolformer": poolformer,
    "identityformer": lambda: baseline(nn.Identity(), nn.Identity()),
    "randformer": lambda: baseline(nn.Identity(), RandomMixing()),
    "convformer": lambda: baseline(SepConv(12)),
    "caformer": caformer,
}
