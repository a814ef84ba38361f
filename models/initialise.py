"""Mimetic initialisation: start a small vision transformer where trained ones end up.

Trockman & Kolter, "Mimetic Initialization of Self-Attention Layers", ICML 2023: in trained
networks the product of the query and key matrices resembles the identity, that of the value
and projection matrices its negative. Starting there, with sinusoidal positions, saves a small
data set the epochs that it takes to find out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.vit import ViT

__all__ = ["mimetic", "sinusoids"]

#: Weights of noise and identity in the two products, as in the paper.
_QUERY_KEY, _VALUE_PROJECTION = 0.7, 0.4
#: Positions start at half the amplitude of a sine: patches are to be seen beside them.
_POSITION = 0.5


def sinusoids(side: int, dim: int) -> Tensor:
    """Positions in a square grid: half of the channels tell the row, half the column.

    Returns
    -------
    Tensor
        ``[side * side, dim]``, in row order, values -1 to 1.
    """
    frequency = 10_000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.reshape(-1, 1) * frequency for place in (row, column)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


@torch.no_grad()
def mimetic(model: ViT) -> None:
    """Initialise positions and attention of a model with a class token, in place."""
    cfg = model.cfg
    dim, head = cfg.dim, cfg.dim // cfg.heads
    model.pos_embed[0, 1:] = _POSITION * sinusoids(cfg.image // cfg.patch, dim)
    noise, identity = dim**-0.5, torch.eye(dim)
    for block in model.blocks:
        query, key, value = block.attn.qkv.weight.split(dim)
        u, s, vt = torch.linalg.svd(_VALUE_PROJECTION * (noise * torch.randn(dim, dim) - identity))
        value.copy_(s.sqrt()[:, None] * vt)
        block.attn.proj.weight.copy_(u * s.sqrt())
        for rows in torch.arange(dim).split(head):
            u, s, vt = torch.linalg.svd(_QUERY_KEY * (noise * torch.randn(dim, dim) + identity))
            query[rows] = (u * s.sqrt()).T[:head]
            key[rows] = (s.sqrt()[:, None] * vt)[:head]
