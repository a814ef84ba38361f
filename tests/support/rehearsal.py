"""Where a network's tensors lie, found with instructions and without."""

from __future__ import annotations

from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.codegen.alloc import Allocator, Block, PlacementError
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile as stage
from vitrify.quant.graph import QuantGraph


def placements(
    graph: QuantGraph, arch: ArchConfig, way: PlacementStrategy, batch: int, rehearses: bool
) -> list[tuple[str, int]]:
    """Names and addresses in the order in which they are placed, up to a refusal."""
    found: list[tuple[str, int]] = []

    class Watched(Allocator):
        def place(self, name: str, words: int, **options: Any) -> Block:
            block = super().place(name, words, **options)
            found.append((name, block.address))
            return block

    state = Lowering(stage._batched(graph, batch), arch, way, batch, rehearses=rehearses)
    state.memory = Watched(arch)
    try:
        stage._lower_ops(state)
    except PlacementError as error:
        found.append((str(error), error.step))
    return found
