"""Normalisations, from the canonical graph to the golden machine."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import DIM, HIDDEN, Net
from vitrify.arch import isa
from vitrify.arch.errors import CapacityError, ModelError
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.ir import BATCH, Builder, Evaluator, array_of, shape_of, source_of, tensor
from vitrify.ops.norm.layer_norm import LayerNorm, RMSNorm
from vitrify.ops.registry import DECOMPOSITIONS
from vitrify.quant.decompose import decompose, inputs


def rms(net: Net, x, name: str, epsilon: float = 1e-5, axis: str = "channels", groups: int = 1):
    return net.builder.emit(
        "RMSNorm", x, 1 + 0.3 * net.normal(DIM), name=name, epsilon=epsilon, axis=axis,
        groups=groups,
    )


def in_every_block(net: Net):
    """The stream keeps a mean that an RMSNorm must not take off."""
    x = net.tokens()
    for i in range(2):
        x = net.add(x, net.linear(net.attention(rms(net, x, f"a{i}"), f"b{i}"), DIM, f"c{i}"),
                    f"d{i}")
        hidden = net.activation(net.linear(rms(net, x, f"e{i}"), HIDDEN, f"f{i}"), f"g{i}")
        x = net.add(x, net.linear(hidden, DIM, f"h{i}"), f"i{i}")
    return net.head(net.select(rms(net, x, "last")))


def large_epsilon(net: Net):
    return net.head(rms(net, net.block(net.tokens(), "block"), "last", epsilon=0.5))


def the_result(net: Net):
    return rms(net, net.norm(net.tokens(), "norm"), "rms")


GRAPHS = {f.__name__: f for f in (in_every_block, large_epsilon, the_result)}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(name, batch):
    net = Net(3)
    check(net, GRAPHS[name](net), batch=batch)


@pytest.mark.parametrize("epsilon", [None, 1e-2])
def test_rows_that_are_normalised_in_two_ways(epsilon):
    net = Net(3)
    x = net.tokens()
    one = net.linear(net.norm(x, "layer"), DIM, "one")
    two = rms(net, x, "rms") if epsilon is None else net.norm(x, "again", epsilon)
    x = net.add(x, net.add(one, net.linear(two, DIM, "two"), "sum"), "add")
    check(net, net.head(x), batch=2)


def normalised(net: Net, kind: str, epsilon: float = 1e-3, **attributes):
    """Beside its reader something else reads the stream, and it is added to."""
    wide = net.linear(net.norm(net.tokens(0), "before"), 4 * DIM, "wide")
    x = net.builder.emit("Unfold", wide, name="rows", parts=4)
    parameters = [1 + 0.3 * net.normal(DIM), *([] if kind == "RMSNorm" else [net.normal(DIM)])]
    y = net.builder.emit(kind, x, *parameters, name="tested", epsilon=epsilon, **attributes)
    x = net.add(x, net.linear(y, DIM, "fc"), "sum")
    return net.linear(net.add(x, y, "twice"), 7, "last")


PARTS = {
    "rms, heads": ("RMSNorm", {"axis": "channels", "groups": 2}),
    "rms, tokens": ("RMSNorm", {"axis": "tokens", "groups": 1}),
    "rms, runs of tokens": ("RMSNorm", {"axis": "tokens", "groups": 2}),
    "layer": ("HeadNorm", {"axis": "channels", "groups": 1}),
    "heads": ("HeadNorm", {"axis": "channels", "groups": 2}),
    "tokens": ("HeadNorm", {"axis": "tokens", "groups": 2}),
    "map": ("GroupNorm", {"groups": 1}),
    "groups of a map": ("GroupNorm", {"groups": 4}),
}


def test_heads_of_rows_of_other_size_are_normalised_as_exactly():
    net = Net(3)
    x = net.linear(net.norm(net.tokens(0), "first"), DIM, "x")
    sizes = np.geomspace(1.0, 0.05, int(shape_of(x)[1]))
    x = net.builder.emit(
        "Mix", x, np.diag(sizes)[None], np.zeros(len(sizes)), name="sizes", heads=1, groups=1
    )
    y = net.builder.emit(
        "HeadNorm", x, np.ones(DIM), np.zeros(DIM), name="normal", axis="channels", groups=2,
        epsilon=1e-6,
    )
    check(net, net.linear(y, 5, "last"))


@pytest.mark.parametrize("name", PARTS)
def test_norms_of_parts(name):
    net = Net(4)
    kind, attributes = PARTS[name]
    check(net, normalised(net, kind, **attributes), batch=2)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
@pytest.mark.parametrize("name", ["rms, heads", "layer", "tokens"])
def test_an_epsilon_beside_which_the_variance_is_small(name, epsilon):
    net = Net(4)
    kind, attributes = PARTS[name]
    check(net, normalised(net, kind, epsilon=epsilon, **attributes))
    net = Net(4)
    check(net, net.head(net.select(net.norm(net.tokens(), "norm", epsilon))))


@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_the_finest_step_has_the_largest_epsilon(kind):
    norm, largest = kind(2.0), isa.FORMATS[isa.Opcode.MATMUL].field("epsilon").max
    assert norm.statistics(norm.finest_step, DIM).epsilon == largest
    with pytest.raises(AssertionError, match="an epsilon of 2"):
        norm.statistics(norm.finest_step * (1 - 1 / largest), DIM)


def test_an_epsilon_that_leaves_nothing_of_the_variance():
    net = Net(4)
    with pytest.raises(ModelError, match="the epsilon of 'norm' is too large beside the variance"):
        check(net, net.head(net.select(net.norm(net.tokens(), "norm", 1e6))))


def test_the_mean_of_more_rows_than_accumulators_hold():
    net = Net(4)
    builder = Builder([tensor("x", (BATCH, 10000, 6))])
    y = builder.emit("GroupNorm", builder.graph.inputs[0], net.normal(6), net.normal(6), groups=3,
                     epsilon=1e-3)
    model = builder.model([y])
    plain = decompose(model, DECOMPOSITIONS)
    mixes = [inputs(node)[1] for node in plain.graph if node.op_type == "Mix"]
    assert max(array_of(matrix).shape[2] for matrix in mixes) == 2500
    feeds = {"x": 3 + net.normal(2, 10000, 6)}
    names = [y.name or ""]
    exact, found = (Evaluator(each, names).run(feeds)[names[0]] for each in (model, plain))
    np.testing.assert_allclose(found, exact, atol=1e-4)


@pytest.mark.parametrize("source", [None, "of the model"])
def test_what_is_made_of_a_norm_tells_its_source(source):
    net = Net(4)
    builder = Builder([tensor("x", (BATCH, 4, 6))])
    y = builder.emit("GroupNorm", builder.graph.inputs[0], net.normal(6), net.normal(6), groups=3,
                     epsilon=1e-3, name="norm", source=source)
    plain = decompose(builder.model([y]), DECOMPOSITIONS)
    assert {source_of(node) for node in plain.graph} == {source or "norm"}


def test_an_architecture_without_row_sums_says_so():
    net = Net(3)
    graph = quantise(net.model(in_every_block(net)), net.images(4), arch=NANO)
    with pytest.raises(CapacityError, match=r"RMSNorm.*without 'row_sums'"):
        compile_graph(graph, replace(NANO, row_sums=False))
