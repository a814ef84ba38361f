"""Programs with a technique taken away: what is rewritten, and that nothing else is."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.ablation import TECHNIQUES, separate_gelu, three_pass_softmax, token_by_token, without
from tests.support.synthetic import Mixture, vision_transformer
from vitrify.arch.isa import Opcode, Stats
from vitrify.arch.presets import preset
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.runtime.routing import expert_bytes, routes, uniform

NANO = preset("nano")


@pytest.fixture(scope="module")
def program():
    """Experts from the stream: token by token there is nothing to load ahead."""
    graph = vision_transformer(mixture=Mixture(), blocks=4)
    return compile_graph(graph, NANO, ways=[PlacementStrategy()])


def matmuls(program):
    return [op for op in program.instructions() if op.opcode is Opcode.MATMUL]


def test_nothing_taken_away_changes_nothing(program):
    same = without(program, uniform(program), [])
    assert list(same.instructions()) == list(program.instructions())
    assert estimate(same).cycles == estimate(program).cycles


def test_every_token_loads_its_experts(program):
    routing = uniform(program)
    slow = without(program, routing, [token_by_token])
    loads = [op for op in matmuls(slow) if op.rows == 1 and op.stream_words]
    # Two layers of 17 tokens with two choices; the head has one row, too.
    assert len(loads) == 2 * 17 * 2 * 2 + 1
    once, often = estimate(program, routing=routing).cost, estimate(slow, routing=routing).cost
    weights = expert_bytes(routing, routes(program))
    many = sum(
        size * count
        for layer, counts in zip(routes(program), routing.counts, strict=True)
        for size, count in zip(layer.stream_bytes, counts, strict=True)
    )
    code = 64 * (slow.instruction_count - program.instruction_count)
    assert often.dram_read_bytes - once.dram_read_bytes == many - weights + code
    assert often.cycles > 1.5 * once.cycles


def test_passes_follow_what_they_read(program):
    scores = [op for op in matmuls(program) if op.stats == Stats.MAX]
    extra = matmuls(without(program, uniform(program), [three_pass_softmax]))
    assert len(extra) == len(matmuls(program)) + 2 * len(scores)
    for before, after in pairwise(extra):
        if after.src_addr == after.dst_addr:
            assert after.src_addr == before.dst_addr
            assert after.dep_distance == 1
    # Readers of the scores wait for the pass before them, two MATMULs later than they did.
    values = [op for op in extra if op.row_scale]
    first = next(op for op in matmuls(program) if op.row_scale)
    assert values[0].dep_distance == first.dep_distance + 2


def test_hidden_layers_pass_once_more(program):
    hidden = [op for op in matmuls(program) if op.activation]
    changed = without(program, uniform(program), [separate_gelu])
    assert len(matmuls(changed)) == len(matmuls(program)) + len(hidden)
    assert estimate(changed).cycles > estimate(program).cycles


def test_all_at_once_is_slower_than_each(program):
    routing = uniform(program)
    rewrites = list(TECHNIQUES.values())
    alone = [
        estimate(without(program, routing, [rewrite]), routing=routing).cycles
        for rewrite in rewrites
    ]
    together = estimate(without(program, routing, rewrites), routing=routing).cycles
    assert together > max(alone)
