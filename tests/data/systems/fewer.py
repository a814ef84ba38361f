"""Models that drop tokens, join them, or end early."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .encoder import CLASSES, Block, Heads, Vit, mlp


class KeptAttention(Heads):
    """Attention to kept tokens: DynamicViT's softmax with a policy, a token always sees itself."""

    def attend_kept(self, x: Tensor, kept: Tensor) -> Tensor:
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, -1))
        scores = self.scores(q, k)
        policy = kept.transpose(1, 2)[:, None]
        policy = policy + (1.0 - policy) * torch.eye(x.shape[1])
        weights = (scores - scores.amax(-1, keepdim=True)).exp() * policy
        y = weights / weights.sum(-1, keepdim=True) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class IaRed(Vit):
    """IA-RED² (Pan et al. 2021): an interpreter decides for every token whether it goes on."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__(Block(Heads()))
        self.say = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 6), nn.GELU(), nn.Linear(6, 1))
        self.mix, self.feed = KeptAttention(), mlp(dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.tokens(image))
        kept = (torch.sigmoid(self.say(x)) > 0.5).to(x.dtype)
        x = x + self.mix.attend_kept(self.norm1(x), kept)
        x = x + self.feed(self.norm2(x))
        return self.head((self.norm(x) * kept).mean(1))


class Evit(Vit):
    """EViT (Liang et al. 2022): the tokens that the class token attends to most stay.

    The others become one, weighed by that attention.
    """

    KEPT = 9

    def __init__(self, dim: int = 12) -> None:
        super().__init__(before=1)
        self.mix, self.late = Heads(dim), Block(Heads(dim))
        self.norm1, self.norm2, self.feed = nn.LayerNorm(dim), nn.LayerNorm(dim), mlp(dim)

    def forward(self, image: Tensor) -> Tensor:
        x, mix = self.tokens(image), self.mix
        q, k, v = (mix.split(part) for part in mix.qkv(self.norm1(x)).chunk(3, -1))
        weights = mix.scores(q, k).softmax(-1)
        x = x + mix.proj((weights @ v).transpose(1, 2).flatten(2))
        seen = weights[:, :, 0, 1:].mean(1)
        cls, rest = x[:, :1], x[:, 1:]
        order = seen.topk(seen.shape[1]).indices
        best, other = order[:, : self.KEPT], order[:, self.KEPT :]
        dim = x.shape[-1]
        left = rest.gather(1, other[..., None].expand(-1, -1, dim))
        fused = (left * seen.gather(1, other)[..., None]).sum(1, keepdim=True)
        kept = rest.gather(1, best[..., None].expand(-1, -1, dim))
        x = torch.cat([cls, kept, fused], 1)
        x = self.late(x + self.feed(self.norm2(x)))
        return self.head(self.norm(x)[:, 0])


class ToMe(Vit):
    """Token merging (Bolya et al. 2023): the most alike pairs of two halves become their mean."""

    MERGED = 4

    def __init__(self) -> None:
        super().__init__(Block(Heads()), before=1)
        self.late = Block(Heads())

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.tokens(image))
        unit = x / x.norm(dim=-1, keepdim=True)
        a, b = unit[:, ::2], unit[:, 1::2]
        alike = a @ b.transpose(-1, -2)
        alike = torch.cat([torch.full_like(alike[:, :1], -1e4), alike[:, 1:]], 1)
        best, partner = alike.max(-1)
        order = best.argsort(-1, descending=True)[..., None]
        dim = x.shape[-1]
        gone, kept = order[:, : self.MERGED], order[:, self.MERGED :]
        at = partner[..., None].gather(1, gone)
        a, b = x[:, ::2], x[:, 1::2]
        source = a.gather(1, gone.expand(-1, -1, dim))
        sums = b.scatter_add(1, at.expand(-1, -1, dim), source)
        count = torch.ones_like(b[..., :1]).scatter_add(1, at, torch.ones_like(source[..., :1]))
        x = torch.cat([a.gather(1, kept.expand(-1, -1, dim)), sums / count], 1)
        return self.head(self.norm(self.late(x)).mean(1))


class EarlyExit(Vit):
    """JEI-DNN (Chataoui et al. 2024): an inner head, and a gate that reads how sure it is.

    All is computed; the gate chooses which head's answer leaves.
    """

    def __init__(self, dim: int = 12) -> None:
        super().__init__(Block(Heads()))
        self.late = Block(Heads())
        self.inner = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, CLASSES))
        self.gate = nn.Linear(3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.tokens(image))
        early = self.inner(x.mean(1))
        late = self.head(self.norm(self.late(x)).mean(1))
        shares = early.softmax(-1)
        best = shares.topk(2).values
        entropy = -(shares * (shares + 1e-6).log()).sum(-1, keepdim=True)
        sure = torch.cat([best[:, :1], best[:, :1] - best[:, 1:], entropy], -1)
        return torch.where(torch.sigmoid(self.gate(sure)) > 0.5, early, late)


SYSTEMS = {"ia_red2": IaRed, "evit": Evit, "tome": ToMe, "jei_dnn": EarlyExit}
