"""What every operation is tested for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from tests.support.execute import tensors
from tests.support.rehearsal import placements
from tests.unit.quant.graphs import Net
from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out
from vitrify.program import Program
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator

NANO = preset("nano")


def check(
    net: Net, *outputs: ir.Value, batch: int = 1, least: float = 20, arch: ArchConfig = NANO,
    ways: Iterable[PlacementStrategy] | None = None,
) -> Program:
    """Integers close to the floats, and golden equal to the evaluator."""
    model, images = net.model(*outputs), net.images(24)
    graph = quantise(model, images, arch=arch)
    assert min(one.sqnr for one in compare(model, graph, images[:8], arch)) > least
    ways = None if ways is None else list(ways)
    program = compile_graph(graph, arch, batch=batch, ways=ways)
    known, rehearsed = (
        placements(leave_out(graph), arch, (ways or [PlacementStrategy()])[0], batch, rehearses)
        for rehearses in (False, True)
    )
    assert known == rehearsed
    assert program.macs == batch * sum(leave_out(graph).macs.values())
    _, found = tensors(program, images[:batch])
    real = Evaluator(graph, arch).outputs(images[:batch])
    for got, exact in zip(found, real.values(), strict=True):
        assert (got.reshape(exact.shape) == exact.astype(np.float32)).all()
    return program
