"""A vision transformer of several tasks whose every second MLP is a mixture of experts.

The block is that of M³ViT (Fan et al., 2022): a gate for every task, the softmax over all experts,
the largest two of them used as weights.  Tasks share everything but gates and heads; which gate and
which head a picture gets is an input of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.vit import Attention, ViT, ViTConfig

__all__ = ["MixtureConfig", "MixtureViT"]


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """What a :class:`MixtureViT` has beyond its :class:`ViTConfig`.

    Attributes
    ----------
    tasks : int
        Number of gates in a mixture, and of heads.
    experts, choices : int
        Experts in a mixture, and how many of them a token goes to.
    hidden : int
        Hidden units of an expert.
    """

    tasks: int
    experts: int
    choices: int
    hidden: int


class Expert(nn.Module):
    """A small MLP, from ``[rows, dim]`` to the same."""

    def __init__(self, cfg: ViTConfig, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(cfg.dim, hidden)
        self.fc2 = nn.Linear(hidden, cfg.dim)
        self.act = nn.GELU() if cfg.activation == "gelu" else nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows."""
        return self.fc2(self.act(self.fc1(x)))


class Mixture(nn.Module):
    """Experts, and the gates that choose among them.

    Attributes
    ----------
    balance : Tensor
        Of the last call: the product of load and mean share, summed over the experts, times their
        number; 1 when all are used alike (Fedus et al., 2021).
    load : Tensor
        Of the last call, ``[experts]``: the share of the choices that each got.
    """

    def __init__(self, cfg: ViTConfig, mix: MixtureConfig) -> None:
        super().__init__()
        self.choices = mix.choices
        self.gate = nn.Parameter(torch.randn(mix.tasks, cfg.dim, mix.experts) * cfg.dim**-0.5)
        self.experts = nn.ModuleList(Expert(cfg, mix.hidden) for _ in range(mix.experts))

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        """Mix ``x``, ``[batch, tokens, dim]``, by the gates of ``task``, int64 ``[batch]``."""
        shares = torch.softmax(x @ self.gate[task], dim=-1)
        weight, chosen = torch.topk(shares, self.choices, dim=-1)
        if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting():
            return self._masked(x, weight, chosen)
        self.load = torch.bincount(chosen.flatten(), minlength=shares.shape[-1]) / chosen.numel()
        self.balance = len(self.experts) * (self.load * shares.mean(dim=(0, 1))).sum()
        return self._gathered(x, weight, chosen)

    def _masked(self, x: Tensor, weight: Tensor, chosen: Tensor) -> Tensor:
        """Compute every expert on every token: a graph without sizes that depend on data."""
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            share = (weight * (chosen == number)).sum(dim=-1, keepdim=True)
            y = y + share * expert(x)
        return y

    def _gathered(self, x: Tensor, weight: Tensor, chosen: Tensor) -> Tensor:
        """Compute every expert on its own tokens only: what training can afford."""
        rows, weight, chosen = x.flatten(0, 1), weight.flatten(0, 1), chosen.flatten(0, 1)
        y = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            row, rank = torch.where(chosen == number)
            y.index_add_(0, row, weight[row, rank, None] * expert(rows[row]))
        return y.view_as(x)


class MixtureBlock(nn.Module):
    """Pre-norm block: attention and a mixture of experts, each added to the residual stream."""

    def __init__(self, cfg: ViTConfig, mix: MixtureConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(cfg.dim)
        self.attn = Attention(cfg)
        self.norm2 = nn.LayerNorm(cfg.dim)
        self.mixture = Mixture(cfg, mix)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        """Transform ``x``, shape ``[batch, tokens, dim]``; ``task`` is int64 ``[batch]``."""
        x = x + self.attn(self.norm1(x))
        return x + self.mixture(self.norm2(x), task)


class MixtureViT(ViT):
    """A :class:`ViT` whose blocks 1, 3, … hold mixtures; it has a head for each task.

    Parameters
    ----------
    cfg : ViTConfig
        The dense network; ``classes`` is the number of logits of every head.
    mix : MixtureConfig
        The mixtures, kept as the attribute ``mix``.
    """

    def __init__(self, cfg: ViTConfig, mix: MixtureConfig) -> None:
        super().__init__(cfg)
        self.mix = mix
        for index in range(1, cfg.depth, 2):
            self.blocks[index] = MixtureBlock(cfg, mix)
        del self.head
        self.head_weight = nn.Parameter(
            torch.randn(mix.tasks, cfg.dim, cfg.classes) * cfg.dim**-0.5
        )
        self.head_bias = nn.Parameter(torch.zeros(mix.tasks, cfg.classes))

    @property
    def mixtures(self) -> list[Mixture]:
        """The mixtures, first block first."""
        return [block.mixture for block in self.blocks if isinstance(block, MixtureBlock)]

    def classify(self, tokens: Tensor, task: Tensor) -> Tensor:
        """Turn tokens into the logits of each picture's task, ``[batch, classes]``."""
        for block in self.blocks:
            tokens = block(tokens, task) if isinstance(block, MixtureBlock) else block(tokens)
        tokens = self.norm(tokens)
        pooled = tokens[:, 0] if self.cfg.pool == "class" else tokens.mean(dim=1)
        logits = torch.bmm(pooled.unsqueeze(1), self.head_weight[task]).squeeze(1)
        return logits + self.head_bias[task]

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        """Answer ``task``, int64 ``[batch]``, for normalised pictures."""
        return self.classify(self.embed(image), task)
