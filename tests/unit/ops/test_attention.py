"""Attention whose queries and keys are different tensors, or see their own run of rows only."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.ir import shape_of

#: Heads, groups of rows, queries, channels of the queries, channels of the values.
CASES = {
    "fewer queries": (2, 1, 3, 16, 16), "more queries": (2, 1, 40, 16, 16),
    "one query": (4, 1, 1, 16, 16), "wider values": (2, 1, 4, 16, 40),
    "narrower values": (3, 1, 4, 24, 9), "windows": (2, 2, 4, 16, 16),
    "windows of another size": (1, 4, 8, 16, 8), "one head in one window": (1, 1, 4, 16, 16),
}


def crossed(
    net: Net, heads: int, groups: int, queries: int, dim: int, width: int, bias=None,
    kind: str = "softmax",
):
    x = net.norm(net.block(net.tokens(0), "block"), "norm")
    count = int(shape_of(x)[1])
    y = net.builder.emit(
        "Mix", x, net.normal(1, queries, count) / 2, net.normal(queries), name="mix", heads=1,
        groups=1,
    )
    q, k, v = (
        net.linear(a, size, name)
        for a, size, name in ((y, dim, "q"), (x, dim, "k"), (x, width, "v"))
    )
    result = net.builder.emit(
        "CrossAttention", q, k, v,
        np.zeros((1, 1, 1, 1), np.float32) if bias is None else bias,
        name="attention", heads=heads, groups=groups, scale=(dim // heads) ** -0.5, kind=kind,
    )
    return net.linear(result, 5, "last")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(case, batch):
    net = Net(3)
    check(net, crossed(net, *CASES[case]), batch=batch)


def test_a_bias_that_softmax_does_not_see():
    net = Net(3)
    check(net, crossed(net, 2, 1, 4, DIM, DIM, net.normal(1, 2, 4, 1)))


#: Heads and row groups of the attention, and of the bias; queries of the attention and of the bias.
BIASES = {
    "for each head": (2, 1, (1, 2), 4, 4), "for all heads": (2, 1, (1, 1), 4, 4),
    "for each window": (2, 2, (2, 1), 8, 4), "for each window and head": (2, 2, (2, 2), 8, 4),
    "of keys": (2, 1, (1, 2), 4, 1), "of many heads": (8, 1, (1, 8), 40, 40),
}


@pytest.mark.parametrize("case", BIASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_bias(case, batch):
    heads, groups, own, queries, rows = BIASES[case]
    net = Net(3)
    bias = 2 * net.normal(*own, rows, 4 // groups)
    bias[..., -1, 0] = -np.inf
    check(net, crossed(net, heads, groups, queries, DIM, DIM, bias), batch=batch)


def test_equal_tables_are_loaded_once():
    net = Net(3)
    bias = np.repeat(net.normal(1, 1, 2, 2), 2, axis=0).repeat(2, axis=1)
    graph = quantise(net.model(crossed(net, 2, 2, 4, DIM, DIM, bias)), net.images(4), arch=NANO)
    other = Net(3)
    plain = quantise(
        other.model(crossed(other, 2, 2, 4, DIM, DIM)), other.images(4), arch=NANO
    )
    loads = [
        sum(op.opcode is Opcode.LOAD for op in compile_graph(each, NANO).instructions())
        for each in (graph, plain)
    ]
    assert loads[0] == loads[1] + 1


def test_tables_come_while_the_queries_are_made_and_lie_far_from_them():
    net = Net(3)
    bias = net.normal(2, 2, 4, 2)
    program = check(net, crossed(net, 2, 2, 8, DIM, DIM, bias))
    codes = list(program.instructions())
    names = {layer.instruction: layer.name for layer in program.layers}
    queries = next(number for number, name in names.items() if name == "q")
    scores = [codes[number] for number, name in names.items() if name.startswith("attention.s")]
    assert len(scores) == 4
    pair = 2 * program.arch.bank_words
    assert {op.add_addr // pair for op in scores}.isdisjoint(op.src_addr // pair for op in scores)
    for op in scores:
        loads = [n for n, other in enumerate(codes) if other.opcode is Opcode.LOAD
                 and 0 <= op.add_addr - other.addr < other.rows * other.stride]
        assert loads
        assert max(loads) < queries


def test_a_core_without_addends_refuses_a_bias():
    net = Net(3)
    model = net.model(crossed(net, 2, 1, 4, DIM, DIM, net.normal(1, 2, 4, 4)))
    arch = replace(NANO, addends=False)
    with pytest.raises(CapacityError, match=r"'attention' adds a bias .* without 'addends'"):
        compile_graph(quantise(model, net.images(4), arch=arch), arch)


#: Heads, row groups, queries.
POSITIONED = {"one head": (1, 1, 4), "heads": (2, 1, 40), "windows": (2, 2, 8)}


def positioned(net: Net, heads: int, groups: int, queries: int):
    """Every query has two numbers for each key: by its line and by its column in a map."""
    x = net.norm(net.block(net.tokens(0), "block"), "norm")
    count = int(shape_of(x)[1])
    y = net.builder.emit(
        "Mix", x, net.normal(1, queries, count) / 2, net.normal(queries), name="mix", heads=1,
        groups=1,
    )
    keys = np.arange(count // groups)
    lines, columns = keys // 2, keys % 2
    q, k, v = (net.linear(a, DIM, name) for a, name in ((y, "q"), (x, "k"), (x, "v")))
    by_line, by_column = (
        net.linear(y, heads * (int(index.max()) + 1), name)
        for index, name in ((lines, "lines"), (columns, "columns"))
    )
    made = net.builder.emit(
        "RelativeAttention", q, k, v, by_line, by_column, name="attention", heads=heads,
        groups=groups, scale=(DIM // heads) ** -0.5, x_keys=lines.tolist(),
        y_keys=columns.tolist(),
    )
    return net.linear(made, 5, "last")


@pytest.mark.parametrize("case", POSITIONED)
@pytest.mark.parametrize("batch", [1, 2])
def test_positions_that_depend_on_the_query(case, batch):
    net = Net(3)
    program = check(net, positioned(net, *POSITIONED[case]), batch=batch)
    names = [layer.name for layer in program.layers]
    assert any(name.startswith("attention.positions1") for name in names)


def test_positions_of_queries_that_nothing_reads_are_not_made():
    net = Net(3)
    program = check(net, net.select(positioned(net, *POSITIONED["heads"]), index=7))
    rows = {layer.name: layer.tensor.rows for layer in program.layers}
    assert [rows[name] for name in ("q", "lines", "columns", "k")] == [1, 1, 1, 4]


def test_a_core_without_addends_refuses_positions():
    net = Net(3)
    model = net.model(positioned(net, *POSITIONED["heads"]))
    arch = replace(NANO, addends=False)
    with pytest.raises(CapacityError, match=r"'attention' adds positions .* without 'addends'"):
        compile_graph(quantise(model, net.images(4), arch=arch), arch)


def test_scores_have_row_statistics_while_the_attention_lasts():
    net = Net(3)
    x = net.tokens(1)
    y = net.linear(net.attention(net.norm(x, "first"), "attention"), DIM, "y")
    outputs = [
        net.linear(net.norm(of, name), 5, f"of_{name}")
        for of, name in ((y, "second"), (x, "third"))
    ]
    # 5 of each stream, and 5 of each of two buffers of scores
    program = check(net, *outputs, arch=replace(NANO, name="few", stat_rows=16))
    assert any("scores[1]" in layer.name for layer in program.layers)


def test_who_reads_the_result_decides_the_format_of_the_values():
    net = Net(4)
    x = net.norm(net.tokens(0), "norm")
    y = net.attention(x, "attention")
    count = int(shape_of(y)[1])
    y = net.builder.emit(
        "Mix", y, net.normal(2, count, count) / 2, net.normal(count), name="mix", heads=2, groups=1
    )
    check(net, net.linear(y, 5, "last"))


#: Kinds of weights, row groups, queries, shape of the bias of a group.
FUNCTIONS = {
    "sigmoid": ("sigmoid", 1, 4, None), "softplus": ("softplus", 1, 3, None),
    "windows": ("relu", 2, 4, None), "many queries": ("sigmoid", 1, 40, None),
    "bias": ("sigmoid", 2, 4, (2, 2, 2, 2)),
    "a bias for all": ("sigmoid", 1, 4, (1, 1, 1, 1)),
}


@pytest.mark.parametrize("case", FUNCTIONS)
@pytest.mark.parametrize("batch", [1, 2])
def test_other_functions_than_softmax(case, batch):
    kind, groups, queries, own = FUNCTIONS[case]
    net = Net(5)
    bias = None if own is None else net.normal(*own)
    check(net, crossed(net, 2, groups, queries, DIM, DIM, bias, kind), batch=batch)
