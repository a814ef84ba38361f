"""Results of few channels, several rows of which are one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from tests.support.execute import tensors
from tests.unit.ops.checks import NANO, check
from tests.unit.ops.test_image_conv import stem
from tests.unit.quant.graphs import DIM, SIZE, Net
from vitrify.arch.errors import CapacityError
from vitrify.compiler import compile as stage
from vitrify.compiler import compile_graph
from vitrify.compiler.fold import fold_results
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out
from vitrify.compiler.validate import check_program
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import QuantGraph

ROWS = SIZE * SIZE


def dense(net: Net, channels: int, kind: str = "silu") -> ir.Value:
    """A few numbers for each pixel, behind a function."""
    x = net.activation(stem(net, (3, 3), (1, 1), (1, 1, 1, 1)), "act")
    return net.activation(net.linear(x, channels, "last"), "end", kind)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_same_integers(channels: int, batch: int) -> None:
    net = Net(4)
    program = check(net, dense(net, channels), batch=batch)
    (spec,) = program.outputs
    many = 2
    assert (spec.rows, spec.channels) == (ROWS // many, many * channels)
    assert spec.shape == (ROWS, channels)


def graph_of(*results: ir.Value, net: Net) -> QuantGraph:
    return leave_out(quantise(net.model(*results), net.images(8), arch=NANO))


def folded(graph: QuantGraph) -> set[str]:
    """Names of tensors that became wider."""
    made = fold_results(graph, NANO)
    return {n for n, t in made.tensors.items() if t.channels != graph.tensors[n].channels}


def test_a_scale_for_each_channel() -> None:
    """Factor and shift of a result are those of its channel."""
    net = Net(4)
    graph = graph_of(dense(net, 2), net=net)
    (name,) = graph.outputs
    form = replace(graph.forms[name], factor=np.array([1.0, 3.0]), shift=np.array([0.5, -2.0]))
    graph = replace(graph, forms={name: form})
    images = net.images(2)
    program = compile_graph(graph, NANO)
    assert program.outputs[0].channels == 4
    check_program(program, graph, images)
    exact = Evaluator(graph, NANO).outputs(images[:1])[name]
    _, (found,) = tensors(program, images[:1])
    wanted = exact * form.factor + form.shift
    assert np.allclose(found.reshape(wanted.shape), wanted)


def test_what_others_read_stays() -> None:
    net = Net(4)
    narrow = dense(net, 2)
    graph = graph_of(narrow, net.pool(net.linear(narrow, DIM, "b")), net=net)
    # what the result is a copy of
    assert folded(graph) == {"end.output"}
    net = Net(4)
    normal = net.norm(net.linear(dense(net, DIM), DIM, "a"), "norm")
    assert not folded(graph_of(net.linear(normal, 1, "b"), net=net))


def test_few_rows_stay() -> None:
    """Weights for each of them would be more than what they save."""
    net = Net(4)
    assert not folded(graph_of(net.linear(net.activation(net.patches(), "act"), 1, "last"),
                               net=net))  # fmt: skip


def test_a_result_that_has_room_only_so(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(4)
    graph, images = graph_of(dense(net, 1), net=net), net.images(2)
    # less than a word of two planes for each pixel
    small = replace(NANO, name="small", banks=6, bank_words=ROWS // 4)
    program = compile_graph(graph, small)
    assert small.token_bytes < 2 * ROWS * NANO.depth
    check_program(program, graph, images)
    monkeypatch.setattr(stage, "fold_results", lambda graph, arch: graph)
    with pytest.raises(CapacityError):
        compile_graph(graph, small)
