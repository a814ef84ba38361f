"""Lowered programs on the golden machine equal the evaluated graph, tensor by tensor.

The kernels are shared, so a difference is a bug of placement, packing or emission.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.support.execute import tensors
from tests.support.synthetic import vision_transformer
from tests.unit.quant import graphs
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode, Stationary
from vitrify.arch.presets import preset
from vitrify.codegen.placement import Spread
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.sequence import schedule
from vitrify.compiler.unread import leave_out
from vitrify.compiler.validate import check_program
from vitrify.program import Program
from vitrify.quant.evaluate import Evaluator

NANO = preset("nano")
#: Tensors whose heads begin at words.
SPREAD = ("q", "k", "v", "attention")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "class token": ("nano", {}),
    "pooled": ("nano", {"pooled": True, "prefix": 0}),
    "head channels are no whole word": ("nano", {"dim": 24, "heads": 2, "hidden": 40}),
    "one head": ("nano", {"heads": 1, "blocks": 1}),
    "three heads, colour": ("nano", {"image": (3, 8, 8), "dim": 24, "heads": 3, "classes": 3}),
    "more tokens than accumulator rows": ("nano", {"image": (1, 12, 12), "blocks": 1}),
    "wide tiles": ("kv260", {"image": (3, 32, 32), "patch": 4, "dim": 96, "heads": 3,
                             "hidden": 384, "blocks": 1}),
    "narrow tiles": ("ulx3s", {"dim": 40, "heads": 5, "hidden": 72}),
}


#: Token memories that hold neither image, hidden layer nor scores whole: words of a bank,
#: hidden channels, blocks.
TIGHT = {
    "loader shares banks": (64, 128, 1), "blocks of rows": (32, 128, 2), "more": (32, 512, 6),
}


@pytest.mark.parametrize("case", TIGHT)
def test_small_memories(case: str) -> None:
    words, hidden, blocks = TIGHT[case]
    shape = {"image": (3, 8, 8), "blocks": 1, "hidden": hidden, "pooled": True}
    arch = dataclasses.replace(NANO, banks=10, bank_words=words)
    program = compare(arch, shape)
    assert program.metadata.get("row_blocks", 1) == blocks
    whole = compile_graph(vision_transformer(seed=3, **shape), NANO)
    assert program.macs == whole.macs


@pytest.mark.parametrize(("bus", "times"), [(4, 1), (8, 2)])
def test_an_image_is_whole_where_a_slow_bus_would_bring_weights_again(bus: int, times: int) -> None:
    """Hidden layers have room for blocks of rows, the image as a whole."""
    shape = {"image": (3, 8, 8), "blocks": 1, "hidden": 256, "pooled": True}
    arch = dataclasses.replace(NANO, banks=10, bank_words=64, bus_bytes=bus)
    program = compare(arch, shape)
    assert program.metadata["row_blocks"] == 2
    names = [layer.name for layer in program.layers]
    assert names.count("embed") == times
    assert names.count("blocks.0.fc1") == 2


@pytest.mark.parametrize("case", CASES)
def test_machine_equals_evaluator(case: str) -> None:
    name, shape = CASES[case]
    compare(preset(name), shape)


@pytest.mark.parametrize("case", ["class token", "pooled"])
def test_images_that_share_a_job(case: str) -> None:
    name, shape = CASES[case]
    compare(preset(name), shape, batch=2)


def compare(
    arch: ArchConfig, shape: dict[str, Any], batch: int = 1, tasks: Any = None, **options: Any
) -> Program:
    """Compile, run on the golden machine, compare every tensor with the evaluator's."""
    graph = leave_out(vision_transformer(seed=3, **shape))
    program = compile_graph(graph, arch, batch=batch, **options)
    image = np.random.default_rng(5).normal(size=(batch, *graph.input.shape)).astype(np.float32)
    numbers = None if tasks is None else np.array(tasks)
    expected = Evaluator(graph, arch).run(
        image, tasks=None if numbers is None else {"task": numbers}
    )
    written, outputs = tensors(program, image, None if numbers is None else numbers[:, None])
    assert set(written) >= {op.name for op in graph.ops}
    for op in graph.ops:
        made = op.written(*expected[op.name].shape[:2])
        value = expected[op.name].reshape(-1, expected[op.name].shape[2])[made]
        heads = shape.get("heads", 2) if op.name.split(".")[-1] in SPREAD else 1
        where = Spread(value.shape[1], heads, arch.depth).scatter(np.arange(1, value.shape[1] + 1))
        assert (written[op.name][np.ix_(made, np.flatnonzero(where))] == value).all(), op.name
    logits = graph.tensors["logits"].dequantise(expected["head"])[:, 0]
    assert (outputs[0] == logits.astype(np.float32)).all()
    return program


def test_queries_come_last() -> None:
    graph = vision_transformer()
    names = [op.name for op in schedule(graph.ops)]
    at = names.index("blocks.0.attention")
    assert names[at - 3 : at] == ["blocks.0.k", "blocks.0.v", "blocks.0.q"]
    assert sorted(names) == sorted(op.name for op in graph.ops)


@pytest.mark.parametrize("mapping", ["parallel", "two_attentions", "in_place", "skip"])
def test_readers_stay_in_front_of_what_overwrites(mapping: str) -> None:
    net = graphs.Net(1)
    graph = quantise(net.model(graphs.MAPPINGS[mapping](net)), net.images(8), arch=NANO)
    images = net.images(1)
    program = compile_graph(graph, NANO)
    _, (got,) = tensors(program, images)
    (expected,) = Evaluator(graph, NANO).outputs(images).values()
    assert (got == expected.reshape(got.shape).astype(np.float32)).all()


def test_streams_and_tiles_are_read_from_different_banks() -> None:
    program = compile_graph(vision_transformer(), NANO)
    reads = [
        (op.src_addr // NANO.bank_words, op.st_addr // NANO.bank_words)
        for op in program.instructions()
        if op.opcode is Opcode.MATMUL and op.stationary in (Stationary.ROWS, Stationary.COLUMNS)
        # What gathers statistics only adds zeros.
        and op.multiplier
    ]
    assert reads
    streamed, stationary = (set(banks) for banks in zip(*reads, strict=True))
    assert streamed.isdisjoint(stationary)


def test_gains_and_tables_are_sent_once() -> None:
    program = compile_graph(vision_transformer(blocks=1), NANO)
    matmuls = [op for op in program.instructions() if op.opcode is Opcode.MATMUL]
    # q, k and v share one LayerNorm; fc1 and the head have their own.
    assert sum(op.load_gain for op in matmuls) == 3
    assert sum(op.load_table for op in matmuls) == 1


def test_rows_follow_those_of_their_producer_one_by_one() -> None:
    """Nobody waits for the whole of what begins with the row that is read first."""
    program = compile_graph(vision_transformer(blocks=1), NANO)
    followers = [
        op for op in program.instructions() if op.opcode is Opcode.MATMUL and op.dep_distance
    ]
    assert followers
    assert not any(op.dep_end for op in followers)
    assert any(op.dep_k for op in followers)


def test_the_first_tile_takes_early_rows_first() -> None:
    """Where rows leave a layer more slowly than the next reads them, only half are early."""
    arch = dataclasses.replace(NANO, bus_bytes=NANO.depth)
    program = compare(arch, {"hidden": 40})
    found = [
        (op.rows, op.c_tiles, op.stream_words > 0) for layer, op in zip(
            program.layers,
            (op for op in program.instructions() if op.opcode is Opcode.MATMUL), strict=True,
        ) if layer.name == "blocks.0.fc1"
    ]
    assert found == [(9, 2, True), (8, 2, True), (17, 8, True)]
    assert program.macs == compile_graph(vision_transformer(
        seed=3, hidden=40
    ), dataclasses.replace(arch, lanes=arch.width)).macs


def test_rows_of_the_first_images_wait_for_no_others() -> None:
    program = compare(dataclasses.replace(NANO, banks=10), {"blocks": 1}, 2)
    begins = [op for op in program.instructions() if op.opcode is not Opcode.PATTERN][:6]
    image = [Opcode.LOAD, Opcode.LOAD, Opcode.MATMUL]
    assert [op.opcode for op in begins] == image * 2
    assert all(op.rows == 17 for op in begins)
    assert not any(op.wait_distance for op in begins if op.opcode is Opcode.LOAD)


def test_macs_are_exact() -> None:
    graph = vision_transformer()
    program = compile_graph(graph, NANO)
    assert program.macs == sum(leave_out(graph).macs.values())


@pytest.mark.parametrize(("change", "message"), [
    ({"banks": 2, "bank_words": 32}, "needs .* bytes of token memory"),
    ({"stat_rows": 16}, "row statistics and arch 'nano' has 16"),
])
def test_too_big(change: dict[str, int], message: str) -> None:
    with pytest.raises(CapacityError, match=message):
        compile_graph(vision_transformer(), dataclasses.replace(NANO, **change), batch=2)


def test_a_row_more_than_statistics_have_room_for() -> None:
    """One image passes in bands."""
    graph = vision_transformer()
    program = compile_graph(graph, dataclasses.replace(NANO, stat_rows=16))
    check_program(program, graph, np.random.default_rng(0).normal(size=(
        1, *graph.input.shape)).astype(np.float32))  # fmt: skip


def test_too_deep() -> None:
    with pytest.raises(CapacityError, match=r"'blocks.0.fc2' sums over 4104 products"):
        compile_graph(vision_transformer(hidden=4104, blocks=1), preset("reference"))
