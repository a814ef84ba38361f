"""Linear attention and other kernels instead of the softmax of products."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import SIDE, Block, Heads, Vit, mlp
from .maps import Pooled, Residual, depthwise, map_of, tokens_of


class EluAttention(Heads):
    """Katharopoulos et al. 2020: elu + 1 as kernel, the denominator as a second product."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
        share = 1 / (torch.einsum("nhtd,nhd->nht", q, k.sum(2)) + 1e-6)
        return torch.einsum("nhtd,nhdm,nht->nhtm", q, torch.einsum("nhsd,nhsm->nhdm", k, v), share)


class ReluAttention(Heads):
    """L²ViT's linear global attention (Zheng 2025): ReLU, a denominator that is at least one.

    The published clamp is at 100 for 3,136 tokens; here are 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1) * self.width**-0.5)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = functional.relu(q), functional.relu(k)
        total = torch.clamp(q @ k.transpose(-2, -1).sum(-1, keepdim=True), 1.0)
        return q @ (k.transpose(-2, -1) @ v * self.temperature) / total


class Concentration(nn.Module):
    """L²ViT's local concentration module: two depthwise 7 × 7 around GELU and BatchNorm."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.body = nn.Sequential(
            depthwise(dim, 7), nn.GELU(), nn.BatchNorm2d(dim), depthwise(dim, 7)
        )

    def forward(self, x: Tensor) -> Tensor:
        return tokens_of(self.body(map_of(x, SIDE)))


class L2Vit(nn.Module):
    """L²ViT's global block: positional convolution, attention, concentration, MLP."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.position = depthwise(dim)
        parts = ReluAttention(), Concentration(dim), mlp(dim)
        self.parts = nn.Sequential(*(Residual(nn.LayerNorm(dim), part) for part in parts))

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x + tokens_of(self.position(map_of(x, SIDE))))


class InLine(Heads):
    """InLine (Han et al. 2024): injective linear attention, and values of the neighbours.

    Weights are q·k − mean(q·k) + 1/N; each image says its own 3 × 3 weights of every channel.
    """

    def __init__(self, dim: int = 12, heads: int = 3) -> None:
        super().__init__(dim, heads, bias=False)
        self.say = nn.Sequential(
            nn.Conv1d(dim, dim, 1, groups=heads), nn.GELU(),
            nn.Conv1d(dim, 9 * dim, 1, groups=heads),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        n, count, dim = x.shape
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, -1))
        scale = self.width**-0.5
        kv = (k.transpose(-2, -1) * (scale / count) ** 0.5) @ (v * (scale / count) ** 0.5)
        other = 1 - q @ k.mean(2, keepdim=True).transpose(-2, -1) * scale
        y = (q @ kv + other * v.mean(2, keepdim=True)).transpose(1, 2).flatten(2)
        weights = self.say(x.mean(1).unsqueeze(-1)).view(n, dim, 9, 1)
        grid = map_of(v.transpose(1, 2).flatten(2), SIDE)
        near = functional.unfold(grid, 3, padding=1).view(n, dim, 9, count)
        return self.proj(y + (weights * near).sum(2).transpose(1, 2))


class NaLa(nn.Module):
    """NaLaFormer (Meng et al. 2025): directions to a power that the query's norm says.

    Positive and negative parts stand beside each other; both turn by two-dimensional positions;
    a depthwise convolution of the values is added, and a gate multiplies.
    """

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads, width = heads, dim // heads
        self.all, self.proj = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.near, self.norm = depthwise(dim, 5), nn.LayerNorm(dim)
        angle = (1 / 10000 ** torch.linspace(0, 1, width // 4)).repeat_interleave(2)
        at = torch.arange(SIDE)[:, None] * angle
        angle = torch.cat([at[:, None].expand(-1, SIDE, -1), at[None].expand(SIDE, -1, -1)], -1)
        self.register_buffer("cos", angle.flatten(0, 1).cos(), persistent=False)
        self.register_buffer("sin", angle.flatten(0, 1).sin(), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        return x * self.cos + other * self.sin

    def forward(self, x: Tensor) -> Tensor:
        n, count, dim = x.shape
        q, k, v, gate = self.all(x).reshape(n, count, 4, dim).permute(2, 0, 1, 3)
        near = tokens_of(self.near(map_of(v, SIDE)))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        k, norm = k**3, q.norm(dim=-1, keepdim=True)
        power = 3 * (0.5 + torch.tanh(norm))
        queries = [(functional.relu(part) / norm) ** power for part in (q, -q)]
        keys = [functional.relu(k), functional.relu(-k)]
        mean = torch.cat(keys, -1).mean(-2, keepdim=True)
        total = torch.cat(queries, -1) @ mean.transpose(-2, -1)
        turned = torch.cat([self.turn(part) for part in keys], -1)
        kv = (turned.transpose(-2, -1) * count**-0.5) @ (v * count**-0.5)
        y = torch.cat([self.turn(part) for part in queries], -1) @ kv * (1 / (total + 1e-6))
        y = self.norm(y.transpose(1, 2).flatten(2) + near) * functional.silu(gate)
        return self.proj(y)


class LiteAttention(nn.Module):
    """EfficientViT (Cai et al. 2023): queries, keys and values of two scales, ReLU as kernel.

    A channel of ones beside the values makes the denominator.
    """

    def __init__(self, dim: int = 8, width: int = 4, out: int = 8) -> None:
        super().__init__()
        self.width = width
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.wider = nn.Sequential(
            depthwise(3 * dim, 5, bias=False),
            nn.Conv2d(3 * dim, 3 * dim, 1, groups=3 * dim // width, bias=False),
        )
        self.proj = nn.Sequential(nn.Conv2d(2 * dim, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, side = x.shape
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.wider(qkv)], 1).reshape(n, -1, 3 * self.width, height * side)
        q, k, v = qkv.transpose(-1, -2).chunk(3, -1)
        q, k = functional.relu(q), functional.relu(k)
        both = q @ (k.transpose(-1, -2) @ functional.pad(v, (0, 1), value=1.0))
        y = both[..., :-1] / (both[..., -1:] + 1e-5)
        return self.proj(y.transpose(-1, -2).reshape(n, -1, height, side))


def efficientvit(dim: int = 8) -> nn.Module:
    """A stem, attention of two scales, an inverted bottleneck with Hardswish."""
    inverted = [
        nn.Conv2d(dim, 16, 1), nn.Hardswish(), depthwise(16), nn.Hardswish(),
        nn.Conv2d(16, dim, 1, bias=False), nn.BatchNorm2d(dim),
    ]  # fmt: skip
    stem = [nn.Conv2d(3, dim, 3, 2, 1, bias=False), nn.BatchNorm2d(dim), nn.Hardswish(),
            nn.Conv2d(dim, dim, 3, 2, 1)]  # fmt: skip
    return nn.Sequential(*stem, Residual(LiteAttention(dim)), Residual(*inverted), Pooled(dim))


class CrossCovariance(Heads):
    """XCiT (El-Nouby et al. 2021): channels attend to channels of unit length over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(self.heads, 1, 1) + 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.transpose(-2, -1) for part in (q, k, v))
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        return ((q @ k.transpose(-2, -1) * self.temperature).softmax(-1) @ v).transpose(-2, -1)


class Xcit(nn.Module):
    """XCiT's block: cross-covariance, local patch interaction, MLP, each with LayerScale."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.local = nn.Sequential(depthwise(dim), nn.GELU(), nn.BatchNorm2d(dim), depthwise(dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.parts = nn.ModuleList([CrossCovariance(), OnMap(self.local), mlp(dim)])
        self.scales = nn.Parameter(torch.randn(3, dim))

    def forward(self, x: Tensor) -> Tensor:
        for norm, part, scale in zip(self.norms, self.parts, self.scales, strict=True):
            x = x + scale * part(norm(x))
        return x


class OnMap(nn.Module):
    """Tokens as a map, the part, and tokens again."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return tokens_of(self.part(map_of(x, SIDE)))


class Soft(nn.Module):
    """SOFT (Lu et al. 2021): a Gaussian of distances, by landmarks and a pseudo-inverse.

    Queries are keys; landmarks are means of windows; Newton's iterations invert their Gram matrix.
    """

    def __init__(self, dim: int = 12, heads: int = 3, window: int = 2, iterations: int = 6) -> None:
        super().__init__()
        self.heads, self.width, self.iterations = heads, dim // heads, iterations
        self.pool = nn.AvgPool2d(window, window)
        self.q, self.v, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, heads, T, width], [N, heads, M, width] to [N, heads, T, M]."""
        far = (x**2).sum(-1, keepdim=True) + (y**2).sum(-1).unsqueeze(-2)
        far = far - 2 * x @ y.transpose(-2, -1)
        return torch.exp(-0.5 * self.width**-0.5 * far)

    def inverse(self, gram: Tensor) -> Tensor:
        """Newton-Raphson from ``2 / |gram|₁²`` of the matrix, which makes it converge."""
        size = gram.sum(-1).amax(-1)[..., None, None]
        found = gram * (2 / size**2)
        for _ in range(self.iterations):
            found = 2 * found - found @ gram @ found
        return found

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x)
        marks = self.split(tokens_of(self.pool(map_of(q, SIDE))))
        q, v = self.split(q), self.split(self.v(x))
        near = self.kernel(q, marks)
        y = near @ (self.inverse(self.kernel(marks, marks)) @ (near.transpose(-2, -1) @ v))
        return self.proj(y.transpose(1, 2).flatten(2))


SYSTEMS = {
    "elu_attention": lambda: Vit(Block(EluAttention())),
    "l2vit": lambda: Vit(L2Vit()),
    "inline": lambda: Vit(Block(InLine())),
    "nalaformer": lambda: Vit(Block(NaLa(), dim=16), dim=16),
    "efficientvit": efficientvit,
    "xcit": lambda: Vit(Xcit()),
    "soft": lambda: Vit(Block(Soft())),
}
