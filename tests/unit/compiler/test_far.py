"""Tensors at the far end of the memory, where there is room but not in one piece."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.execute import tensors
from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import Net
from vitrify.codegen.alloc import PlacementError
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile as stage
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.quant.evaluate import Evaluator

#: As many words as the sum, its first operand and its second's input take.
SMALL = replace(NANO, name="small", banks=4, bank_words=32)
WIDE = 64


def long_skip(net: Net):
    """The activation is added behind two others, which lie on both sides of it."""
    x = net.activation(net.linear(net.patches(), WIDE, "first"), "kept")
    y = net.activation(net.linear(x, WIDE, "second"), "passed")
    y = net.activation(net.linear(y, WIDE, "third"), "read")
    return net.linear(net.add(net.linear(y, WIDE, "fourth"), x, "sum"), 7, "last")


def test_room_in_one_piece():
    net = Net(3)
    program = check(net, long_skip(net), arch=SMALL)
    assert program.metadata["token_memory_bytes"] == SMALL.token_bytes


def test_an_image_in_blocks_in_front_of_a_layer():
    """Its rows are no tensor that two layers could pass on in blocks."""
    net = Net(3)
    model, images = net.model(long_skip(net)), net.images(4)
    graph = quantise(model, images, arch=NANO)
    program = compile_graph(graph, NANO, ways=[PlacementStrategy(row_blocks=2)])
    assert program.input.blocks
    _, (found,) = tensors(program, images[:1])
    (exact,) = Evaluator(graph, NANO).outputs(images[:1]).values()
    assert (found.reshape(exact.shape) == exact.astype(np.float32)).all()


def test_without_trials_there_is_none(monkeypatch):
    monkeypatch.setattr(stage, "_MOVES", 0)
    monkeypatch.setattr(stage, "BANDED", ())
    net = Net(3)
    with pytest.raises(PlacementError, match=r"'fourth' needs 512 bytes .* 512 of the 1024"):
        check(net, long_skip(net), arch=SMALL)
