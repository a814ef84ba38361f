"""State of one compilation: tensors in memory, instructions, weights on their way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Region, Stats
from vitrify.program import to_words
from vitrify.quant.graph import QuantGraph
from vitrify.quant.tensors import Requant, Statistics

from .builder import Builder
from .memory import TensorMemory
from .placement import Placed
from .preload import Preloads
from .rehearsal import Rehearsal
from .strategy import PlacementStrategy


class Lowering(TensorMemory):
    """What an operation is lowered with: memory, builder, and the tiling of the core.

    Members
    -------
    builder : takes the instructions
    preloads : weights of branches, or of layers of few rows, that are loaded ahead of time
    routed : rows that are in the queues of experts by now, by the name of their logits
    rehearses : only places are wanted, and no instructions
    """

    def __init__(
        self, graph: QuantGraph, arch: ArchConfig, strategy: PlacementStrategy, images: int = 1,
        *, rehearses: bool = False,
    ) -> None:
        super().__init__(graph, arch, strategy, images)
        self.rehearses = rehearses
        self.builder = Rehearsal(arch) if rehearses else Builder(arch)
        self.preloads = Preloads(self, self.builder)
        self.routed: dict[str, int] = {}

    def load_constant(
        self, target: Placed, value: npt.NDArray[np.integer], *, row: int = 0,
        after: int | None = None,
    ) -> None:
        """LOAD ``value [rows, channels]`` from the program; ``after`` as :meth:`Builder.load`."""
        if self.rehearses:
            return
        block = self.builder.image.add(to_words(value, self.arch.depth))
        self.builder.load(
            target, Region.PROGRAM, block, row=row, rows=len(value), after=after
        )

    def row_blocks(self, rows: int, least: int = 1) -> list[tuple[int, int]]:
        """``(first row, rows)`` of blocks that the accumulators can hold, evenly sized.

        There are at least ``least``, if there are as many rows.
        """
        count = max(-(-rows // self.arch.max_rows), min(least, rows))
        size = -(-rows // count)
        return [(start, min(size, rows - start)) for start in range(0, rows, size)]

    def passing_blocks(self, name: str) -> list[tuple[int, int]]:
        """Blocks of rows in which a tensor passes that need not be in memory as a whole."""
        return self.row_blocks(self.rows(name), self.strategy.row_blocks)

    @staticmethod
    def requant(requant: Requant) -> dict[str, int]:
        """Shift fields of an op."""
        return {
            "pre_shift": requant.pre_shift, "post_shift": post_code(requant.post_shift),
        }

    @classmethod
    def requant_single(cls, requant: Requant) -> dict[str, int]:
        """Fields of a product whose columns share the multiplier."""
        return {**cls.requant(requant), "multiplier": int(requant.multiplier)}

    def gather(self, statistics: Statistics | None, out: Placed, row: int) -> dict[str, int]:
        """Fields of a product that gathers ``statistics`` of what it writes from ``row`` on."""
        if statistics is None:
            return {}
        if not (statistics.centred or self.arch.row_sums):
            raise CapacityError(
                f"tensor {out.name!r} is read by an RMSNorm, and arch {self.arch.name!r} is "
                f"without 'row_sums'; choose an architecture that has them"
            )
        return {
            "stats": Stats.NORM if statistics.centred else Stats.RMS, "inv_dim": statistics.inv_dim,
            "inv_shift": statistics.inv_shift, "epsilon": statistics.epsilon,
            "stat_dst": out.stat + row,
        }


def post_code(shift: int) -> int:
    """Instruction code of a post shift."""
    return formats.POST_SHIFTS.index(shift)
