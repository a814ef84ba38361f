"""Larger and longer networks by their shape: random weights, every tensor still compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.synthetic import vision_transformer
from vitrify.arch.config import ArchConfig
from vitrify.compiler import compile_graph
from vitrify.program import Program


@dataclass(frozen=True)
class Shape:
    """A vision transformer of this shape, with the interface of :class:`bench.cases.Case`."""

    name: str
    shape: dict[str, Any] = field(repr=False)
    presets: tuple[str, ...] = ("kv260",)
    available: bool = True

    def compile(self, arch: ArchConfig) -> Program:
        """The program for ``arch``; two compilations are equal."""
        graph = vision_transformer(**self.shape)
        graph.name = self.name
        return compile_graph(graph, arch)

    def picture(self) -> npt.NDArray[np.float32]:
        """Noise, ``[1, C, H, W]``."""
        return np.random.default_rng(0).normal(size=(1, *self.shape["image"])).astype(np.float32)


def _imagenet(name: str, dim: int, heads: int, size: int = 224) -> Shape:
    return Shape(name, {
        "image": (3, size, size), "patch": 16, "dim": dim, "heads": heads, "hidden": 4 * dim,
        "blocks": 12, "classes": 1000,
    })


SHAPES = (
    _imagenet("vit_small_shape", 384, 6),
    _imagenet("vit_base_shape", 768, 12),
    _imagenet("vit_tiny_384_shape", 192, 3, 384),
    _imagenet("vit_tiny_512_shape", 192, 3, 512),
)
