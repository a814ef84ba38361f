"""Blocks of published architectures in a few lines of PyTorch each, for ``make_token_fixtures.py``.

Every block takes and gives a map [N, DIM, SIDE, SIDE]; ``Net`` puts a stem before and a head
behind it.  They follow the formulas of the papers, not anybody's code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE, SIDE, DIM, HEADS, CLASSES = 16, 4, 8, 2, 3
TOKENS, WIDTH, WINDOW = SIDE * SIDE, DIM // HEADS, 2


def tokens_of(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def map_of(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], -1, SIDE, SIDE)


def split(x: Tensor) -> Tensor:
    """[N, T, DIM] to [N, HEADS, T, WIDTH]."""
    return x.reshape(x.shape[0], -1, HEADS, x.shape[-1] // HEADS).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class Net(nn.Module):
    """An overlapping stem with BatchNorm, a block of maps, the mean of all pixels, a head."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, DIM, 7, 4, 3), nn.BatchNorm2d(DIM))
        self.block = block
        self.head = nn.LazyLinear(CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.block(self.stem(image)).mean((2, 3)))


class Mixer(nn.Module):
    """A residual block of tokens around ``mix``, then a gated MLP with RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.rms = nn.LayerNorm(DIM), nn.Parameter(torch.rand(DIM) + 0.5)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.gate, self.up, self.down = (nn.Linear(DIM, DIM) for _ in range(3))

    def mix(self, x: Tensor) -> Tensor:
        q, k, v = (split(part) for part in self.qkv(x).chunk(3, -1))
        return self.proj(merge(self.attend(q, k, v)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ((q @ k.transpose(-1, -2)) * WIDTH**-0.5).softmax(-1) @ v

    def forward(self, image: Tensor) -> Tensor:
        x = tokens_of(image)
        x = x + self.mix(self.norm(x))
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.rms
        return map_of(x + self.down(functional.silu(self.gate(y)) * self.up(y)))


class ShiftedWindows(Mixer):
    """Swin: windows shifted by one, a relative position bias, a mask, then merged patches."""

    def __init__(self) -> None:
        super().__init__()
        count = WINDOW * WINDOW
        self.bias = nn.Parameter(torch.randn(HEADS, count, count))
        region = torch.zeros(SIDE, SIDE)
        region[-1:] += 1
        region[:, -1:] += 2
        area = self.windows(region[None, :, :, None]).squeeze(-1)
        self.register_buffer("mask", (area[:, :, None] != area[:, None]) * -100.0)
        self.merge_norm, self.merge = nn.LayerNorm(4 * DIM), nn.Linear(4 * DIM, DIM, bias=False)

    @staticmethod
    def windows(x: Tensor) -> Tensor:
        n, _, _, d = x.shape
        x = x.view(n, SIDE // WINDOW, WINDOW, SIDE // WINDOW, WINDOW, d)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW * WINDOW, d)

    def mix(self, x: Tensor) -> Tensor:
        n, count = x.shape[0], (SIDE // WINDOW) ** 2
        grid = torch.roll(x.view(n, SIDE, SIDE, DIM), (-1, -1), (1, 2))
        q, k, v = (split(part) for part in self.qkv(self.windows(grid)).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) * WIDTH**-0.5 + self.bias
        scores = scores.view(n, count, HEADS, WINDOW**2, WINDOW**2) + self.mask[None, :, None]
        y = self.proj(merge(scores.view(n * count, HEADS, WINDOW**2, WINDOW**2).softmax(-1) @ v))
        half = SIDE // WINDOW
        y = y.view(n, half, half, WINDOW, WINDOW, DIM).permute(0, 1, 3, 2, 4, 5)
        return torch.roll(y.reshape(n, SIDE, SIDE, DIM), (1, 1), (1, 2)).reshape(n, -1, DIM)

    def forward(self, image: Tensor) -> Tensor:
        x = super().forward(image).permute(0, 2, 3, 1)
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.merge(self.merge_norm(torch.cat(corners, -1))).permute(0, 3, 1, 2)


class Cosine(Mixer):
    """SwinV2: queries and keys of unit length, a temperature for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(HEADS, 1, 1) + 2.0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        return (q @ k.transpose(-1, -2) * self.scale.clamp(max=10.0).exp()).softmax(-1) @ v


class Reduced(Mixer):
    """PVT: keys and values of a map that a convolution has made smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.after = nn.Conv2d(DIM, DIM, 2, 2), nn.LayerNorm(DIM)

    def mix(self, x: Tensor) -> Tensor:
        small = self.after(tokens_of(self.reduce(map_of(x))))
        q, k = self.qkv(x)[..., :DIM], self.qkv(small)[..., DIM : 2 * DIM]
        v = self.qkv(small)[..., 2 * DIM :]
        return self.proj(merge(self.attend(split(q), split(k), split(v))))


class TalkingHeads(Mixer):
    """CaiT: heads mixed before and after the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = self.before((q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = self.after(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return weights @ v


class ChannelAttention(Mixer):
    """XCiT: channels attend to channels, all of unit length over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1) + 1.0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = (functional.normalize(x.transpose(-1, -2), dim=-1) for x in (q, k))
        weights = (q @ k.transpose(-1, -2) * self.temperature).softmax(-1)
        return (weights @ v.transpose(-1, -2)).transpose(-1, -2)


class LinearAttention(Mixer):
    """Katharopoulos et al.: elu + 1 as kernel, a division by the sum of the weights."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = functional.elu(q) + 1.0, functional.elu(k) + 1.0
        sums = q @ k.sum(-2, keepdim=True).transpose(-1, -2)
        return q @ (k.transpose(-1, -2) @ v) / (sums + 1e-6)


class ReluAttention(Mixer):
    """ReLU instead of softmax, divided by the number of tokens."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.relu(q @ k.transpose(-1, -2)) / TOKENS @ v


class SigmoidAttention(Mixer):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.sigmoid(q @ k.transpose(-1, -2) * WIDTH**-0.5 - 2.7) @ v


class ClippedSoftmax(Mixer):
    """Quantizable Transformers: weights that can be zero, and a gate for each head and row."""

    def __init__(self) -> None:
        super().__init__()
        self.open = nn.Linear(DIM, HEADS)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        gate = torch.sigmoid(self.open(merge(q))).transpose(1, 2)[..., None]
        return gate * ((1.06 * weights - 0.03).clamp(0.0, 1.0) @ v)


class SoftplusAttention(Mixer):
    """Softplus of the scores, divided by its sum, with a weight for each key."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.rand(TOKENS) + 0.5)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = functional.softplus(q @ k.transpose(-1, -2)) * self.keys
        return weights / weights.sum(-1, keepdim=True) @ v


class QueryTemperature(Mixer):
    """Selective self-attention: a temperature for each query, which it says itself."""

    def __init__(self) -> None:
        super().__init__()
        self.say = nn.Linear(WIDTH, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sharp = 1.0 + torch.tanh(self.say(q))
        return (sharp * (q @ k.transpose(-1, -2))).softmax(-1) @ v


class GatedPositions(Mixer):
    """ConViT: content and positions, weighed by a gate of each head."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_of, self.where = nn.Parameter(torch.rand(HEADS)), nn.Linear(3, HEADS)
        y, x = torch.arange(TOKENS) // SIDE, torch.arange(TOKENS) % SIDE
        y, x = (axis[None] - axis[:, None] for axis in (y, x))
        self.register_buffer("offsets", torch.stack([x, y, x**2 + y**2], -1).float())

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        places = self.where(self.offsets).permute(2, 0, 1)[None].softmax(-1)
        gate = torch.sigmoid(self.gate_of).view(1, -1, 1, 1)
        weights = (1.0 - gate) * (q @ k.transpose(-1, -2)).softmax(-1) + gate * places
        return weights / weights.sum(-1, keepdim=True) @ v


class EfficientAttention(Mixer):
    """Shen et al.: softmax of the queries over channels, and of the keys over tokens."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q.softmax(-1) @ (k.softmax(-2).transpose(-1, -2) @ v)


class ReluLinear(Mixer):
    """EfficientViT: ReLU as kernel; a channel of ones beside the values sums the weights."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = functional.relu(q), functional.relu(k)
        both = q @ (k.transpose(-1, -2) @ functional.pad(v, (0, 1), value=1.0))
        return both[..., :-1] / (both[..., -1:] + 1e-2)


class Rotary(Mixer):
    """Queries and keys turned by angles of their rows."""

    def __init__(self) -> None:
        super().__init__()
        angle = torch.arange(TOKENS)[:, None] * torch.tensor([1.0, 0.1])
        angle = torch.cat([angle, angle], -1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def turn(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.turn(q), self.turn(k), v)


class HeadNorms(Mixer):
    """ViT-22B: LayerNorm of the queries and keys of each head."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.q_norm(q), self.k_norm(k), v)


class TokenMlp(Mixer):
    """MLP-Mixer: an MLP over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TOKENS, 6), nn.GELU(), nn.Linear(6, TOKENS))

    def mix(self, x: Tensor) -> Tensor:
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


class SpatialGate(Mixer):
    """gMLP: half of the channels gate the other half after a product over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.inner = nn.Linear(DIM, 2 * DIM), nn.LayerNorm(DIM)
        self.spatial = nn.Conv1d(TOKENS, TOKENS, 1)

    def mix(self, x: Tensor) -> Tensor:
        u, v = functional.gelu(self.wide(x)).chunk(2, -1)
        return self.proj(u * self.spatial(self.inner(v)))


class Pooling(nn.Module):
    """PoolFormer: the mean of neighbours minus the pixel, GroupNorm of all, LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.pool = nn.GroupNorm(1, DIM), nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.scale = nn.Parameter(torch.randn(DIM))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.scale[:, None, None] * (self.pool(y) - y)


class Inverted(nn.Module):
    """MBConv: depthwise convolution between two dense ones, squeeze and excite, StarReLU."""

    def __init__(self) -> None:
        super().__init__()
        wide = 2 * DIM
        self.first = nn.Sequential(nn.Conv2d(DIM, wide, 1, bias=False), nn.BatchNorm2d(wide))
        self.deep = nn.Conv2d(wide, wide, 3, 2, 1, groups=wide)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 4, 1), nn.SiLU(), nn.Conv2d(4, wide, 1),
            nn.Sigmoid(),
        )  # fmt: skip
        self.last, self.short = nn.Conv2d(wide, DIM, 1), nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.deep(0.9 * functional.relu(self.first(x)) ** 2 - 0.4)
        return self.short(x) + self.last(y * self.squeeze(y))


class Pyramid(nn.Module):
    """A decoder: two maps side by side, one of them made larger by a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(DIM, DIM, 3, 2, 1), nn.ConvTranspose2d(DIM, DIM, 2, 2)
        self.join, self.wide = nn.Conv2d(3 * DIM, DIM, 1), nn.Conv2d(DIM, 4 * DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = functional.gelu(self.down(x))
        large = functional.interpolate(small, scale_factor=2.0, mode="bilinear")
        y = functional.relu(self.join(torch.cat([x, self.up(small), large], 1)))
        return functional.pixel_shuffle(self.wide(y), 2)


class Learned(Mixer):
    """A class token that alone asks (CaiT), and a learned query (the MAP head of SigLIP)."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(1, 1, DIM))
        self.query = nn.Parameter(torch.randn(1, 2, DIM))

    def forward(self, image: Tensor) -> Tensor:
        x = tokens_of(image)
        cls = self.cls.expand(x.shape[0], -1, -1)
        every = self.norm(torch.cat([cls, x], 1))
        q, k, v = self.qkv(every).chunk(3, -1)
        cls = cls + self.proj(merge(self.attend(split(q[:, :1]), split(k), split(v))))
        asked = self.query.expand(x.shape[0], -1, -1)
        found = merge(self.attend(split(asked), split(k), split(v)))
        return torch.cat([cls, self.gate(found)], 1).transpose(1, 2)[..., None]


BLOCKS = {
    "shifted_windows": ShiftedWindows, "cosine": Cosine, "reduced": Reduced,
    "talking_heads": TalkingHeads, "channel_attention": ChannelAttention,
    "linear_attention": LinearAttention, "relu_attention": ReluAttention,
    "sigmoid_attention": SigmoidAttention, "clipped_softmax": ClippedSoftmax,
    "softplus_attention": SoftplusAttention, "query_temperature": QueryTemperature,
    "gated_positions": GatedPositions, "efficient_attention": EfficientAttention,
    "relu_linear": ReluLinear, "rotary": Rotary, "head_norms": HeadNorms,
    "token_mlp": TokenMlp, "spatial_gate": SpatialGate, "pooling": Pooling, "inverted": Inverted,
    "pyramid": Pyramid, "learned": Learned,
}  # fmt: skip
