"""Layers with weights of four bits on the simulated core: every tensor, and half their bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from tests.cosim.test_compiled_experts import run
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch import access, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode, Stationary
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.ops.experts.integer import QExperts
from vitrify.ops.linear.integer import QLinear
from vitrify.program import shared_macs
from vitrify.quant.graph import QOp, QuantGraph
from vitrify.quant.trellis import TRELLIS
from vitrify.runtime import InferenceSession

#: Four bits are integers here, and codes there.
NANO, CODES = dataclasses.replace(preset("nano"), trellis=False), preset("nano")
#: Without pairs of columns: a word of nibbles is two columns, one after the other.
PLAIN = dataclasses.replace(NANO, name="plain", stored_weights=False)
#: Tiles of four words of nibbles, several to a layer, and a column after the other.
ROUND = dataclasses.replace(
    CODES, name="round", stored_weights=False, depth=4, width=8, lanes=4, bank_words=512)
#: A word of nibbles is a column of two c tiles, which a pass computes together.
BOTH = dataclasses.replace(NANO, name="both", nibble_tiles=2)
#: Three columns are where two of bytes are, and a c tile has 12.
THIRDS = dataclasses.replace(
    NANO, name="thirds", depth=4, width=8, lanes=4, banks=8, bank_words=1024, packing=True,
    nibble_thirds=True)


def clipped(layer: QLinear) -> QLinear:
    """``layer`` with weights that four bits hold."""
    return dataclasses.replace(layer, weight=np.clip(layer.weight, -8, 7))


def narrow(op: QOp, made: Callable[[QLinear], QLinear] = clipped) -> QOp:
    """``op``, with narrow weights if it is one of some layers, or a mixture's first expert."""
    if isinstance(op, QExperts):
        first, *others = op.experts
        pair = tuple(made(layer) for layer in first)
        return dataclasses.replace(op, experts=(pair, *others))
    if isinstance(op, QLinear) and op.name.endswith(("fc1", "proj", ".q")):
        return made(op)
    return op


def mixed() -> QuantGraph:
    """Layers of both kinds in turn; of four experts the first one is narrow."""
    graph = vision_transformer(seed=3, blocks=2, mixture=Mixture(experts=4))
    graph.ops[:] = map(narrow, graph.ops)
    return graph


def coded(arch: ArchConfig) -> QuantGraph:
    """As :func:`mixed`, with codes for narrow layers; heads of 12 channels begin with a word."""
    graph = vision_transformer(
        seed=3, blocks=2, dim=24, heads=2, mixture=Mixture(experts=4))

    def of(layer: QLinear) -> QLinear:
        grid = TRELLIS.for_layer(len(layer.weight), 2 if layer.name.endswith(".q") else 1, arch)
        return dataclasses.replace(layer, weight=grid.nearest(layer.weight / 9).astype(np.int8))

    graph.ops[:] = (narrow(op, of) for op in graph.ops)
    return graph


def saved(program) -> dict[str, int]:
    """Bytes that 4-bit weights save, by layer, without experts: these may be skipped."""
    ops, found = list(program.instructions()), {}
    for layer in program.layers:
        op = ops[layer.instruction]
        if op.nibbles and not op.expert_rows:
            layout = memmap.stream_layout(program.arch, op)
            arch, columns = program.arch, access.shape(program.arch, op)[1]
            c_tiles = -(-columns // arch.width)
            wide = c_tiles * (arch.groups * arch.param_words + op.k_tiles * arch.width)
            halved = op.c_tiles * layout.params + layout.tiles
            found[layer.name] = (wide - halved) * arch.depth
            # A c tile left over takes a whole pass.
            filled = op.c_tiles * op.k_tiles * arch.tile_width(op.nibbles)
            assert op.c_tiles % layout.tiles_per_pass or 2 * layout.tiles == filled
    return found


@pytest.mark.slow
@pytest.mark.parametrize("arch", [NANO, PLAIN, BOTH, THIRDS], ids=lambda arch: arch.name)
def test_half_the_bytes(arch):
    program, other = (
        compile_graph(mixed(), core)
        for core in (arch, dataclasses.replace(
            arch, nibbles=False, nibble_tiles=1, nibble_thirds=False))
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
    assert saved(program)
    for name, size in saved(program).items():
        assert before[name] - counted[name] == 2 * size  # of two jobs
    assert wide.dram_read_bytes - statistics.dram_read_bytes >= 2 * sum(saved(program).values())
    predicted = estimate(program).cycles
    _, smooth = run(program, images, stall=0.0, seed=1)
    assert abs(predicted - smooth.cycles / 2) <= 0.05 * predicted


def test_weights_without_codes_are_bytes():
    """Those of :func:`mixed` are within the range of codes, but not in their places."""
    images = np.random.default_rng(5).normal(size=(1, 1, 8, 8)).astype(np.float32)
    found = []
    for arch in CODES, NANO:
        program = compile_graph(mixed(), arch)
        assert any(op.nibbles for op in program.instructions()
                   if op.opcode is Opcode.MATMUL) == (arch is NANO)
        with InferenceSession(program, "golden") as golden:
            found.append(golden.run(None, {program.input.name: images})[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [CODES, ROUND], ids=lambda arch: arch.name)
def test_trellis_codes(arch):
    """All layers that may have some have, in RTL as in golden; bytes give the same results."""
    program = compile_graph(coded(arch), arch)
    ops = list(program.instructions())
    found = {layer.name for layer in program.layers if ops[layer.instruction].nibbles}
    assert {"blocks.0.fc1", "blocks.0.proj", "blocks.0.q", "blocks.1.q"} <= found
    images = np.random.default_rng(5).normal(size=(2, *program.input.shape)).astype(np.float32)
    out, statistics = run(program, images, stall=0.2, seed=1)
    other = compile_graph(coded(arch), dataclasses.replace(arch, trellis=False))
    with InferenceSession(other, "golden") as golden:
        np.testing.assert_array_equal(golden.run(None, {other.input.name: images})[0], out)
        assert golden.statistics.dram_read_bytes > statistics.dram_read_bytes


def sharing(program, alone):
    """MATMULs and layers of nibbles; what uses more than its share of the core is a mistake.

    ``alone`` is the same on a core whose multipliers do one product at a time.
    """
    assert program.macs == alone.macs
    assert program.roofline_cycles < alone.roofline_cycles
    ops = list(program.instructions())
    found = [(ops[layer.instruction], layer) for layer in program.layers
             if ops[layer.instruction].nibbles]
    assert found
    predicted = estimate(program)
    assert all(0 <= layer.utilisation <= 1 for layer in predicted.layers)
    assert min(predicted.lost.values()) >= 0
    return found


def test_two_tiles_in_a_pass_need_half_the_multiplications():
    """A c tile left over has a pass of its own."""
    program, alone = (compile_graph(mixed(), core) for core in (BOTH, NANO))
    for op, layer in sharing(program, alone):
        passes = memmap.passes(BOTH, op)
        assert passes == -(-op.c_tiles // 2)
        assert shared_macs(BOTH, op, layer.macs) == layer.macs - layer.macs * passes // op.c_tiles
    assert estimate(program).cycles < estimate(alone).cycles


def test_three_columns_for_two_need_two_thirds_of_the_multiplications():
    alone = compile_graph(mixed(), dataclasses.replace(THIRDS, nibble_thirds=False))
    for op, layer in sharing(compile_graph(mixed(), THIRDS), alone):
        assert (op.c_tiles - 1) * 12 < access.shape(THIRDS, op)[1] <= op.c_tiles * 12
        assert shared_macs(THIRDS, op, layer.macs) == layer.macs - layer.macs * 2 // 3


def test_wider_tiles_are_full_behind_a_norm():
    """The first of C columns that are made early fill wider tiles: two of these."""
    graph = vision_transformer(seed=3, blocks=2, image=(1, 16, 16), hidden=40)
    graph.ops[:] = map(narrow, graph.ops)
    found = []
    for thirds, c_tiles in (True, [2, 2, 2, 2]), (False, [1, 1, 4]):
        arch = dataclasses.replace(
            THIRDS, nibble_thirds=thirds, max_rows=128, stat_rows=256, bank_words=4096)
        program = compile_graph(graph, arch)
        ops = list(program.instructions())
        layers = [layer for layer in program.layers if layer.name == "blocks.0.fc1"]
        assert [ops[layer.instruction].c_tiles for layer in layers] == c_tiles
        images = np.random.default_rng(5).normal(size=(1, *program.input.shape)).astype(np.float32)
        with InferenceSession(program, "golden") as golden:
            found.append(golden.run(None, {program.input.name: images})[0])
    np.testing.assert_array_equal(*found)


def test_experts_of_four_bits_are_ahead_in_thirds():
    """In half the room; the core that :func:`test_half_the_bytes` simulates."""
    program = compile_graph(mixed(), THIRDS)
    assert program.metadata["experts_ahead"] == 4
    for op in program.instructions():
        if op.opcode is Opcode.MATMUL and op.expert_rows:
            assert op.stationary == Stationary.STORED
            assert op.nibbles == (op.expert == 0)


def test_only_layers_that_fit():
    """Experts of four bits are not loaded ahead; a core without nibbles has bytes for all.

    The bus is as wide as a word: with a slower one no experts are loaded ahead.
    """
    program = compile_graph(mixed(), dataclasses.replace(NANO, bus_bytes=8))
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
