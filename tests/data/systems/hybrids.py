"""Convolution beside attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import CLASSES, Block, Heads, Vit, mlp
from .maps import ChannelNorm, OnTokens, Pooled, depthwise, map_of, tokens_of


class OverlapEmbed(nn.Module):
    """An overlapping convolution and LayerNorm: a map of tokens."""

    def __init__(self, before: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(before, dim, kernel, stride, kernel // 2), ChannelNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class ConvMlp(nn.Module):
    """PVT v2's and SegFormer's MLP (mix-FFN): a depthwise convolution before the activation."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.deep = depthwise(hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        side = int(x.shape[1] ** 0.5)
        x = self.deep(x.transpose(1, 2).view(x.shape[0], -1, side, side)).flatten(2).transpose(1, 2)
        return self.down(functional.gelu(x))


class ReducedAttention(nn.Module):
    """Keys and values of a map that ``reduce`` makes smaller."""

    def __init__(self, dim: int, heads: int, *reduce: nn.Module) -> None:
        super().__init__()
        self.heads, self.reduce = heads, nn.Sequential(*reduce)
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, count, dim = x.shape
        q = self.q(x).reshape(n, count, self.heads, -1).permute(0, 2, 1, 3)
        small = tokens_of(self.reduce(map_of(x, int(count**0.5))))
        kv = self.kv(small).reshape(n, -1, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ kv[0].transpose(-2, -1) * (dim // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ kv[1]).transpose(1, 2).reshape(n, count, dim))


def pvt_v2(dim: int = 8, out: int = 16) -> nn.Module:
    """PVT v2 (Wang et al. 2022): overlapping patches, keys pooled to 2 × 2 (linear SRA)."""
    pooled = nn.AvgPool2d(2), nn.Conv2d(dim, dim, 1), ChannelNorm(dim), nn.GELU()
    return nn.Sequential(
        OverlapEmbed(3, dim, 7, 4),
        OnTokens(Block(ReducedAttention(dim, 2, *pooled), ConvMlp(dim, 16), dim)),
        OverlapEmbed(dim, out, 3, 2),
        OnTokens(Block(ReducedAttention(out, 2), ConvMlp(out, 16), out)),
        Pooled(out),
    )


class SegFormer(nn.Module):
    """SegFormer (Xie et al. 2021): a MiT of two stages; a linear decoder of both makes a map."""

    def __init__(self, dim: int = 8, out: int = 8, joint: int = 8) -> None:
        super().__init__()
        reduce = nn.Conv2d(dim, dim, 2, 2), ChannelNorm(dim)
        self.stages = nn.ModuleList([
            nn.Sequential(OverlapEmbed(before, width, kernel, stride), OnTokens(
                Block(ReducedAttention(width, 2, *less), ConvMlp(width, 16), width)
            ))
            for before, width, kernel, stride, less in (
                (3, dim, 7, 4, reduce), (dim, out, 3, 2, ())
            )
        ])  # fmt: skip
        self.linear = nn.ModuleList([nn.Linear(dim, joint), nn.Linear(out, joint)])
        self.fuse = nn.Conv2d(2 * joint, joint, 1, bias=False)
        self.norm, self.classify = nn.BatchNorm2d(joint), nn.Conv2d(joint, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        large = self.stages[0](image)
        small = self.stages[1](large)
        near, far = (
            map_of(linear(tokens_of(x)), x.shape[-1])
            for linear, x in zip(self.linear, (large, small), strict=True)
        )
        far = functional.interpolate(far, size=(4, 4), mode="bilinear", align_corners=False)
        return self.classify(functional.relu(self.norm(self.fuse(torch.cat([far, near], 1)))))


def normed(
    before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias, and BatchNorm."""
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(after)]


class MobileVitBlock(nn.Module):
    """MobileViT (Mehta & Rastegari 2022): pixels at one place of all patches attend."""

    def __init__(self, dim: int = 8, inner: int = 12, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        last = nn.Conv2d(dim, inner, 1, bias=False)
        self.local = nn.Sequential(*normed(dim, dim, 3), nn.SiLU(), last)
        attention = Block(Heads(inner), mlp(inner, act=nn.SiLU), inner)
        self.block = nn.Sequential(attention, nn.LayerNorm(inner))
        self.proj = nn.Sequential(*normed(inner, dim), nn.SiLU())
        self.fuse = nn.Sequential(*normed(2 * dim, dim, 3), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.local(x)
        n, dim, height, width = y.shape
        size = self.patch
        rows, columns = height // size, width // size
        y = y.reshape(n * dim * rows, size, columns, size).transpose(1, 2)
        y = y.reshape(n, dim, rows * columns, size * size).transpose(1, 3)
        y = self.block(y.reshape(n * size * size, -1, dim)).contiguous()
        y = y.view(n, size * size, rows * columns, -1).transpose(1, 3)
        y = y.reshape(n * dim * rows, columns, size, size).transpose(1, 2)
        return self.fuse(torch.cat([x, self.proj(y.reshape(n, dim, height, width))], 1))


def mobilevit(dim: int = 8) -> nn.Module:
    """A strided stem, an inverted residual, a MobileViT block."""
    stem = *normed(3, dim, 3, 2), nn.SiLU()
    inverted = (
        *normed(dim, 16), nn.SiLU(), *normed(16, 16, 3, 2, 16), nn.SiLU(), *normed(16, dim)
    )  # fmt: skip
    return nn.Sequential(*stem, *inverted, MobileVitBlock(dim), Pooled(dim))


class NormedLinear(nn.Module):
    """A linear layer without bias, and BatchNorm of its channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(before, after, bias=False), nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x)


class LevitAttention(nn.Module):
    """LeViT (Graham et al. 2021): values wider than keys, a bias for each offset, Hardswish.

    With ``stride`` queries come from every second pixel, and offsets are those of the larger map.
    """

    def __init__(self, dim: int, out: int, side: int, stride: int = 1, heads: int = 2) -> None:
        super().__init__()
        self.side, self.stride, self.heads, self.key, self.value = side, stride, heads, 4, 8
        kv = heads * (self.key + self.value)
        self.kv, self.q = NormedLinear(dim, kv), NormedLinear(dim, heads * self.key)
        self.proj = nn.Sequential(nn.Hardswish(), NormedLinear(heads * self.value, out))
        at = [(y, x) for y in range(side) for x in range(side)]
        asked = [(y, x) for y, x in at if y % stride == 0 and x % stride == 0]
        pairs = [(abs(y - b), abs(x - a)) for y, x in asked for b, a in at]
        known = sorted(set(pairs))
        index = torch.tensor([known.index(pair) for pair in pairs]).view(len(asked), len(at))
        self.bias = nn.Parameter(torch.randn(heads, len(known)))
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        kv = self.kv(x).view(n, -1, self.heads, self.key + self.value)
        k, v = kv.split([self.key, self.value], -1)
        some = x.view(n, self.side, self.side, -1)[:, :: self.stride, :: self.stride].flatten(1, 2)
        q = self.q(some).view(n, -1, self.heads, self.key).transpose(1, 2)
        scores = q @ k.permute(0, 2, 3, 1) * self.key**-0.5 + self.bias[:, self.index]
        y = (scores.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2)
        return self.proj(y.reshape(n, -1, self.heads * self.value))


class Levit(nn.Module):
    """A stem of two convolutions, a block, a subsampling, the mean, BatchNorm before the head."""

    def __init__(self, dim: int = 8, out: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(*normed(3, 4, 3, 2), nn.Hardswish(), *normed(4, dim, 3, 2))
        self.mix, self.small = LevitAttention(dim, dim, 4), LevitAttention(dim, out, 4, 2)
        self.feed = nn.Sequential(NormedLinear(dim, 16), nn.Hardswish(), NormedLinear(16, dim))
        self.norm, self.head = nn.BatchNorm1d(out), nn.Linear(out, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = tokens_of(self.stem(image))
        x = x + self.mix(x)
        x = self.small(x + self.feed(x))
        return self.head(self.norm(x.mean(1)))


class Pit(Vit):
    """PiT (Heo et al. 2021): a strided depthwise convolution pools tokens and widens them.

    The class token has a linear layer of its own.
    """

    def __init__(self, dim: int = 8) -> None:
        super().__init__(Block(Heads(dim, 2), dim=dim), dim=dim, before=1)
        self.pool = nn.Conv2d(dim, 2 * dim, 3, 2, 1, groups=dim)
        self.widen = nn.Linear(dim, 2 * dim)
        self.late = Block(Heads(2 * dim, 2), dim=2 * dim)
        self.norm, self.head = nn.LayerNorm(2 * dim), nn.Linear(2 * dim, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.tokens(image))
        grid = tokens_of(self.pool(map_of(x[:, 1:], 4)))
        x = self.late(torch.cat([self.widen(x[:, :1]), grid], 1))
        return self.head(self.norm(x)[:, 0])


class PositionConv(nn.Module):
    """CPVT (Chu et al. 2021): a depthwise convolution of the tokens behind the class token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.deep = depthwise(dim)

    def forward(self, x: Tensor) -> Tensor:
        first, x = x[:, :1], x[:, 1:]
        grid = map_of(x, 4)
        return torch.cat([first, tokens_of(self.deep(grid) + grid)], 1)


class Cpvt(Vit):
    """No table of positions: the convolution behind the first block says where tokens are."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__(Block(Heads(dim)), PositionConv(dim), Block(Heads(dim)), before=1)

    def tokens(self, image: Tensor) -> Tensor:
        x = tokens_of(self.patch(image))
        return torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)


class ConvStem(Vit):
    """Xiao et al. 2021: strided 3 × 3 convolutions with BatchNorm and ReLU, then 1 × 1."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__(Block(Heads(dim)), before=1)
        self.patch = nn.Sequential(
            *normed(3, 4, 3, 2), nn.ReLU(), *normed(4, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, dim, 1)
        )


class ResidualStem(Vit):
    """ViT's hybrid (Dosovitskiy et al. 2021): a ResNet v2 stem with GroupNorm, then patches.

    Weights of the convolutions are standardised when they are used.
    """

    def __init__(self, dim: int = 12) -> None:
        super().__init__(Block(Heads(dim)), before=1)
        self.first_conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm1, self.second_conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm2, self.patch = nn.GroupNorm(2, 8), nn.Conv2d(8, dim, 2, 2)

    @staticmethod
    def standard(conv: nn.Conv2d, x: Tensor) -> Tensor:
        weight = conv.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        variance = weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (weight - mean) / torch.sqrt(variance + 1e-6)
        return functional.conv2d(x, weight, None, conv.stride, conv.padding)

    def tokens(self, image: Tensor) -> Tensor:
        x = self.standard(self.first_conv, image)
        y = functional.relu(self.norm1(x))
        x = x + functional.relu(self.norm2(self.standard(self.second_conv, y)))
        return super().tokens(x)


class ConvNextBlock(nn.Module):
    """ConvNeXt (Liu et al. 2022): depthwise 7 × 7, LayerNorm, an MLP, LayerScale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.deep, self.norm = depthwise(dim, 7), nn.LayerNorm(dim, 1e-6)
        self.feed, self.scale = mlp(dim, 4 * dim), nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.scale * self.feed(self.norm(self.deep(x).permute(0, 2, 3, 1)))
        return x + y.permute(0, 3, 1, 2)


def convnext(dim: int = 8, out: int = 12) -> nn.Module:
    """A patchified stem and two stages, between which LayerNorm is before the convolution."""
    return nn.Sequential(
        nn.Conv2d(3, dim, 4, 4), ChannelNorm(dim), ConvNextBlock(dim), ChannelNorm(dim),
        nn.Conv2d(dim, out, 2, 2), ConvNextBlock(out), Pooled(out),
    )  # fmt: skip


SYSTEMS = {
    "pvt_v2": pvt_v2, "segformer": SegFormer, "mobilevit": mobilevit, "levit": Levit, "pit": Pit,
    "cpvt": Cpvt, "conv_stem": ConvStem, "residual_stem": ResidualStem, "convnext": convnext,
}  # fmt: skip
