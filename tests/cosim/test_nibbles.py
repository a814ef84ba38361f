"""Layers with weights of four bits on the simulated core: every tensor, and half their bytes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.cosim.test_compiled_experts import run
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch import memmap
from vitrify.arch.isa import Opcode, Stationary
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.ops.experts.integer import QExperts
from vitrify.ops.linear.integer import QLinear
from vitrify.quant.graph import QOp, QuantGraph
from vitrify.runtime import InferenceSession

NANO = preset("nano")
#: Without pairs of columns: a word of nibbles is two columns, one after the other.
PLAIN = dataclasses.replace(NANO, name="plain", stored_weights=False)


def narrow(op: QOp) -> QOp:
    """``op``, with narrow weights if it is one of some layers, or a mixture's first expert."""
    if isinstance(op, QExperts):
        first, *others = op.experts
        pair = tuple(clipped(layer) for layer in first)
        return dataclasses.replace(op, experts=(pair, *others))
    if isinstance(op, QLinear) and op.name.endswith(("fc1", "proj", ".q")):
        return clipped(op)
    return op


def clipped(layer: QLinear) -> QLinear:
    """``layer`` with weights that four bits hold."""
    return dataclasses.replace(layer, weight=np.clip(layer.weight, -8, 7))


def mixed() -> QuantGraph:
    """Layers of both kinds in turn; of four experts the first one is narrow."""
    graph = vision_transformer(seed=3, blocks=2, mixture=Mixture(experts=4))
    graph.ops[:] = map(narrow, graph.ops)
    return graph


def tiles(program) -> dict[str, int]:
    """Bytes of the tiles of 4-bit weights, by layer, without experts: these may be skipped."""
    ops, found = list(program.instructions()), {}
    for layer in program.layers:
        op = ops[layer.instruction]
        if op.nibbles and not op.expert_rows:
            layout = memmap.stream_layout(program.arch, op)
            found[layer.name] = op.c_tiles * op.k_tiles * layout.tile * program.arch.depth
    return found


@pytest.mark.slow
@pytest.mark.parametrize("arch", [NANO, PLAIN], ids=lambda arch: arch.name)
def test_half_the_bytes(arch):
    program, other = (
        compile_graph(mixed(), core) for core in (arch, dataclasses.replace(arch, nibbles=False))
    )
    images = np.random.default_rng(5).normal(size=(2, *program.input.shape)).astype(np.float32)
    out, statistics = run(program, images, stall=0.2, seed=1)
    with InferenceSession(other, "golden") as golden:
        np.testing.assert_array_equal(golden.run(None, {other.input.name: images})[0], out)
        wide = golden.statistics
    counted, before = (
        {layer.name: layer.dram_read_bytes for layer in found.layers}
        for found in (statistics, wide)
    )
    assert tiles(program)
    for name, size in tiles(program).items():
        assert before[name] - counted[name] == 2 * size  # of two jobs
    assert wide.dram_read_bytes - statistics.dram_read_bytes >= 2 * sum(tiles(program).values())
    predicted = estimate(program).cycles
    assert abs(predicted - statistics.cycles / 2) <= 0.05 * predicted


def test_only_layers_that_fit():
    """Experts of four bits are not loaded ahead; a core without nibbles has bytes for all."""
    program = compile_graph(mixed(), NANO)
    found = {program.layers[i].name for i, op in enumerate(
        op for op in program.instructions() if op.opcode is Opcode.MATMUL) if op.nibbles}
    assert {"blocks.0.fc1", "blocks.0.proj", "blocks.0.q"} <= found
    assert not found & {"blocks.0.fc2", "blocks.0.k", "head", "embed"}
    for op in program.instructions():
        if op.opcode is Opcode.MATMUL and op.expert_rows:
            assert (op.stationary == Stationary.STORED) == (op.expert != 0)
            assert op.nibbles == (op.expert == 0)
    bare = compile_graph(mixed(), dataclasses.replace(NANO, nibbles=False))
    assert not any(op.nibbles for op in bare.instructions() if op.opcode is Opcode.MATMUL)
