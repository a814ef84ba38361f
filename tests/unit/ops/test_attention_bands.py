"""Attention some windows or heads at a time, where the token memory holds no more."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import DIM, HEADS, Net
from vitrify.ir import attributes_of, evaluate
from vitrify.ops.attention import bands
from vitrify.ops.attention.bands import banded

#: Tokens, and windows of four of them.
TOKENS, WINDOWS = 16, 4


def network(net: Net, windows: int = WINDOWS, *, layer: bool = True) -> ir.Value:
    """One block of attention in windows, shifted, with unit queries and a bias of each window."""
    weight = net.normal(DIM, 12) / np.sqrt(12)
    x = net.builder.emit(
        "PatchEmbed", net.image, weight, net.normal(DIM), name="patch", patch=[2, 2]
    )
    normal, order = net.norm(x, "norm"), np.roll(np.arange(TOKENS), 3)
    q, k, v = (net.linear(normal, DIM, f"block.{part}") for part in "qkv")
    q = net.builder.emit(
        "RMSNorm", q, np.ones(DIM), name="unit", axis="channels", groups=1, epsilon=1e-6
    )
    q, k, v = (
        net.builder.emit("Rows", part, name=f"order{i}", index=order.tolist())
        for i, part in enumerate((q, k, v))
    )
    tokens = TOKENS // windows
    mixed = net.builder.emit(
        "CrossAttention", q, k, v, net.normal(windows, 1, tokens, tokens), name="block.attention",
        heads=HEADS, groups=windows, scale=0.3, kind="softmax",
    )
    mixed = net.linear(mixed, DIM, "proj") if layer else mixed
    back = net.builder.emit("Rows", mixed, name="back", index=np.argsort(order).tolist())
    x = net.add(x, back, "add")
    return net.linear(net.norm(x, "after"), 7, "last")


def many_heads(net: Net) -> ir.Value:
    """Heads so narrow that half of each word is padding, behind tokens without a prefix."""
    weight = net.normal(DIM, 12) / np.sqrt(12)
    x = net.builder.emit(
        "PatchEmbed", net.image, weight, net.normal(DIM), name="patch", patch=[2, 2]
    )
    normal = net.norm(x, "norm")
    q, k, v = (net.linear(normal, DIM, f"block.{part}") for part in "qkv")
    mixed = net.builder.emit("Attention", q, k, v, name="block.attention", heads=4, scale=0.5)
    x = net.add(x, net.linear(mixed, DIM, "proj"), "add")
    return net.linear(net.norm(x, "after"), 7, "last")


def two_norms(net: Net) -> ir.Value:
    """A norm behind a layer, added to the norm that the layer reads."""
    weight = net.normal(DIM, 12) / np.sqrt(12)
    x = net.builder.emit(
        "PatchEmbed", net.image, weight, net.normal(DIM), name="patch", patch=[2, 2]
    )
    first = net.norm(x, "first")
    second = net.norm(net.linear(first, DIM, "layer"), "second")
    order = np.roll(np.arange(TOKENS), 3).tolist()
    moved = net.builder.emit("Rows", second, name="moved", index=order)
    return net.linear(net.norm(net.add(first, moved, "sum"), "after"), 7, "last")


def test_a_sum_of_norms_that_do_not_fit_side_by_side():
    """Each, and the sum, takes two fifths of the memory."""
    small = replace(NANO, name="small", banks=10, bank_words=16)
    net = Net(3)
    program = check(net, two_norms(net), arch=small)
    assert program.metadata["token_memory_bytes"] == small.token_bytes
    kinds = [node.op_type for node in banded(net.model(), NANO).graph]
    assert "Activation" not in kinds


def plain(net: Net) -> ir.Value:
    """A block of plain attention."""
    return net.linear(net.norm(net.block(net.tokens(), "block"), "after"), 7, "last")


def test_heads_apart_compute_the_same(monkeypatch):
    net = Net(5)
    model, images = net.model(plain(net)), net.images(2)
    monkeypatch.setattr(bands, "_WHOLE", 0.01)
    split = banded(model, NANO)
    names = [node.op_type for node in split.graph]
    assert names.count("Attention") == HEADS
    # each is added to the stream by a part of the layer behind, and nothing is put side by side
    assert names.count("Add") == HEADS + 1
    assert "ConcatChannels" not in names
    outputs = [value.name or "" for value in model.graph.outputs]
    exact, found = (evaluate(each, {"image": images}, outputs) for each in (model, split))
    np.testing.assert_allclose(found[outputs[0]], exact[outputs[0]], atol=1e-5)
    macs = []
    for _ in range(2):
        again = Net(5)
        macs.append(check(again, plain(again), batch=2).macs)
        monkeypatch.undo()
    assert macs[0] == macs[1]


def groups_of(model: ir.Model) -> list[int]:
    return [
        attributes_of(node)["groups"] for node in model.graph if node.op_type == "CrossAttention"
    ]


@pytest.mark.parametrize("layer", [True, False])
@pytest.mark.parametrize(("share", "groups"), [(0.1, [2, 2]), (0.07, [3, 3, 2])])
def test_bands_compute_the_same(share, groups, layer, monkeypatch):
    net, windows = Net(5), sum(groups)
    model, images = net.model(network(net, windows, layer=layer)), net.images(2)
    monkeypatch.setattr(bands, "_WHOLE", share)
    monkeypatch.setattr(bands, "_BAND", share)
    split = banded(model, NANO)
    assert groups_of(split) == groups
    # what the layer behind makes of a band is added before the next one begins
    order = [node.op_type for node in split.graph if node.op_type in ("CrossAttention", "Add")]
    begin = ["CrossAttention", "CrossAttention", "Add"] if layer else ["CrossAttention"] * 2
    assert order[: len(begin)] == begin
    assert ("ConcatRows" in [node.op_type for node in split.graph]) == (not layer)
    names = [value.name or "" for value in model.graph.outputs]
    exact, found = (evaluate(each, {"image": images}, names) for each in (model, split))
    np.testing.assert_allclose(found[names[0]], exact[names[0]], atol=1e-6)
    macs = []
    for _ in range(2):
        again = Net(5)
        macs.append(check(again, network(again, windows, layer=layer), batch=2).macs)
        monkeypatch.undo()
    assert macs[0] == macs[1]


def test_what_fits_or_would_not_fit_in_bands_either_stays_whole(monkeypatch):
    net = Net(5)
    model = net.model(network(net))
    assert groups_of(banded(model, NANO)) == [WINDOWS]
    # the stream alone takes more
    monkeypatch.setattr(bands, "_WHOLE", 0.01)
    monkeypatch.setattr(bands, "_BAND", 0.01)
    assert groups_of(banded(model, NANO)) == [WINDOWS]


@pytest.mark.parametrize(("make", "kind", "parts"), [
    (network, "CrossAttention", WINDOWS), (many_heads, "Attention", 4),
])
def test_shares_of_the_memory_are_bounds(make, kind, parts, monkeypatch):
    """One byte more or less in the token memory makes the difference."""
    net = Net(5)
    model, total = net.model(make(net)), NANO.token_bytes
    node = next(node for node in model.graph if node.op_type == kind)
    results = bands._bytes(node.outputs[0], NANO, 4) if kind == "Attention" else 0
    needs = [0, *(bands._need(node, NANO, parts, count) for count in range(1, parts + 1))]

    def found(whole, each):
        monkeypatch.setattr(bands, "_WHOLE", (whole + 0.5) / total)
        for name in ("_BAND", "_HEADS"):
            monkeypatch.setattr(bands, name, (each + results + 0.5) / total)
        return [each.op_type for each in banded(model, NANO).graph].count(kind)

    assert found(needs[1], needs[2]) == 1
    assert found(needs[1] - 1, needs[2]) == 2
    assert found(needs[1] - 1, needs[2] - 1) == 4
    assert found(needs[1] - 1, needs[parts] - 1) == 1


def test_one_window_stays_whole(monkeypatch):
    net = Net(5)
    model = net.model(network(net, 1))
    monkeypatch.setattr(bands, "_WHOLE", 0.1)
    monkeypatch.setattr(bands, "_BAND", 0.1)
    assert groups_of(banded(model, NANO)) == [1]
