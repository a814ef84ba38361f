"""Experts ahead of time: no LOAD overtakes a reader, and every reader has the LOAD it wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_lowering import compare
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Instruction, Opcode, Region, Stationary, Stats
from vitrify.arch.presets import preset
from vitrify.codegen import portions, ranges
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.strategy import Ahead, PlacementStrategy
from vitrify.compiler import compile as compile_
from vitrify.compiler import compile_graph
from vitrify.ops.experts.integer import QExperts
from vitrify.program import Program

NANO = preset("nano")
#: A bus that brings a word a cycle.
QUICK = dataclasses.replace(NANO, bus_bytes=NANO.depth)
SHAPE = {"mixture": Mixture(experts=6), "blocks": 4}


def pairs(arch: ArchConfig, op: Instruction) -> int:
    """Pair words of a MATMUL's tiles."""
    return op.c_tiles * op.k_tiles * arch.tile_pairs(op.nibbles)


@pytest.mark.parametrize("slots", [1, 3, 7])
@pytest.mark.parametrize("words", [ranges.MOST_WORDS, 50])
def test_every_tile_has_its_load(
    slots: int, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MOST_WORDS", words)
    graph = vision_transformer(**SHAPE)
    program = compile_graph(graph, NANO, ways=[PlacementStrategy(ahead=Ahead(slots))])
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


def test_what_another_mixture_asks_for_comes_later() -> None:
    """Op by op, where all at once would take the bus from the layers in between."""
    program = compile_graph(
        vision_transformer(**SHAPE), NANO, ways=[PlacementStrategy(ahead=Ahead(3))])
    code = list(program.instructions())
    stored = {op.st_addr for op in code if op.opcode is Opcode.MATMUL
              and op.stationary == Stationary.STORED}
    loads = [i for i, op in enumerate(code) if op.opcode is Opcode.LOAD and op.addr in stored
             and op.rows == 1]
    experts = [i for i, op in enumerate(code) if op.opcode is Opcode.MATMUL and op.expert_rows]
    assert len(loads) == len(experts) // 2 == 12
    last, first = experts[11], experts[12]
    assert sum(i < last for i in loads) == 6
    between = [i for i in loads if last < i < first]
    assert len(between) == 3
    layers = [op.opcode is Opcode.MATMUL for op in code]
    assert all(any(layers[a:b]) for a, b in pairwise(between))


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


#: A head for the mean of 17 rows, of more weights than a slot has room for.
NARROW = {"blocks": 1, "classes": 200, "pooled": True}


def test_layers_of_few_rows_have_their_weights_ahead() -> None:
    program = compare(NANO, NARROW)
    # As many rooms as all of them take.
    assert program.metadata["bytes_ahead"] >= 3 * 4 * 200
    loads = end = first = 0
    brought: dict[int, tuple[int, int]] = {}
    for number, op in enumerate(program.instructions()):
        if op.opcode in (Opcode.LOAD, Opcode.LOAD_INDEX):
            if op.opcode is Opcode.LOAD and op.wide:
                brought |= {op.addr + word: (loads, number) for word in range(op.words)}
            loads += 1
        elif op.opcode is Opcode.MATMUL and op.stationary == Stationary.STORED:
            load, loaded = brought[op.st_addr]
            assert loads - op.load_distance >= load
            first = first or loaded
            end += op.c_tiles
    assert end == 200 // NANO.width
    # The first one came before the block was at work.
    after = [layer.name for layer in program.layers if layer.instruction > first]
    assert "blocks.0.k" in after
    assert [name for name in after if name == "head"] == ["head"] * 3


def test_layers_of_few_rows_in_a_job_of_several_images() -> None:
    """Each piece is multiplied with the row of one image and then of the other."""
    program = compare(NANO, NARROW, batch=2)
    assert [layer.name for layer in program.layers].count("head") == 2 * 3
    assert program.metadata["bytes_ahead"]


@pytest.mark.parametrize(("blocks", "banks", "words", "ahead", "pieces"), [
    (2, 4, 256, 4800, 8),
    # no room for more
    (2, 6, 128, 2736, 10),
    # one block is over before more could be there
    (1, 6, 256, 4864, 5),
    (0, 6, 256, None, 1),
])
def test_fewer_pieces_where_there_is_no_room_or_time(
    blocks: int, banks: int, words: int, ahead: int | None, pieces: int
) -> None:
    arch = dataclasses.replace(NANO, banks=banks, bank_words=words)
    program = compare(arch, {"blocks": blocks, "classes": 400, "pooled": True})
    assert program.metadata.get("bytes_ahead") == ahead
    assert [layer.name for layer in program.layers].count("head") == pieces


def test_rooms_hold_a_piece_that_comes_beside_one_that_is_multiplied(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rooms for one alone, each would wait for the end of the one before."""
    seen: list[tuple[int, int]] = []

    def looked_at(known: Lowering) -> Iterator[Ahead]:
        largest = max(one.words for one in portions.pieces(known))
        for way in portions.rooms_ahead(known):
            seen.append((way.slots * portions.room_words(known.arch), largest))
            yield way

    monkeypatch.setattr(compile_, "rooms_ahead", looked_at)
    # The head has one row, and a piece is a c tile at least, however deep.
    for banks, words in (6, 64), (6, 128), (4, 256):
        arch = dataclasses.replace(NANO, banks=banks, bank_words=words)
        compile_graph(vision_transformer(blocks=1, classes=400), arch)
    assert seen
    assert all(words >= 2 * largest for words, largest in seen)


#: Five rows of everything.
FEW = {"image": (1, 4, 4), "pooled": True, "classes": 60}


@pytest.mark.parametrize("rooms", [5, 8, 16])
@pytest.mark.parametrize("batch", [1, 2])
def test_sums_in_pieces(rooms: int, batch: int) -> None:
    """Statistics of their rows are gathered behind the last piece."""
    way = PlacementStrategy(ahead=Ahead(rooms, pieces=True))
    program = compare(NANO, FEW, batch=batch, ways=[way])
    found = {
        layer.name: op for layer, op in zip(program.layers, (
            op for op in program.instructions() if op.opcode is Opcode.MATMUL
        ), strict=True)
    }
    # The last MATMUL of each: it adds nothing.
    for name in "blocks.0.proj", "blocks.1.fc2":
        assert found[name].multiplier == 0
        assert found[name].stats == Stats.NORM
    # The mean's operand does not wait for the weights of the layer behind.
    loads = [op for op in program.instructions() if op.opcode is Opcode.LOAD]
    assert [op.wide for op in loads].index(1) > 0


def test_row_blocks_have_no_pieces() -> None:
    """Two layers whose rows pass in blocks take weights of the stream."""
    way = PlacementStrategy(row_blocks=2, score_blocks=2, ahead=Ahead(8, pieces=True))
    program = compare(NANO, FEW, ways=[way])
    stored = {
        layer.name for layer, op in zip(program.layers, (
            op for op in program.instructions() if op.opcode is Opcode.MATMUL
        ), strict=True) if op.stationary == Stationary.STORED
    }
    assert stored == {"head"}


def test_a_head_has_its_weights_ahead_beside_row_blocks() -> None:
    """Hidden layers that have no room as a whole leave some to the head's weights."""
    arch = dataclasses.replace(NANO, banks=4, max_rows=128, stat_rows=512)
    program = compare(arch, {"image": (1, 16, 16), "blocks": 2, "classes": 400})
    assert program.metadata["row_blocks"] == 2
    assert program.metadata["bytes_ahead"] == 1920


#: 65 rows, which wait longer than the bus takes for an instruction.
TURNING = {"image": (1, 16, 16), "blocks": 2, "classes": 3, "pooled": True}
ROOMY = dataclasses.replace(NANO, bank_words=1024, max_rows=128, stat_rows=512)


def added(program: Program) -> list[Instruction]:
    """MATMULs whose old values are not in the place of the result."""
    return [op for op in program.instructions() if op.opcode is Opcode.MATMUL and op.add_source]


def test_sums_in_turn() -> None:
    """Old values come from other banks than those that the next layer reads."""
    found = added(compare(ROOMY, TURNING))
    # Positions, and two sums a block.
    assert len(found) == 5
    for op in found:
        assert op.dst_addr // ROOMY.bank_words != op.add_addr // ROOMY.bank_words
    assert found[0].dst_addr == found[1].add_addr != found[1].dst_addr == found[0].add_addr


def test_sums_stay_in_place() -> None:
    """Without room for two of them, and where so few rows wait that it does not pay."""
    assert not added(compare(dataclasses.replace(ROOMY, bank_words=512), TURNING))
    few = {"image": (1, 6, 6)}
    assert not added(compare(ROOMY, few))
    assert added(compare(dataclasses.replace(ROOMY, bus_bytes=8), few))


def test_experts_that_are_hardly_asked_for_stay_in_dram() -> None:
    graph = vision_transformer(**SHAPE)
    for number, op in enumerate(graph.ops):
        if isinstance(op, QExperts):
            graph.ops[number] = dataclasses.replace(op, usage=(0.9, 0.4, 0.5, 0.1, 0.0, 0.0))
    program = compile_graph(graph, QUICK)
    found = [op for op in program.instructions() if op.opcode is Opcode.MATMUL and op.expert_rows]
    stored = {op.expert for op in found if op.stationary == Stationary.STORED}
    assert stored == {0, 2}
    assert len(found) == 2 * 2 * 6


def test_a_slow_bus_brings_experts_when_they_are_asked_for() -> None:
    graph = vision_transformer(**SHAPE)
    assert compile_graph(graph, QUICK).metadata["experts_ahead"] == 7
    assert "experts_ahead" not in compile_graph(graph, NANO).metadata


def test_layers_in_blocks_of_rows_have_weights_of_the_stream() -> None:
    """Tiles so large that the bus takes longer for them than several blocks of rows do."""
    arch = dataclasses.replace(NANO, width=32, depth=32, lanes=8, max_rows=16, bank_words=512)
    graph = vision_transformer(blocks=2, classes=200)
    way = PlacementStrategy(ahead=Ahead(20, pieces=True))
    program = compile_graph(graph, arch, ways=[way])
    found = [layer.name for layer in program.layers]
    assert found.count("blocks.0.fc1") == 2
    assert program.metadata["bytes_ahead"]
