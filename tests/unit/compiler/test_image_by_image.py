"""A job whose images do not fit together: early ops run image by image, the others for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.execute import tensors
from tests.support.synthetic import Mixture, vision_transformer
from tests.unit.compiler.test_lowering import compare
from tests.unit.ops.checks import NANO
from tests.unit.ops.test_conv import inverted_bottleneck
from tests.unit.quant.graphs import Net
from vitrify.arch.errors import CapacityError
from vitrify.codegen.strategy import Ahead, PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out
from vitrify.frontend import canonicalise, load
from vitrify.program import Program
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import QuantGraph

FOLDER = Path(__file__).parents[2] / "data" / "tokens"
#: Models, and how many ops run image by image: pairs, windows, merged rows and streams are cut.
CUTS = {
    "shifted_windows": (1, 4, 9), "pyramid": (7, 16, 19), "relu_linear": (5, 10, 15),
    "rotary": (2, 5),
}


def integers(name: str) -> QuantGraph:
    images = np.random.default_rng(1).standard_normal((16, 3, 16, 16), np.float32)
    return quantise(canonicalise(load(FOLDER / f"{name}_ts.onnx")), images, arch=NANO)


def check(graph: QuantGraph, program: Program) -> None:
    """Outputs of a job are the evaluator's, and so is its work."""
    assert program.macs == program.batch * sum(leave_out(graph).macs.values())
    images = np.random.default_rng(2).standard_normal(
        (program.batch, *graph.input.shape), np.float32)
    _, found = tensors(program, images)
    real = Evaluator(graph, program.arch).outputs(images)
    for got, exact in zip(found, real.values(), strict=True):
        np.testing.assert_array_equal(got.reshape(exact.shape), exact.astype(np.float32))


@pytest.mark.parametrize("name", CUTS)
def test_cuts(name: str) -> None:
    graph = integers(name)
    for cut in CUTS[name]:
        program = compile_graph(graph, NANO, batch=2, ways=[PlacementStrategy(alone=cut)])
        assert program.metadata["image_by_image"] >= cut
        check(graph, program)


@pytest.mark.parametrize("cut", [1, 5, 9, 14])
@pytest.mark.parametrize("way", [
    PlacementStrategy(), PlacementStrategy(turns=True),
    PlacementStrategy(row_blocks=2, score_blocks=2),
])
def test_every_tensor_of_every_image(way: PlacementStrategy, cut: int) -> None:
    """Rows of the job, whatever place one image or all have; the image may come in blocks."""
    compare(NANO, {}, batch=3, ways=[replace(way, alone=cut)])


@pytest.mark.parametrize("cut", [4, 12])
def test_every_image_has_its_task(cut: int) -> None:
    shape = {"mixture": Mixture(experts=4, tasks=2)}
    compare(NANO, shape, batch=2, tasks=[1, 0], ways=[PlacementStrategy(alone=cut)])


@pytest.mark.parametrize("step", [0, 8, 12])
def test_weights_are_ahead_once(step: int) -> None:
    """Those of layers for all images; they begin with the last image at the earliest."""
    shape = {"image": (1, 4, 4), "pooled": True, "classes": 60}
    way = PlacementStrategy(ahead=Ahead(8, pieces=True, step=step), alone=10)
    program = compare(NANO, shape, batch=2, ways=[way])
    assert program.metadata["bytes_ahead"]


def test_blocks_of_lines() -> None:
    net = Net(2)
    graph = quantise(net.model(inverted_bottleneck(net)), net.images(24), arch=NANO)
    ways = [PlacementStrategy(row_blocks=2, late=True, alone=5)]
    program = compile_graph(graph, NANO, batch=2, ways=ways)
    assert {"act1.block", "act2.block"} <= {layer.tensor.name for layer in program.layers}
    check(graph, program)


@pytest.mark.parametrize("batch", [2, 4])
def test_chosen_where_memory_is_short(batch: int) -> None:
    """No earlier than all fit, and every tensor that is read later is kept."""
    graph = integers("pyramid")
    small = replace(NANO, name="small", banks=8, bank_words=64)
    program = compile_graph(graph, small, batch=batch)
    assert "image_by_image" not in compile_graph(graph, small).metadata
    assert 0 < program.metadata["image_by_image"] < len(graph.ops)
    assert "row_blocks" not in program.metadata
    check(graph, program)


def test_what_has_no_room_for_one_image_is_refused() -> None:
    graph = vision_transformer()
    tiny = replace(NANO, name="tiny", banks=2, bank_words=16)
    with pytest.raises(CapacityError, match="bytes of token memory"):
        compile_graph(graph, tiny, batch=2)


def test_what_is_faster_is_no_reason_to_cut_later() -> None:
    """Weights ahead of time take what room is left, or fewer are."""
    graph = integers("pyramid")
    small = replace(NANO, name="small", banks=8, bank_words=64)
    way = PlacementStrategy(alone=1)
    assert compile_graph(graph, small, batch=2, ways=[way]).metadata["image_by_image"] == 1
    with pytest.raises(CapacityError, match=r"weights\[8\]"):
        compile_graph(graph, small, batch=2, ways=[replace(way, ahead=Ahead(10, pieces=True))])
