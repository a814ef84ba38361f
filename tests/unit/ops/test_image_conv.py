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


@pytest.mark.parametrize("prefix", [0, 1])
def test_tokens_before_a_convolution_without_bias(prefix):
    """Its pixels are no whole numbers of the model's zeros."""
    net = Net(2)
    weight = net.normal(DIM, CHANNELS, 3, 3) / 5
    x = net.builder.emit(
        "ImageConv", net.image, weight, np.zeros(DIM), name="stem", strides=[4, 4],
        pads=[1, 1, 0, 0],
    )
    x = net.builder.emit(
        "Tokens", x, net.normal(prefix, DIM), net.normal(prefix + 4, DIM), name="tokens"
    )
    check(net, net.head(net.norm(net.block(x, "block"), "norm")), batch=2)


BESIDE = {
    "the same": (((3, 3), (2, 2), (1, 1, 1, 1)),) * 2,
    "a smaller kernel": (((3, 3), (2, 2), (1, 1, 1, 1)), ((1, 1), (2, 2), (0, 0, 0, 0))),
    "elsewhere": (((2, 3), (4, 4), (0, 0, 0, 0)), ((3, 2), (4, 4), (2, 1, 0, 0))),
}


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("joined", [True, False])
def test_several_read_the_image(case, joined):
    net = Net(2)
    one, two = (
        stem(net, kernel, strides, pads, f"stem{i}")
        for i, (kernel, strides, pads) in enumerate(BESIDE[case])
    )
    one = one if joined else net.activation(one, "act")
    check(net, net.head(net.pool(net.linear(net.add(one, two, "add"), DIM, "fc"))), batch=2)


def test_patches_with_scales_of_their_own():
    net = Net(2)
    one, two = net.patches(), stem(net, (4, 4), (4, 4), (0, 0, 0, 0))
    x = net.add(two, net.linear(net.norm(one, "norm"), DIM, "fc"), "add")
    check(net, net.head(net.pool(x)), batch=2)


def test_embeddings_have_windows_in_the_same_places():
    net = Net(2)
    one, two = (stem(net, (3, 3), (n, n), (1, 1, 1, 1), f"stem{n}") for n in (1, 2))
    model = net.model(net.add(net.head(net.pool(one, "a")), net.linear(
        net.pool(two, "b"), 5, "other"), "add"))
    with pytest.raises(UnsupportedOpError, match=r"'stem2'.*windows of 3x3 pixels, 1x1 apart"):
        quantise(model, net.images(4), arch=NANO)
