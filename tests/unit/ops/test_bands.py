"""Matrices of which each c tile reads few words: fewer k tiles, the same products."""

import numpy as np
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.isa import Opcode
from vitrify.codegen.placement import Spread
from vitrify.estimate import estimate
from vitrify.ops.linear.bands import Band, fewest_words

#: Matrices ``[out, fold * channels]`` of tensors with so many channels in so many heads; words
#: of K bytes that each c tile of C columns then reads.
CASES = {
    "identity": (np.eye(40), (40, 1), 1, 1),
    "halves exchanged": (np.roll(np.eye(32), 16, axis=1), (32, 1), 1, 4),
    "three diagonals": (sum(np.eye(64, k=k) for k in (-1, 0, 1)), (64, 1), 1, 5),
    "folded": (np.eye(48), (12, 1), 4, 2),
    "padded heads": (np.eye(24), (24, 2), 1, 1),
    "dense": (np.ones((20, 24)), (24, 1), 1, 3),
    "one column": (np.eye(24)[:1], (24, 1), 1, 1),
    "zeros": (np.zeros((20, 24)), (24, 1), 1, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_words_of_a_tile_times_its_weights(name):
    matrix, (channels, heads), fold, words = CASES[name]
    weight = (np.random.default_rng(0).integers(1, 100, matrix.shape) * matrix).astype(np.int8)
    x, out = Spread(channels, heads, NANO.depth), Spread(len(weight), 1, NANO.depth)
    if name == "padded heads":
        out = x
    band = Band(NANO, weight, x, out, fold)
    assert -(-band.depth // NANO.depth) == words
    rows = np.random.default_rng(1).integers(-9, 9, (5, fold, channels))
    memory = np.zeros((5, fold * x.words * NANO.depth), np.int64)
    spread = x.scatter(rows, axis=2)
    memory.reshape(5, fold, -1)[:, :, : spread.shape[2]] = spread
    made, product = band.matrix(weight).astype(np.int64), []
    for column, own in enumerate(made):
        first = column // NANO.width // band.group * band.step * NANO.depth
        product.append(memory[:, first : first + band.depth] @ own)
    exact = rows.reshape(5, -1) @ weight.T.astype(np.int64)
    assert (np.stack(product, axis=1) == out.scatter(exact, axis=1)).all()


def test_steps_that_would_leave_the_row_are_none():
    low, high = np.array([0, 1, 2]), np.array([1, 2, 3])
    assert fewest_words(low, high, 4) == (2, 1, 1)
    assert fewest_words(np.array([0, 0]), np.array([1, 3]), 4) == (4, 0, 1)


def _matmuls(program, name):
    codes = [op for op in program.instructions() if op.opcode is Opcode.MATMUL]
    layers = zip(codes, program.layers, strict=True)
    return [op for op, layer in layers if layer.name.endswith(name)]


def test_copies_and_folds_read_what_they_need():
    """A normalised copy, and one with rows beside each other that are normalised again."""
    net = Net()
    x = net.norm(net.patches(), "norm")
    x = net.builder.emit("Rows", x, name="order", index=[0, 2, 1, 3])
    wide = net.builder.emit("Fold", x, name="fold", rows=2)
    gamma, beta = 1 + 0.3 * net.normal(2 * DIM), 0.3 * net.normal(2 * DIM)
    again = net.builder.emit("LayerNorm", wide, gamma, beta, name="again", epsilon=1e-6)
    program = check(net, net.linear(again, 7, "last"))
    (copy,), (fold,) = (_matmuls(program, name) for name in (".copy", "fold"))
    assert (copy.k_tiles, copy.gain_words) == (1, DIM // NANO.depth)
    assert (fold.k_tiles, fold.tapped, fold.rows) == (1, 0, 2)
    assert program.layers[-1].macs == program.macs - program.layers[0].macs


def test_patches_without_positions_add_to_nothing():
    net = Net()
    program = check(net, net.linear(net.norm(net.patches(), "norm"), 7, "last"))
    loads = [op for op in program.instructions() if op.opcode is Opcode.LOAD]
    assert len(loads) == 1


def test_the_estimate_names_copies_and_diagonals():
    net = Net()
    x = net.norm(net.patches(), "norm")
    x = net.builder.emit(
        "Conv", x, net.normal(DIM, 1, 3, 3), net.normal(DIM), name="depthwise", map=[2, 2],
        strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1], groups=DIM,
    )
    lost = {layer.name: layer.lost for layer in
            estimate(check(net, net.linear(x, 7, "last"))).layers}
    assert lost["norm.copy"]["copies"] == 4 * DIM // NANO.width
    assert lost["depthwise"]["diagonals"] > 0
    assert lost["depthwise"]["padding"] == lost["depthwise"]["copies"] == 0
    assert lost["last"]["padding"] > 0
