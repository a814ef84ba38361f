"""Matrices of which each c tile reads few words: fewer k tiles, the same products."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.ops.test_conv import CASES as CONVOLUTIONS
from tests.unit.ops.test_conv import conv, image_map
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.isa import Opcode
from vitrify.codegen.placement import Spread
from vitrify.estimate import estimate
from vitrify.ops.linear.bands import Band, fewest_words, parts

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
    (part,) = Band(NANO, weight, x, out, fold).parts
    assert part.words == words
    check_products(Band(NANO, weight, x, out, fold, split=0), weight, x, out, fold)


@pytest.mark.parametrize(("channels", "words"), [(36, [2, 1]), (12, [2]), (4, [1]), (32, [2])])
def test_a_last_tile_that_reads_less_is_a_part_of_its_own(channels, words):
    """Of C = 16 columns, two words each."""
    arch = replace(NANO, width=16, lanes=4)
    weight = np.diag(np.arange(1, channels + 1)).astype(np.int8)
    spread = Spread(channels, 1, arch.depth)
    band = Band(arch, weight, spread, spread, split=0)
    assert [part.words for part in band.parts] == words
    check_products(band, weight, spread, spread, 1, arch)


def test_parts_begin_with_a_word():
    """Of C = 4 columns, two to a word of K = 8: three words and a half, the last one denser."""
    low, high = np.array([0, 0, 0, 0, 0, 0, 3]), np.array([1, 1, 1, 1, 1, 1, 3])
    assert [(part.first, part.tiles) for part in parts(NANO, low, high, 4, split=0)] == [
        (0, 6), (6, 1)]
    low, high = np.append(low, 3), np.append(high, 3)
    assert [(part.first, part.tiles) for part in parts(NANO, low, high, 4, split=0)] == [
        (0, 6), (6, 2)]


def check_products(band, weight, x, out, fold, arch=NANO):
    """Words of rows in memory, times the parts' weights, are the product."""
    channels = x.channels
    rows = np.random.default_rng(1).integers(-9, 9, (5, fold, channels))
    memory = np.zeros((5, fold * x.words * arch.depth), np.int64)
    spread = x.scatter(rows, axis=2)
    memory.reshape(5, fold, -1)[:, :, : spread.shape[2]] = spread
    product = []
    for part in band.parts:
        for column, own in enumerate(band.matrix(weight, part).astype(np.int64)):
            first = part.start(np.array(part.first + column // arch.width)) * arch.depth
            product.append(memory[:, first : first + band.depth(part)] @ own)
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


def test_a_core_without_patterns_reads_whole_rows():
    net, arch = Net(), replace(NANO, patterns=False)
    x = net.norm(net.patches(), "norm")
    both = net.add(x, net.linear(x, DIM, "made"), "sum")
    program = check(net, net.linear(net.norm(both, "again"), 7, "last"), arch=arch)
    (copy,) = _matmuls(program, "norm.copy")
    assert copy.k_tiles == DIM // NANO.depth


def test_statistics_of_rows_that_two_matmuls_make():
    """Of 20 channels C = 16 go to one and 4 to the other; a third one adds nothing."""
    arch, net = replace(NANO, width=16, lanes=4), Net(2)
    x = conv(net, image_map(net, 20, 4), CONVOLUTIONS["depthwise"])
    gamma, beta = 1 + 0.3 * net.normal(20), 0.3 * net.normal(20)
    normed = net.builder.emit("LayerNorm", x, gamma, beta, name="norm", epsilon=1e-6)
    program = check(net, net.linear(normed, 7, "last"), arch=arch)
    made = _matmuls(program, "conv")
    assert [op.k_tiles for op in made] == [2 * 9, 9, 1]
    assert [bool(op.stats) for op in made] == [False, False, True]
