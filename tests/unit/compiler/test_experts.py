"""Experts through the compiler: every tensor on the golden machine equals the evaluated graph."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_lowering import compare
from tests.unit.quant.mixtures import MixedNet
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode
from vitrify.arch.presets import preset
from vitrify.codegen.memory import TensorMemory
from vitrify.codegen.portions import bus_is_ahead
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.validate import check_program
from vitrify.estimate import estimate
from vitrify.ops.attention import routed
from vitrify.ops.experts.integer import QExperts
from vitrify.program import Program
from vitrify.runtime.backend import as_jobs
from vitrify.runtime.routing import replay, routes

NANO = preset("nano")
REFERENCE = preset("reference")
#: Room for queues with gaps.
ROOMY = dataclasses.replace(NANO, name="roomy", index_entries=512, stat_rows=512)
MANY = dataclasses.replace(NANO, name="many", experts=64, banks=10)
#: Preset, shape, images of a job, tasks.
CASES: dict[str, tuple[Any, dict[str, Any], int, list[int] | None]] = {
    "two of eight": (NANO, {"mixture": Mixture()}, 1, None),
    "weights sum to one": (NANO, {"mixture": Mixture(normalise=True, choices=3)}, 1, None),
    "one choice": (NANO, {"mixture": Mixture(choices=1)}, 1, None),
    "task 2": (NANO, {"mixture": Mixture(tasks=3)}, 1, [2]),
    "shared layer": (NANO, {"mixture": Mixture(shared=40)}, 1, None),
    "two mixtures": (NANO, {"mixture": Mixture(), "blocks": 4}, 1, None),
    "all to the first": (NANO, {"mixture": Mixture(bias=(9000, 0), choices=1)}, 1, None),
    "all to the last": (NANO, {"mixture": Mixture(bias=(*[0] * 7, 9000), choices=1)}, 1, None),
    "one row each": (
        NANO, {"mixture": Mixture(apart=True, choices=1), "image": (1, 4, 8), "prefix": 0,
               "pooled": True}, 1, None,
    ),
    "ties": (NANO, {"mixture": Mixture(spread=0.0)}, 1, None),
    "saturated": (NANO, {"mixture": Mixture(spread=60_000.0)}, 1, None),
    "nobody wants some": (NANO, {"mixture": Mixture(bias=(-9000, 0, 0, -9000, 0, 0, 0, -9000))},
                          1, None),
    "64 experts, more than rows": (MANY, {"mixture": Mixture(experts=64)}, 1, None),
    "one token": (
        NANO, {"mixture": Mixture(), "image": (1, 2, 2), "prefix": 0, "pooled": True}, 1, None,
    ),
    "queues in blocks": (
        dataclasses.replace(NANO, max_rows=16), {"mixture": Mixture(bias=(9000, 9000, 0))}, 1, None,
    ),
    "two images, two tasks": (NANO, {"mixture": Mixture(tasks=3)}, 2, [2, 1]),
    "two images": (NANO, {"mixture": Mixture(), "image": (1, 4, 8)}, 2, None),
    "part by part": (ROOMY, {"mixture": Mixture(), "blocks": 4}, 2, None),
    "part by part, three tasks": (
        dataclasses.replace(ROOMY, max_rows=64), {"mixture": Mixture(tasks=3, choices=3)}, 3,
        [2, 0, 1],
    ),
    "reference": (REFERENCE, {"mixture": Mixture(experts=16, tasks=2, hidden=96, shared=32),
                              "dim": 64, "hidden": 128, "image": (3, 32, 32), "patch": 4},
                  4, [0, 1, 1, 0]),
}


@pytest.mark.parametrize("case", CASES)
def test_machine_equals_evaluator(case: str) -> None:
    arch, shape, batch, tasks = CASES[case]
    compare(arch, shape, batch, tasks)


def matmuls(program: Program) -> list[Any]:
    return [op for op in program.instructions() if op.opcode is Opcode.MATMUL]


def test_any_expert_may_be_missing() -> None:
    """Nothing relies on gains or tables that came with a MATMUL that may be left out."""
    program = compile_graph(vision_transformer(mixture=Mixture(), blocks=4), NANO)
    gains: dict[int, bool] = {}
    tables: dict[int, bool] = {}
    for op in matmuls(program):
        if op.load_gain:
            gains[op.gain_slot] = not op.expert_rows
        if op.load_table:
            tables[op.table_slot] = not op.expert_rows
        if op.transform == 1:
            assert gains[op.gain_slot] or op.load_gain
        if op.activation:
            assert tables[op.table_slot] or op.load_table


def test_experts_share_their_multiplications() -> None:
    program = compile_graph(vision_transformer(mixture=Mixture(), blocks=2), NANO)
    assert sum(layer.macs for layer in program.layers) == program.macs
    each = [layer.macs for layer, op in zip(program.layers, matmuls(program), strict=True)
            if op.expert_rows]
    assert min(each) > 0


def test_the_router_is_at_work_beside_the_array() -> None:
    """An image goes to it while the next is attended to, and half of the last one is waited for."""
    graph = vision_transformer(mixture=Mixture())
    program = compile_graph(graph, ROOMY, batch=3)
    code = list(program.instructions())
    routed = [i for i, op in enumerate(code) if op.opcode is Opcode.ROUTE]
    assert [(code[i].rows, code[i].room, code[i].joins) for i in routed] == [
        (17, 34, 0), (17, 0, 1), (9, 0, 1), (8, 0, 1)
    ]
    between = [
        {layer.name.removeprefix("blocks.1.").partition("[")[0] for layer in program.layers
         if start < layer.instruction < end}
        for start, end in pairwise(routed)
    ]
    layers = {"proj", "moe.gate"}
    assert between == [*2 * [layers | {"attention.scores", "attention.values"}], layers]
    assert [(route.rows, route.choices) for route in routes(program)] == [(51, 2)]
    assert routing_sums(program) == {102}


def test_the_first_part_is_larger_where_queues_have_less_room() -> None:
    arch = dataclasses.replace(ROOMY, index_entries=256)
    program = compile_graph(vision_transformer(mixture=Mixture()), arch, batch=3)
    found = [op for op in program.instructions() if op.opcode is Opcode.ROUTE]
    assert [(op.rows, op.room) for op in found] == [(34, 17), (9, 0), (8, 0)]


@pytest.mark.parametrize(("change", "batch"), [
    ({"bus_bytes": 1}, 1), ({"index_entries": 128}, 2), ({"width": 16, "lanes": 8}, 2),
])
def test_one_route_where_parts_gain_nothing(change: dict[str, int], batch: int) -> None:
    """Of one image that waits for weights, without room for gaps, with tiles that are late for half
    an image.
    """
    arch = dataclasses.replace(ROOMY, **change)
    program = compile_graph(vision_transformer(mixture=Mixture()), arch, batch=batch)
    found = [op for op in program.instructions() if op.opcode is Opcode.ROUTE]
    assert [(op.rows, op.room, op.joins) for op in found] == [(17 * batch, 0, 0)]


def test_an_image_alone_is_routed_in_halves_where_weights_are_early(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = vision_transformer(mixture=Mixture(), image=(1, 20, 20), blocks=4)
    arch = dataclasses.replace(
        REFERENCE, depth=16, width=16, lanes=16, index_entries=2048, experts=8)
    cycles = []
    for early, parts in (True, [51, 50]), (False, [101]):
        monkeypatch.setattr(routed, "bus_is_ahead", lambda _, early=early: early)
        program = compile_graph(graph, arch)
        found = [op.rows for op in program.instructions() if op.opcode is Opcode.ROUTE]
        assert found == 2 * parts
        cycles.append(estimate(program).cycles)
    assert cycles[0] < cycles[1]


def test_weights_of_four_bits_are_early() -> None:
    """On a bus that is late for bytes of likely experts; others do not count."""
    for bits, bias, ahead in (8, 0, False), (4, 0, True), (8, -9000, True):
        mixture = Mixture(bits=bits, hidden=96, bias=(0, 0, bias))
        graph = vision_transformer(mixture=mixture, blocks=4)
        memory = TensorMemory(graph, ROOMY, PlacementStrategy(), 1)
        assert bus_is_ahead(memory) == ahead, (bits, bias)


def routing_sums(program: Program) -> set[int]:
    """Choices of every mixture in a routing of noise."""
    pictures = np.random.default_rng(5).normal(size=(program.batch, *program.input.shape))
    routing, = replay(program, *as_jobs(program, pictures.astype(np.float32), {})[:2])
    return {sum(counts) for counts in routing.counts}


def test_readers_wait_for_rows_in_any_order() -> None:
    program = compile_graph(vision_transformer(mixture=Mixture(), blocks=3), NANO)
    found = matmuls(program)
    last = max(i for i, op in enumerate(found) if op.expert_rows)
    readers = [(i, op) for i, op in enumerate(found) if i > last and op.dep_end]
    assert [(i - op.dep_distance) for i, op in readers] == [last] * 3


def test_a_queue_is_one_block_as_long_as_the_core_allows() -> None:
    """A block more would load all weights once more, for few rows."""
    shape = {"mixture": Mixture(), "blocks": 2, "prefix": 1}
    program = compile_graph(vision_transformer(**shape), dataclasses.replace(NANO, max_rows=16))
    found = [(op.expert, op.expert_first, op.rows) for op in matmuls(program) if op.expert_rows]
    assert found[:4] == [(0, 0, 16), (0, 0, 16), (0, 16, 1), (0, 16, 1)]


def test_memory_and_statistics_are_used_again() -> None:
    shape = {"mixture": Mixture(experts=2), "image": (1, 6, 6)}
    # Both have as many experts as are loaded ahead, or more.
    few, more = (
        compile_graph(vision_transformer(blocks=blocks, **shape), NANO) for blocks in (16, 24)
    )
    keys = ("token_memory_bytes",)
    assert [few.metadata[key] for key in keys] == [more.metadata[key] for key in keys]


@pytest.mark.parametrize(("change", "message"), [
    ({"experts": 0}, "has 8 experts and arch 'nano' has no router: choose an arch with `experts`"),
    ({"experts": 7}, "has 8 experts and arch 'nano' routes to 7: choose an arch"),
    ({"index_entries": 16}, "needs 34 row-index entries .* raise index_entries"),
])
def test_too_small(change: dict[str, int], message: str) -> None:
    graph = vision_transformer(mixture=Mixture())
    with pytest.raises(CapacityError, match=message):
        compile_graph(graph, dataclasses.replace(NANO, **change))


def test_too_many_images_with_tasks() -> None:
    graph = vision_transformer(mixture=Mixture(tasks=2))
    graph.tasks["other"] = 2
    with pytest.raises(CapacityError, match="more than the 4 task numbers of a job"):
        compile_graph(graph, NANO, batch=3)


def test_columns_of_an_expert_that_read_less_than_others() -> None:
    """They are another MATMUL, whose old values begin at its first column."""
    net = MixedNet(1)
    images = net.images(24)
    x = net.block(net.tokens(), "block")
    x = net.add(x, net.experts(net.norm(x, "norm"), "experts"), "sum")
    graph = quantise(net.model(net.head(net.select(x))), images, arch=NANO)
    place = next(i for i, op in enumerate(graph.ops) if isinstance(op, QExperts))
    op = graph.ops[place]
    assert isinstance(op, QExperts)
    first, second = op.experts[1]
    weight = second.weight.copy()
    weight[NANO.depth :, NANO.depth :] = 0
    pair = first, dataclasses.replace(second, weight=weight)
    graph.ops[place] = dataclasses.replace(op, experts=(op.experts[0], pair, *op.experts[2:]))
    program = compile_graph(graph, NANO)
    products = [one for one in program.instructions() if one.opcode == Opcode.MATMUL]
    added = [one for one in products if one.dst_list and one.expert == 1]
    assert [one.dst_addr - added[0].dst_addr for one in added] == [0, 1]
    assert [one.add_addr - added[0].add_addr for one in added] == [0, 1]
    check_program(program, graph, images[:4])
