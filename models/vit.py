"""A small pre-norm vision transformer in plain PyTorch, shared by the training scripts.

It is the textbook network (Dosovitskiy et al., 2021) and nothing else, so that what the
exporters write is what users' own exports look like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ViT", "ViTConfig"]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Shape of a :class:`ViT`.

    Attributes
    ----------
    image, patch : int
        Side of the square picture and of a square patch, pixels.
    channels : int
        Picture channels.
    classes : int
        Number of logits (of each patch, without a pool).
    dim, depth, heads : int
        Width of the residual stream, number of blocks, attention heads per block.
    mlp_ratio : int
        Hidden units of the MLP per residual channel.
    activation : {"gelu", "silu", "relu"}
        Nonlinearity of the MLP.
    pool : {"class", "mean", "none"}
        What the head reads: a learned class token, the mean over the patches, or every patch.
    overlap : int
        Pixels that the embedding of a patch sees beyond each of its edges.
    """

    image: int
    patch: int
    channels: int
    classes: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: int = 4
    activation: Literal["gelu", "silu", "relu"] = "gelu"
    pool: Literal["class", "mean", "none"] = "class"
    overlap: int = 0

    @property
    def patches(self) -> int:
        """Number of patches in a picture."""
        return (self.image // self.patch) ** 2


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, cfg: ViTConfig) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.qkv = nn.Linear(cfg.dim, 3 * cfg.dim)
        self.proj = nn.Linear(cfg.dim, cfg.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over ``x``, shape ``[batch, tokens, dim]``."""
        n, t, d = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, t, d))


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each added to the residual stream."""

    def __init__(self, cfg: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(cfg.dim)
        self.attn = Attention(cfg)
        self.norm2 = nn.LayerNorm(cfg.dim)
        self.fc1 = nn.Linear(cfg.dim, cfg.mlp_ratio * cfg.dim)
        self.fc2 = nn.Linear(cfg.mlp_ratio * cfg.dim, cfg.dim)
        self.act = {"gelu": nn.GELU, "silu": nn.SiLU, "relu": nn.ReLU}[cfg.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``, shape ``[batch, tokens, dim]``."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Vision transformer: pictures ``[batch, channels, image, image]`` to logits.

    Parameters
    ----------
    cfg : ViTConfig
        The network's shape, kept as the attribute ``cfg``.
    """

    def __init__(self, cfg: ViTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        seen = cfg.patch + 2 * cfg.overlap
        self.patch_embed = nn.Conv2d(cfg.channels, cfg.dim, seen, cfg.patch, cfg.overlap)
        tokens = cfg.patches + (cfg.pool == "class")
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, cfg.dim))
        if cfg.pool == "class":
            self.cls_token = nn.Parameter(torch.empty(1, 1, cfg.dim))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(cfg.dim)
        self.head = nn.Linear(cfg.dim, cfg.classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        for block in self.blocks:  # each block starts as a small correction of the stream
            for last in (block.attn.proj, block.fc2):
                nn.init.trunc_normal_(last.weight, std=(2 * cfg.depth * last.in_features) ** -0.5)

    def embed(self, image: Tensor) -> Tensor:
        """Turn pictures into tokens ``[batch, tokens, dim]``, the class token first."""
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        if self.cfg.pool == "class":
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + self.pos_embed

    def features(self, tokens: Tensor) -> Tensor:
        """What the head reads: ``[batch, dim]``, or ``[batch, patches, dim]`` without a pool."""
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        if self.cfg.pool == "none":
            return tokens
        return tokens[:, 0] if self.cfg.pool == "class" else tokens.mean(dim=1)

    def classify(self, tokens: Tensor) -> Tensor:
        """Turn tokens into logits ``[batch, classes]``; some patches may be missing."""
        return self.head(self.features(tokens))

    def forward(self, image: Tensor) -> Tensor:
        """Classify normalised pictures, float32 ``[batch, channels, image, image]``."""
        return self.classify(self.embed(image))
