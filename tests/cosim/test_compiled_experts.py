"""Compiled experts on the simulated core: every tensor, every kind of routing, bytes and tasks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_experts import CASES, NANO
from vitrify.arch.isa import Opcode
from vitrify.arch.modes import Stationary
from vitrify.compiler import compile_graph
from vitrify.quant.tensors import Rows
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow
#: Cases for the core that nano is, whatever the compiler thinks of its memories.
ON_NANO = [name for name, case in CASES.items() if case[0] is NANO]
#: C > K, E = K, and a number of experts that fills no group of logits.
TALL = dataclasses.replace(
    NANO, name="tall_experts", depth=4, width=8, lanes=4, bus_bytes=4, experts=7, bank_words=512,
)


def run(program, images, tasks=None, **options):
    """Outputs and statistics, every tensor compared."""
    feed = {program.input.name: images}
    if tasks is not None:
        feed["task"] = np.array(tasks)
    with InferenceSession(program, "rtl", check=True, **options) as session:
        outputs = session.run(None, feed)
        return outputs[0], session.statistics


def noise(program, count):
    return np.random.default_rng(5).normal(size=(count, *program.input.shape)).astype(np.float32)


@pytest.mark.parametrize("name", ON_NANO)
def test_nano(name):
    _, shape, batch, tasks = CASES[name]
    program = compile_graph(vision_transformer(seed=3, **shape), NANO, batch=batch)
    # Two jobs, so that nothing of the first may matter to the second.
    again = None if tasks is None else tasks + tasks[::-1]
    images = noise(program, 2 * batch)
    out, statistics = run(program, images, again, stall=0.2, seed=len(name))
    with InferenceSession(program, "golden") as golden:
        feed = {program.input.name: images} | ({} if again is None else {"task": np.array(again)})
        assert (golden.run(None, feed)[0] == out).all()
        exact = golden.statistics
    assert statistics.macs == exact.macs
    assert [c.dram_read_bytes for c in statistics.layers] == [
        c.dram_read_bytes for c in exact.layers
    ]
    assert sum(c.cycles for c in statistics.layers) <= statistics.cycles


@pytest.mark.parametrize("arch", [
    TALL, dataclasses.replace(TALL, name="tall_quads", width=16, tile_quads=True),
], ids=lambda arch: arch.name)
@pytest.mark.parametrize("batch", [1, 2])
def test_another_core(batch, arch):
    mixture = Mixture(experts=7, shared=12, choices=3, tasks=2)
    program = compile_graph(vision_transformer(mixture=mixture, blocks=4), arch, batch=batch)
    assert any(op.opcode is Opcode.MATMUL and op.stationary == Stationary.STORED
               for op in program.instructions())
    run(program, noise(program, 3), [1, 0, 1], stall=0.1, seed=batch)


@pytest.mark.parametrize("row", [1, 7, 14])
@pytest.mark.parametrize("width", [4, 16])
def test_a_head_of_another_row_waits_for_it(width, row):
    """Rows are counted from the first one that an instruction reads or writes."""
    arch = dataclasses.replace(NANO, name=f"width{width}", width=width, weight_fifo_words=128)
    graph = vision_transformer(seed=3, dim=8, heads=1, hidden=8, classes=4, image=(1, 4, 14))
    graph.ops.append(dataclasses.replace(graph.ops.pop(), rows=Rows.span(row, 1)))
    program = compile_graph(graph, arch)
    run(program, noise(program, 3))


def test_images_of_different_tasks_share_the_experts():
    """Two images as rows of one job: every expert that either needs is fetched once."""
    graph = vision_transformer(mixture=Mixture(tasks=2, choices=2), image=(1, 4, 8), blocks=4)
    alone, together = (compile_graph(graph, NANO, batch=batch) for batch in (1, 2))
    images, tasks = noise(alone, 2), [0, 1]
    (one, apart), (two, shared) = (run(p, images, tasks) for p in (alone, together))
    assert (one == two).all()
    experts = [
        sum(c.dram_read_bytes for c in found.layers if ".moe.fc" in c.name)
        for found in (apart, shared)
    ]
    assert experts[1] < 0.7 * experts[0]
    assert shared.dram_read_bytes < 0.7 * apart.dram_read_bytes
    assert shared.cycles < apart.cycles
