"""Convolutions of the image, from the canonical graph to the golden machine."""

import numpy as np
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import CHANNELS, DIM, Net
from vitrify.arch.errors import UnsupportedOpError
from vitrify.compiler.quantise import quantise

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
    # what is padded is zero to the model, and no whole number of pixels
    check(net, result, batch=batch, least=25)


def test_the_image_is_read_once():
    net = Net(2)
    one, two = (stem(net, (3, 3), (2, 2), (1, 1, 1, 1), name) for name in ("one", "two"))
    model = net.model(net.head(net.pool(net.add(one, two, "add"))))
    with pytest.raises(UnsupportedOpError, match="second patch embedding"):
        quantise(model, net.images(4), arch=NANO)
