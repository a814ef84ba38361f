"""Convolutions of the image, from the canonical graph to the golden machine."""

import numpy as np
import pytest

from tests.support.execute import tensors
from tests.unit.quant.graphs import CHANNELS, DIM, Net
from vitrify.arch.errors import UnsupportedOpError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator

NANO = preset("nano")
#: Kernel, strides, pads (top, left, bottom, right).
CASES = {
    "overlapping": ((3, 3), (2, 2), (1, 1, 1, 1)), "patches": ((4, 4), (4, 4), (0, 0, 0, 0)),
    "uneven": ((3, 2), (2, 1), (1, 0, 0, 1)), "leaves pixels": ((3, 3), (3, 3), (0, 0, 0, 0)),
}


def stem(net: Net, kernel, strides, pads, name="stem"):
    weight = net.normal(DIM, CHANNELS, *kernel) / np.sqrt(CHANNELS * np.prod(kernel))
    return net.builder.emit(
        "ImageConv", net.image, weight, net.normal(DIM), name=name, strides=list(strides),
        pads=list(pads),
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(case, batch):
    net = Net(2)
    x = net.activation(stem(net, *CASES[case]), "act")
    result = net.linear(net.norm(net.linear(x, DIM, "fc"), "norm"), 7, "last")
    model, images = net.model(result), net.images(24)
    # what is padded is zero to the model, and no whole number of pixels
    graph = quantise(model, images, arch=NANO)
    assert min(one.sqnr for one in compare(model, graph, images[:8], NANO)) > 25
    program = compile_graph(graph, NANO, batch=batch)
    _, (got,) = tensors(program, images[:batch])
    (real,) = Evaluator(graph, NANO).outputs(images[:batch]).values()
    assert (got.reshape(real.shape) == real.astype(np.float32)).all()


def test_the_image_is_read_once():
    net = Net(2)
    one, two = (stem(net, (3, 3), (2, 2), (1, 1, 1, 1), name) for name in ("one", "two"))
    model = net.model(net.head(net.pool(net.add(one, two, "add"))))
    with pytest.raises(UnsupportedOpError, match="second patch embedding"):
        quantise(model, net.images(4), arch=NANO)
