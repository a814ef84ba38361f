"""Experts ahead of time: no LOAD overtakes a reader, and every reader has the LOAD it wants."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_lowering import compare
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Instruction, Opcode, Region, Stationary
from vitrify.arch.presets import preset
from vitrify.codegen import ranges
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.ops.experts.integer import QExperts

NANO = preset("nano")
SHAPE = {"mixture": Mixture(experts=6), "blocks": 4}


def pairs(arch: ArchConfig, op: Instruction) -> int:
    """Pair words of a MATMUL's tiles."""
    return op.c_tiles * op.k_tiles * arch.tile_pairs


@pytest.mark.parametrize("slots", [1, 3, 7])
@pytest.mark.parametrize("words", [ranges.MOST_WORDS, 50])
def test_every_tile_has_its_load(
    slots: int, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MOST_WORDS", words)
    graph = vision_transformer(**SHAPE)
    program = compile_graph(graph, NANO, ways=[PlacementStrategy(preloads=slots)])
    assert program.metadata["experts_ahead"] == slots
    # Of every pair word: the LOAD that brought it, and the last MATMUL that reads it.
    brought = np.full(2 * NANO.banks * NANO.bank_words, -1)
    reader = np.full(len(brought), -1)
    loads = matmuls = stored = several = 0
    for op in program.instructions():
        if op.opcode in (Opcode.LOAD, Opcode.LOAD_INDEX):
            if op.opcode is Opcode.LOAD and op.region == Region.PROGRAM and op.wide:
                place = slice(op.addr, op.addr + op.words)
                waits = matmuls - op.wait_distance if op.wait_distance else -1
                assert waits >= reader[place].max()
                brought[place] = loads
            loads += 1
        elif op.opcode is Opcode.MATMUL:
            if op.stationary == Stationary.STORED:
                place = slice(op.st_addr, op.st_addr + pairs(NANO, op))
                assert brought[place].min() >= 0
                assert op.load_distance
                assert loads - op.load_distance >= brought[place].max()
                several += len(set(brought[place])) > 1
                reader[place] = matmuls
                stored += 1
            matmuls += 1
    assert stored == 2 * 2 * 6
    assert (several > 0) == (words == 50)


def test_several_loads_an_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MOST_WORDS", 50)
    compare(NANO, SHAPE)


def test_no_room_ahead() -> None:
    """A memory for the network alone; what is refused is a tensor of the model."""
    arch = dataclasses.replace(NANO, banks=4, bank_words=128)
    program = compile_graph(vision_transformer(**SHAPE), arch)
    assert "experts_ahead" not in program.metadata
    for words, tensor in (16, "residual"), (32, "blocks.0.k"):
        with pytest.raises(CapacityError, match=f"tensor '{tensor}' needs"):
            compile_graph(vision_transformer(**SHAPE), dataclasses.replace(arch, bank_words=words))


def test_experts_that_are_hardly_asked_for_stay_in_dram() -> None:
    graph = vision_transformer(**SHAPE)
    for number, op in enumerate(graph.ops):
        if isinstance(op, QExperts):
            graph.ops[number] = dataclasses.replace(op, usage=(0.9, 0.4, 0.5, 0.1, 0.0, 0.0))
    program = compile_graph(graph, NANO)
    found = [op for op in program.instructions() if op.opcode is Opcode.MATMUL and op.expert_rows]
    stored = {op.expert for op in found if op.stationary == Stationary.STORED}
    assert stored == {0, 2}
    assert len(found) == 2 * 2 * 6
