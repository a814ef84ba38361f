"""Pools of maps, from the canonical graph to the golden machine."""

from dataclasses import replace

import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.ops.test_conv import image_map
from tests.unit.quant.graphs import Net
from vitrify.arch.errors import CapacityError, UnsupportedOpError
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise

#: Kind, channels, kernel, stride, pads (top, left, bottom, right), whether pads count.
CASES = {
    "average": ("average", 16, (2, 2), 2, (0, 0, 0, 0), 0),
    "average, padded": ("average", 20, (3, 3), 1, (1, 1, 1, 1), 1),
    "largest": ("max", 16, (2, 2), 2, (0, 0, 0, 0), 0),
    "largest, padded": ("max", 20, (3, 3), 2, (1, 1, 1, 1), 0),
    "largest, uneven": ("max", 9, (2, 3), 1, (1, 0, 0, 2), 0),
}

#: Strides that differ, and matter for one side only.
UNEVEN = {
    "lines": ("max", 9, (1, 2), (1, 2), (0, 0, 0, 0), 0),
    "one column": ("average", 9, (2, 4), (1, 4), (0, 0, 0, 0), 0),
    "one row": ("max", 9, (4, 2), (4, 1), (0, 0, 0, 0), 0),
}


def pool(net: Net, case, size=(4, 4)):
    kind, channels, kernel, stride, pads, counted = case
    strides = [stride] * 2 if isinstance(stride, int) else list(stride)
    return net.builder.emit(
        "Pool", image_map(net, channels, 4), name="pool", kind=kind, map=list(size),
        kernel=list(kernel), strides=strides, pads=list(pads), count_include_pad=counted,
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(case, batch):
    net = Net(2)
    check(net, net.linear(pool(net, CASES[case]), 7, "last"), batch=batch, least=25)


@pytest.mark.parametrize("case", UNEVEN)
def test_strides_that_differ(case):
    net = Net(2)
    check(net, net.linear(pool(net, UNEVEN[case]), 7, "last"), least=25)


def test_strides_that_matter_on_both_sides():
    net = Net(2)
    x = pool(net, ("max", 9, (2, 2), (1, 2), (0, 0, 0, 0), 0))
    with pytest.raises(UnsupportedOpError, match="its strides 1 and 2 differ"):
        check(net, net.linear(x, 7, "last"))


@pytest.mark.parametrize("case", ["average, padded", "largest, padded"])
def test_several_maps(case):
    net = Net(2)
    x = pool(net, CASES[case], (2, 4))
    check(net, net.linear(x, 7, "last"), batch=2, least=25)


@pytest.mark.parametrize("size", [(4, 4), (2, 4)])
@pytest.mark.parametrize(("kernel", "stride", "pads"), [
    ((3, 3), 1, (1, 1, 1, 1)), ((2, 3), 2, (1, 0, 1, 2)),
])
def test_a_border_that_does_not_count(size, kernel, stride, pads):
    net = Net(2)
    x = pool(net, ("average", 16, kernel, stride, pads, 0), size)
    check(net, net.linear(x, 7, "last"), least=25)


@pytest.mark.parametrize(("mechanism", "what"), [
    ("addends", "output ADD8"), ("patterns", "access patterns"),
])
def test_an_architecture_without_what_maxima_need_says_so(mechanism, what):
    net = Net(2)
    model = net.model(net.linear(pool(net, CASES["largest"]), 7, "last"))
    arch = replace(NANO, **{mechanism: False})
    graph = quantise(model, net.images(4), arch=arch)
    with pytest.raises(CapacityError, match=f"'pool' needs {what}, .* without '{mechanism}'"):
        compile_graph(graph, arch)
