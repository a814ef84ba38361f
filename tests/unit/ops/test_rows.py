"""Rows in any order, from the canonical graph to the golden machine."""

import numpy as np
import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import DIM, TOKENS, Net
from vitrify.arch.isa import Opcode, Stationary
from vitrify.codegen.strategy import Ahead, PlacementStrategy
from vitrify.ir import shape_of
from vitrify.quant.tensors import Rows

COUNT = TOKENS + 1
ORDERS = {
    "permuted": [3, 0, 4, 2, 1], "some": [4, 2], "repeated": [1, 1, 3, 0, 3, 3, 2],
    "consecutive": [1, 2, 3], "one": [3], "many": [*range(COUNT)] * 9,
}


def rows(net, x, index, name="rows"):
    return net.builder.emit("Rows", x, name=name, index=index)


def of_normalised(net, index):
    return net.linear(rows(net, net.norm(net.tokens(), "norm"), index), 7, "last")


def of_linear(net, index):
    made = net.linear(net.norm(net.tokens(), "norm"), DIM, "made")
    return net.linear(net.activation(rows(net, made, index), "act"), 7, "last")


def of_attention(net, index):
    x = net.tokens()
    return net.linear(rows(net, net.attention(net.norm(x, "norm"), "a"), index), 7, "last")


def in_windows(net, index):
    """Attention within permuted rows, put back and added to the stream."""
    x = net.tokens()
    a = net.attention(rows(net, net.norm(x, "norm"), index), "a")
    back = rows(net, net.linear(a, DIM, "proj"), np.argsort(index).tolist(), "back")
    return net.linear(net.norm(net.add(x, back, "sum"), "after"), 7, "last")


def twice(net, index):
    x = rows(net, rows(net, net.norm(net.tokens(), "norm"), index), [1, 0], "again")
    return net.linear(x, 7, "last")


def far_and_near(net):
    """Lists of 45 entries, 180 in all, for a memory that holds 128."""
    x, rng = net.tokens(), np.random.default_rng(0)
    for i in range(4):
        index = rng.permutation(np.repeat(np.arange(COUNT), 9)).tolist()
        y = net.linear(rows(net, net.norm(x, f"norm{i}"), index, f"far{i}"), DIM, f"linear{i}")
        x = net.add(x, rows(net, y, list(range(0, 45, 9)), f"near{i}"), f"sum{i}")
    assert shape_of(x)[1] == COUNT
    return net.linear(net.norm(x, "end"), 7, "last")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("what", [of_normalised, of_linear, of_attention, twice])
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(what, order, batch):
    if what is twice and len(ORDERS[order]) < 2:
        pytest.skip("there is but one row")
    net = Net(3)
    check(net, what(net, ORDERS[order]), batch=batch, least=25)


@pytest.mark.parametrize("batch", [1, 2])
def test_windows(batch):
    net = Net(5)
    check(net, in_windows(net, ORDERS["permuted"]), batch=batch, least=25)


def test_a_list_is_loaded_once():
    net = Net(6)
    program = check(net, in_windows(net, ORDERS["permuted"]), least=25)
    loaded = [op for op in program.instructions() if op.opcode is Opcode.LOAD_INDEX]
    assert len(loaded) == 2  # that of queries, keys and values, and the way back


def test_lists_take_turns_where_memory_is_short():
    net = Net(7)
    check(net, far_and_near(net), least=25)


ZEROS = {
    "between": [3, -1, 0, 4, -1, 2, 1, -1], "before": [-1, *range(COUNT)],
    "around": [-1, -1, *range(COUNT), -1], "some rows only": [-1, 2, 3],
}


@pytest.mark.parametrize("order", ZEROS)
@pytest.mark.parametrize("what", [of_normalised, of_linear, of_attention])
def test_rows_of_zeros(what, order):
    net = Net(8)
    check(net, what(net, ZEROS[order]), batch=2, least=25)


def parts_of_rows(net, parts):
    """The parts of every row as rows, and what attends to them."""
    x = net.linear(net.block(net.tokens(0), "block"), parts * DIM, "wide")
    y = net.builder.emit("Unfold", x, name="unfold", parts=parts)
    return net.linear(net.norm(net.add(y, net.attention(y, "a"), "add"), "norm"), 7, "last")


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_rows(parts):
    net = Net(9)
    check(net, parts_of_rows(net, parts), batch=2)


def test_parts_of_a_token():
    net = Net(9)
    token = net.select(net.block(net.tokens(), "block"), index=1)
    x = net.builder.emit("Unfold", token, name="unfold", parts=2)
    check(net, net.linear(x, 7, "last"), batch=2)


def test_rows():
    some = Rows((4, 2, 3))
    assert (some.count, some.start) == (3, None)
    assert some.then(Rows((1, 2))) == Rows((2, 3)) == Rows.span(2, 2)
    assert Rows.span(2, 2).start == 2
    array = np.arange(10).reshape(1, 5, 2)
    assert some.of(array)[0, :, 0].tolist() == [8, 4, 6]


def normalised_after(net, index):
    """What is normalised is some rows, and so is what is read: of statistics of their own."""
    x = rows(net, net.block(net.tokens(), "block"), [3, 1], "chosen")
    return rows(net, net.norm(x, "norm"), index, "again")


@pytest.mark.parametrize("index", [[0, 1], [1, 1, 0]])
def test_rows_of_normalised_rows(index):
    net = Net(9)
    check(net, normalised_after(net, index), least=25)


def test_a_convolution_of_some_rows():
    """Calibration sees the rows that are read, and not those of the whole tensor."""
    net = Net(9)
    x = rows(net, net.norm(net.tokens(), "norm"), [4, 1, 3, 1])
    made = net.builder.emit(
        "Conv", x, net.normal(DIM, 1, 2, 2), net.normal(DIM), name="conv", map=[2, 2],
        strides=[1, 1], pads=[1, 0, 0, 1], dilations=[1, 1], groups=DIM,
    )
    check(net, net.linear(made, 7, "last"), least=25)


def test_rows_of_constants_wait_for_them():
    """What a list picks may have come from DRAM, later than the list."""
    net, index = Net(10), [4, 0, 2, 2, 1]
    x = net.tokens()
    first = net.linear(rows(net, net.norm(x, "norm"), index, "first"), DIM, "fc1")
    x = net.add(x, first, "sum1")
    fixed = net.builder.emit("ConstantRows", x, net.normal(6, DIM), name="fixed")
    x = net.add(x, net.linear(rows(net, fixed, index, "second"), DIM, "fc2"), "sum2")
    check(net, net.linear(net.norm(x, "after"), 7, "last"), least=25)


def beside_weights(net):
    """Two rows that come by a list, from the core and from DRAM, and two that DRAM has in order."""
    x = net.linear(rows(net, net.norm(net.tokens(), "norm"), [4, 2], "made"), DIM, "fc0")
    for name, count, index in ("listed", 4, [3, 0]), ("whole", 2, [0, 1]):
        fixed = net.builder.emit("ConstantRows", x, net.normal(count, DIM), name=name)
        y = net.linear(rows(net, fixed, index, f"{name}.rows"), DIM, f"{name}.fc")
        x = net.add(x, y, f"{name}.sum")
    return net.linear(x, 40, "last")


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("slots", [8, 16])
def test_rows_and_weights_that_are_loaded(slots, batch):
    """One MATMUL waits for weights, a list and rows; weights are the last of them or the first."""
    net = Net(11)
    way = PlacementStrategy(ahead=Ahead(slots, pieces=True))
    program = check(net, beside_weights(net), batch=batch, least=25, ways=[way])
    found = [
        op for op in program.instructions()
        if op.opcode is Opcode.MATMUL and op.stationary == Stationary.STORED
    ]
    assert [op.src_list for op in found] == [1] * 2 * batch + [0] * batch + [0]
