"""Published blocks of attention, exported by PyTorch: to programs, equal to golden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.execute import tensors
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.frontend import canonicalise, load
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator

FOLDER = Path(__file__).parents[2] / "data" / "tokens"
NANO = preset("nano")
#: Blocks, and the least signal-to-noise ratio of the model's output.
BLOCKS = {
    "channel_attention": 35, "clipped_softmax": 22, "efficient_attention": 40,
    "gated_positions": 35, "linear_attention": 35, "query_temperature": 30, "relu_attention": 35,
    "relu_linear": 25, "sigmoid_attention": 35, "softplus_attention": 35, "talking_heads": 33,
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str) -> None:
    model = canonicalise(load(FOLDER / f"{name}_ts.onnx"))
    images = np.random.default_rng(1).standard_normal((32, 3, 16, 16), np.float32)
    graph = quantise(model, images, arch=NANO)
    assert compare(model, graph, images[:8], NANO)[-1].sqnr > BLOCKS[name]
    _, (found,) = tensors(compile_graph(graph, NANO), images[:1])
    (exact,) = Evaluator(graph, NANO).outputs(images[:1]).values()
    np.testing.assert_array_equal(found.reshape(exact.shape), exact.astype(np.float32))
