"""Where training starts: at what trained networks have in common, or at one of them.

Mimetic initialisation starts a small vision transformer where trained ones end up.

Trockman & Kolter, "Mimetic Initialization of Self-Attention Layers", ICML 2023: in trained
networks the product of the query and key matrices resembles the identity, that of the value
and projection matrices its negative. Starting there, with sinusoidal positions, saves a small
data set the epochs that it takes to find out.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from models.moe import MixtureViT
from models.vit import ViT

__all__ = ["mimetic", "principal_patches", "sinusoids", "state_of", "upcycle"]

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


@torch.no_grad()
def principal_patches(conv: nn.Conv2d, image: Tensor, *, pictures: int = 2000) -> None:
    """Start a convolution at the principal components of what it sees, in place.

    Each component goes to two channels, with either sign, so that a ReLU behind keeps both; all
    results have variance 1 (the whitening of Jordan, "94% on CIFAR-10 in 3.29 Seconds", 2024).

    Parameters
    ----------
    conv : Conv2d
        Of an even number of channels, at most twice the values of a patch.
    image : Tensor
        Normalised pictures, ``[n, channels, side, side]``, of which the first ``pictures`` count.
    """
    patches = F.unfold(image[:pictures], conv.kernel_size).transpose(1, 2).flatten(0, 1)
    variance, components = torch.linalg.eigh(torch.cov(patches.T))
    half = conv.out_channels // 2
    scaled = (components / variance.sqrt()).T.flip(0)[:half]
    conv.weight.copy_(torch.cat([scaled, -scaled]).view_as(conv.weight))


def state_of(path: Path) -> dict[str, Tensor]:
    """Read the ``state_dict`` of a :class:`ViT` back from its dynamo export.

    Biases, norms and embeddings keep their names there; a matrix is what multiplies the operand
    that its bias is added to, and lies transposed.
    """
    graph = onnx.load(path).graph
    arrays = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    state = {name: array for name, array in arrays.items() if not name.startswith("val_")}
    for node in graph.node:
        if node.op_type == "Add" and node.input[1].endswith(".bias"):
            product = producer[node.input[0]]
            state[node.input[1].removesuffix("bias") + "weight"] = arrays[product.input[1]].T
    return state


@torch.no_grad()
def upcycle(model: MixtureViT, state: dict[str, Tensor]) -> None:
    """Start a mixture network from a trained dense one of the same depth, in place.

    Komatsuzaki et al., "Sparse Upcycling", ICLR 2023, with smaller experts: each gets a random
    selection of the hidden units of the MLP whose place it takes.  Gates and heads are left alone.

    Parameters
    ----------
    state : dict of str to Tensor
        Of a :class:`ViT` with a class token, whose position the mixture network does without.
    """
    own = model.state_dict()
    shared = {name: value for name, value in state.items() if name in own}
    shared["pos_embed"] = state["pos_embed"][:, -own["pos_embed"].shape[1] :]
    model.load_state_dict(shared, strict=False)
    mix = model.mix
    for index, block in enumerate(model.blocks):
        if not hasattr(block, "mixture"):
            continue
        dense = {
            name: state[f"blocks.{index}.{name}"]
            for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        }
        for expert in block.mixture.experts:
            units = torch.randperm(len(dense["fc1.bias"]))[: mix.hidden]
            expert.fc1.weight.copy_(dense["fc1.weight"][units])
            expert.fc1.bias.copy_(dense["fc1.bias"][units])
            # the softmax gives each of a token's experts about choices / experts at first
            gain = mix.experts / mix.choices
            expert.fc2.weight.copy_(gain * dense["fc2.weight"][:, units])
            expert.fc2.bias.copy_(gain / mix.choices * dense["fc2.bias"])
