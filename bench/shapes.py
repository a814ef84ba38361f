"""Larger and longer networks by their shape: random weights, every tensor still compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch.config import ArchConfig
from vitrify.compiler import compile_graph
from vitrify.program import Program


@dataclass(frozen=True)
class Shape:
    """A vision transformer of this shape, with the interface of :class:`bench.cases.Case`."""

    name: str
    shape: dict[str, Any] = field(repr=False)
    presets: tuple[str, ...] = ("kv260",)
    #: Images of a job.
    batch: int = 1
    available: bool = True

    def compile(self, arch: ArchConfig) -> Program:
        """The program for ``arch``; two compilations are equal."""
        graph = vision_transformer(**self.shape)
        graph.name = self.name
        return compile_graph(graph, arch, batch=self.batch)

    def picture(self) -> npt.NDArray[np.float32]:
        """Noise for a job, ``[batch, C, H, W]``."""
        shape = (self.batch, *self.shape["image"])
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _imagenet(name: str, dim: int, heads: int, size: int = 224, **options: Any) -> Shape:
    return Shape(name, {
        "image": (3, size, size), "patch": 16, "dim": dim, "heads": heads, "hidden": 4 * dim,
        "blocks": 12, "classes": 1000, **options,
    })


#: M3ViT as Edge-MoE runs it: features of 129 tokens, an MLP and 16 experts in turn.  Three of them
#: are hardly asked for, which leaves about as many as its real gate uses.
_M3VIT = {
    "image": (3, 128, 256), "patch": 16, "dim": 192, "heads": 3, "hidden": 768, "blocks": 12,
    "classes": 0,
    "mixture": Mixture(
        experts=16, choices=2, hidden=384, tasks=2, ragged=False,
        bias=(0, 200, -200, -9000, 100, 0, 300, -9000, 0, -100, 200, 0, -9000, 100, 0, -300),
    ),
}

#: A row chooses two of the last four heads; the first two are everybody's.
_HEADS = Mixture(experts=4, choices=2)

SHAPES = (
    _imagenet("vit_small_shape", 384, 6),
    _imagenet("moh_small_shape", 384, 6, routed=_HEADS),
    _imagenet("moh_small_balanced_shape", 384, 6, routed=_HEADS, balanced=True),
    _imagenet("vit_base_shape", 768, 12),
    _imagenet("vit_tiny_384_shape", 192, 3, 384),
    _imagenet("vit_tiny_512_shape", 192, 3, 512),
    Shape("m3vit_tiny_shape", _M3VIT, ("kv260", "zcu102")),
    Shape("m3vit_tiny_shape_w4", _M3VIT | {"mixture": replace(_M3VIT["mixture"], bits=4)},
          ("kv260-w4",)),
    Shape("m3vit_tiny_shape_x2", _M3VIT, ("kv260", "zcu102"), batch=2),
    Shape("m3vit_tiny_shape_x4", _M3VIT, ("kv260", "zcu102"), batch=4),
)
