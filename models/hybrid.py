"""A small hierarchical vision transformer: residual convolutions first, then attention.

Early maps are large and their features local: convolutions. Late ones are small and their features
global: pre-norm transformer blocks, in two widths (after CoAtNet, Dai et al., 2021, and CAFormer,
Yu et al., 2024). The borders that convolutions see tell tokens where they are: no positions.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.vit import Block, ViTConfig

__all__ = ["HybridConfig", "HybridViT"]


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """Shape of a :class:`HybridViT`.

    Attributes
    ----------
    image, channels, classes : int
        Side of the square picture, its channels, and the number of logits.
    stem : int
        Channels of the map that has the picture's size.
    widths : tuple of int
        Channels of each stage; each map has half the side of the one before.
    convolutions, blocks : tuple of int
        Residual pairs of convolutions, and behind them transformer blocks, in each stage.
    head_dim, mlp_ratio : int
        Channels of an attention head; hidden units of the MLPs per channel.
    """

    image: int
    channels: int
    classes: int
    stem: int
    widths: tuple[int, ...]
    convolutions: tuple[int, ...]
    blocks: tuple[int, ...]
    head_dim: int = 32
    mlp_ratio: int = 2


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3×3 convolution of the same size, or half of it, with BatchNorm (which exports fold)."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            norm=nn.BatchNorm2d(outputs),
        )
    )


class Residual(nn.Module):
    """Two convolutions whose result is added to the map, ReLU behind both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = convolution(width, width)
        self.conv2 = convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map ``[batch, width, side, side]``."""
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class Stage(nn.Module):
    """Half the side, convolutions, transformer blocks: maps in, maps out."""

    def __init__(self, cfg: HybridConfig, number: int, inputs: int, width: int) -> None:
        super().__init__()
        self.down = convolution(inputs, width, stride=2)
        self.convolutions = nn.Sequential(
            *(Residual(width) for _ in range(cfg.convolutions[number]))
        )
        block = ViTConfig(
            image=cfg.image, patch=2 << number, channels=cfg.channels, classes=cfg.classes,
            dim=width, depth=cfg.blocks[number], heads=width // cfg.head_dim,
            mlp_ratio=cfg.mlp_ratio,
        )
        self.blocks = nn.Sequential(*(Block(block) for _ in range(block.depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map ``[batch, inputs, 2 side, 2 side]`` to ``[batch, width, side, side]``."""
        x = self.convolutions(torch.relu(self.down(x)))
        if not self.blocks:
            return x
        tokens = self.blocks(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class HybridViT(nn.Module):
    """Hierarchical transformer: pictures ``[batch, channels, image, image]`` to logits.

    Parameters
    ----------
    cfg : HybridConfig
        The network's shape, kept as the attribute ``cfg``.
    """

    def __init__(self, cfg: HybridConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.stem = convolution(cfg.channels, cfg.stem)
        widths = pairwise((cfg.stem, *cfg.widths))
        self.stages = nn.Sequential(
            *(Stage(cfg, number, *pair) for number, pair in enumerate(widths))
        )
        self.norm = nn.LayerNorm(cfg.widths[-1])
        self.head = nn.Linear(cfg.widths[-1], cfg.classes)

    def forward(self, image: Tensor) -> Tensor:
        """Classify normalised pictures, float32 ``[batch, channels, image, image]``."""
        x = self.stages(torch.relu(self.stem(image)))
        return self.head(self.norm(x.flatten(2).transpose(1, 2)).mean(dim=1))
