"""Rows that no result depends on: left out, and no integer of a result changes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.quant import graphs
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out
from vitrify.compiler.validate import check_program
from vitrify.ops.attention.integer import QAttention
from vitrify.ops.linear.integer import QLinear
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import QuantGraph
from vitrify.quant.tensors import Rows

NANO = preset("nano")
#: Of the last block of 17 rows: how many of them are made of its tensors.
MADE: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "class token": ({}, {"k": 17, "v": 17, "q": 1, "attention": 1, "proj": 1, "fc1": 1, "fc2": 1}),
    "mean": ({"pooled": True}, {"q": 17, "attention": 17, "proj": 17, "fc1": 17, "fc2": 17}),
    "features": ({"classes": 0}, {"q": 17, "attention": 17, "proj": 17, "fc1": 17, "fc2": 17}),
    "routed heads": (
        {"routed": Mixture(experts=2), "heads": 4},
        {"q": 17, "attention": 17, "proj": 1, "fc1": 1, "fc2": 1},
    ),
}


def images_of(graph: QuantGraph, count: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(count, *graph.input.shape)).astype(np.float32)


def made(graph: QuantGraph, name: str) -> int:
    """Rows that an op of the last block makes."""
    op = next(op for op in graph.ops if op.name == f"blocks.1.{name}")
    return len(op.written(1, graph.tensors[op.out].rows))


@pytest.mark.parametrize("case", MADE)
def test_only_rows_that_are_read_are_made(case: str) -> None:
    shape, wanted = MADE[case]
    graph = vision_transformer(**shape)
    fewer = leave_out(graph)
    assert {name: made(fewer, name) for name in wanted} == wanted
    # Each counts its own work.
    for op in graph.ops:
        if isinstance(op, (QLinear, QAttention)) and op.name in wanted:
            share = fewer.macs[op.name] / graph.macs[op.name]
            assert share == made(fewer, op.name) / graph.tensors[op.out].rows
    # The first block is needed for the keys of the last.
    assert all(op in fewer.ops for op in graph.ops if op.name.startswith("blocks.0."))


@pytest.mark.parametrize("case", MADE)
def test_results_are_the_same_integers(case: str) -> None:
    graph = vision_transformer(**MADE[case][0])
    images = images_of(graph, 3)
    fewer = Evaluator(leave_out(graph), NANO).outputs(images)
    for name, exact in Evaluator(graph, NANO).outputs(images).items():
        np.testing.assert_array_equal(fewer[name], exact)


@pytest.mark.parametrize("case", MADE)
def test_nothing_more_is_left_out_the_second_time(case: str) -> None:
    fewer = leave_out(vision_transformer(**MADE[case][0]))
    assert leave_out(fewer) == fewer


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("mapping", graphs.MAPPINGS)
def test_programs_of_every_mapping(mapping: str, batch: int) -> None:
    net = graphs.Net(1)
    graph = quantise(net.model(graphs.MAPPINGS[mapping](net)), net.images(8), arch=NANO)
    program = compile_graph(graph, NANO, batch=batch)
    assert program.macs == batch * sum(leave_out(graph).macs.values())
    check_program(program, graph, net.images(batch))


def test_rows_between_others() -> None:
    """A stream is added to in some rows; the others stay as they are."""
    graph = vision_transformer()
    head = next(op for op in graph.ops if op.name == "head")
    assert isinstance(head, QLinear)
    graph.ops[graph.ops.index(head)] = replace(head, rows=Rows((9, 6, 7)))
    graph.tensors["logits"] = replace(graph.tensors["logits"], rows=3)
    fewer = leave_out(graph)
    ops = {op.name: op for op in fewer.ops}
    added, read = ops["blocks.1.proj"], ops["head"]
    assert isinstance(added, QLinear)
    assert isinstance(read, QLinear)
    assert added.into == Rows.span(6, 4)
    # Into the tensor as it is, for that keeps the rows of the block before.
    assert read.rows == Rows((9, 6, 7))
    check_program(compile_graph(graph, NANO, batch=2), graph, images_of(graph, 2))
