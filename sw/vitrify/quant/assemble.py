"""Plan and statistics to integers, op by op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig

from . import requant, scheme
from .calibrate import Progress, Request, Stats
from .given import Given, Kept
from .graph import QuantGraph
from .loop import Loop
from .operands import Operands, Source
from .plan import Plan, PlanOp
from .requant import Columns, ScaleError
from .rounding import GRIDS
from .tensors import Float, Requant
from .trellis import TRELLIS
from .wanted import NARROW, WIDE


class Assembler(Operands):
    """What integers are made with: the plan, what was seen of its tensors, the graph so far.

    Members
    -------
    graph : takes ops, tensors, constants and counts of multiplications
    images : float ``[N, C, H, W]``, those of the calibration
    bits : of the weights of layers that may have few
    loop : follows the graph, so that weights are rounded for the inputs that they will see
    given, kept : formats that the model brings, and which of them the graph has
    """

    def __init__(
        self, plan: Plan, stats: Mapping[Request, Stats], graph: QuantGraph, arch: ArchConfig,
        images: npt.NDArray[np.float32], bits: int = WIDE, loop: Loop | None = None,
        given: Given | None = None,
    ) -> None:
        grids = {**GRIDS, NARROW: TRELLIS} if arch.trellis_codes else GRIDS
        super().__init__(plan, stats, graph, grids)
        self.arch, self.images, self.bits, self.loop = arch, images, bits, loop
        self.given, self.kept = given or Given(), Kept()

    def columns(
        self, name: str, x: Source, weight: Float, bias: Float, step: float | Float, reach: int,
        bits: int = WIDE, groups: int = 1,
    ) -> Columns:
        """Integers of a layer, or of one for each task, from real weights to an output ``step``.

        ``groups``: equal parts in which the results are used.  Weights have more than ``bits``
        where steps as coarse as those of few are more than the core scales down to output steps.
        """
        shape = weight.shape
        each = np.broadcast_to(np.asarray(step, np.float64), shape[:-1])
        scaled = (weight * x.step).reshape(-1, shape[-1])
        grid = self.grids[bits].for_layer(shape[-2], groups, self.arch)
        if self.given and grid is not GRIDS[bits]:
            # Integers of a quantised model stay what they are, though they have no codes.
            own = requant.grid_steps(scaled, -GRIDS[bits].low)
            if np.count_nonzero(own) > len(own) // 2:
                grid, bits = GRIDS[bits], WIDE
        rounded = partial(
            requant.columns,
            scaled,
            bias.reshape(-1),
            each.reshape(-1),
            moments=x.moments,
            zero_point=x.zero_point,
            reach=reach,
            requant_bits=self.arch.requant_bits,
            what=name,
            stored=bool(self.given),
        )
        try:
            part = rounded(grid=grid)
        except ScaleError:
            if bits == WIDE:
                raise
            bits = WIDE
            part = rounded(grid=GRIDS[bits])
        if self.given:
            own = weight.reshape(part.weight.shape)
            steps = requant.grid_steps(own, scheme.INT8_MAX)
            # a copy of a tensor is a matrix of ones
            if (steps > 0).all() and np.count_nonzero(own, axis=1).max() > 1:
                off = np.abs(own * x.step / part.step[:, None] - part.weight).max()
                self.kept.weights[name] = bool(off <= requant.ON_GRID)
        every = replace(
            part.requant,
            multiplier=np.reshape(part.requant.multiplier, shape[:-1]),
            bias=np.reshape(part.requant.bias, shape[:-1]),
        )
        return Columns(part.weight.reshape(shape), every, part.step.reshape(shape[:-1]), bits)

    def single(self, name: str, factor: float, reach: int, bound: float) -> Requant:
        """One multiplier for all columns, no bias, from accumulator to output ``acc * factor``."""
        return requant.single(factor, reach, bound, self.arch.requant_bits, name)


#: Adds the integers of an op to the assembler's graph.
Assemble = Callable[[Assembler, Any], None]


def assemble(
    assembler: Assembler, operations: Mapping[type[PlanOp], Assemble],
    progress: Progress | None = None,
) -> QuantGraph:
    """The integer graph of the whole plan.

    Parameters
    ----------
    operations : how the ops of each class become integers
    """
    graph, ops = assembler.graph, assembler.plan.ops
    for i, op in enumerate(ops):
        operations[type(op)](assembler, op)
        if op.value:
            graph.values[op.name] = op.value
        if progress is not None:
            progress("quantising", (i + 1) / len(ops))
    return graph
