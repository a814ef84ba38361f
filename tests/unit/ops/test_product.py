"""Products of two activations, and softmax around them, down to the golden machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.errors import CapacityError, ModelError, UnsupportedOpError
from vitrify.compiler.quantise import quantise
from vitrify.ir import attributes_of, evaluate, shape_of
from vitrify.ops.attention.bands import banded
from vitrify.ops.product import bands
from vitrify.quant.compare import compare

#: Layout, heads, groups of rows, width of y.
CASES = {
    "rows": ("nt", 2, 1, DIM), "columns": ("nn", 1, 1, 4), "tokens": ("tn", 2, 1, DIM),
    "narrow heads": ("tn", 8, 1, DIM), "another width": ("tn", 2, 1, 6), "groups": ("tn", 2, 2, 24),
    "rows of groups": ("nt", 4, 2, DIM), "odd heads": ("tn", 3, 1, 15),
}


def product(net: Net, layout: str, heads: int, groups: int, width: int) -> ir.Value:
    x = net.norm(net.tokens(0), "norm")
    dim = DIM if DIM % heads == 0 else width
    left = net.linear(x, dim if layout != "nn" else heads * 4 // groups, "left")
    right = net.linear(x, width, "right")
    y = net.builder.emit(
        "Product", left, right, name="product", heads=heads, groups=groups, scale=0.3, layout=layout
    )
    return net.linear(y, 7, "last")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_product(case: str, batch: int) -> None:
    net = Net(3)
    check(net, product(net, *CASES[case]), batch=batch)


def channels(
    net: Net, heads: int = 2, groups: int = 1, *, normed: bool = False, epsilon: float = 0.0,
    scale: float = 1.0,
) -> ir.Value:
    """Attention over channels, XCiT's if ``normed``."""
    x = net.norm(net.tokens(0), "norm")
    parts = [net.linear(x, DIM, f"attention.{part}") for part in "qkv"]
    if normed:
        gamma = np.full(DIM, 0.5, np.float32)
        parts[:2] = [
            net.builder.emit("RMSNorm", part, gamma, name=f"norm.{i}", axis="tokens",
                             groups=groups, epsilon=epsilon)
            for i, part in enumerate(parts[:2])
        ]
    scores = net.builder.emit(
        "Product", *parts[:2], name="scores", heads=heads, groups=groups, scale=scale, layout="tn"
    )
    weights = net.builder.emit("Softmax", scores, name="softmax", axis="channels", groups=heads)
    y = net.builder.emit(
        "Product", parts[2], weights, name="product", heads=heads, groups=groups, scale=1.0,
        layout="nt",
    )
    return net.linear(y, DIM, "last")


GRAPHS = {
    "channels": lambda net: channels(net),
    "channels of groups": lambda net: channels(net, 4, 2),
    "cross covariance": lambda net: channels(net, normed=True),
    "with epsilon": lambda net: channels(net, normed=True, epsilon=0.1),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 2])
def test_softmax(name: str, batch: int) -> None:
    net = Net(4)
    check(net, GRAPHS[name](net), batch=batch)


def over_tokens(net: Net, heads: int = 2, groups: int = 1, layout: str = "tn") -> ir.Value:
    """Keys that softmax normalises over the tokens (CoaT, efficient attention)."""
    x = net.norm(net.tokens(0), "norm")
    q, k, v = (net.linear(x, DIM, f"attention.{part}") for part in "qkv")
    weights = net.builder.emit("Softmax", k, name="softmax", axis="tokens", groups=groups)
    options = {"heads": heads, "groups": groups, "scale": 1.0}
    y = net.builder.emit("Product", weights, v, name="context", layout=layout, **options)
    return net.linear(
        net.builder.emit("Product", q, y, name="product", layout="nn", **options), DIM, "last"
    )


@pytest.mark.parametrize(("heads", "groups"), [(2, 1), (4, 2), (1, 1)])
def test_softmax_over_tokens(heads: int, groups: int) -> None:
    net = Net(5)
    check(net, over_tokens(net, heads, groups))


@pytest.mark.parametrize("softmax", [True, False])
def test_heads_apart_where_all_do_not_fit(softmax: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four at a time; keys and values of the others are not there."""
    def make(net: Net) -> ir.Value:
        if softmax:
            return over_tokens(net, 4)
        return product(net, "tn", 4, 1, DIM)

    net = Net(5)
    model, images = net.model(make(net)), net.images(2)
    need = max(
        bands._need(node, NANO, 2) for node in model.graph
        if node.op_type == "Product" and attributes_of(node)["layout"] == "tn"
    )
    for name in ("WHOLE", "HEADS"):
        monkeypatch.setattr(bands, name, need / NANO.token_bytes)
    split = banded(model, NANO)
    of = [n for n in split.graph if n.op_type == "Product" and attributes_of(n)["layout"] == "tn"]
    assert [attributes_of(node)["heads"] for node in of] == [2, 2]
    assert max(int(shape_of(n.inputs[0])[2]) for n in of if n.inputs[0] is not None) == DIM // 2
    names = [value.name or "" for value in model.graph.outputs]
    exact, found = (evaluate(each, {"image": images}, names) for each in (model, split))
    np.testing.assert_allclose(found[names[0]], exact[names[0]], atol=1e-6)
    macs = []
    for _ in range(2):
        again = Net(5)
        macs.append(check(again, make(again)).macs)
        monkeypatch.undo()
    assert macs[0] == macs[1]


@pytest.mark.parametrize("form", ["weighs", "tensor", "tensor over channels"])
def test_the_largest_logits_are_not_clipped(form: str) -> None:
    """They are few, and softmax weighs them most."""
    net = Net(5)
    x = net.linear(net.tokens(0), DIM, "logits")
    axis = "channels" if form == "tensor over channels" else "tokens"
    y = net.builder.emit("Softmax", x, name="softmax", axis=axis, groups=1)
    if form == "weighs":
        y = net.builder.emit(
            "Product", y, x, name="context", layout="tn", heads=1, groups=1, scale=1.0
        )
    model, images = net.model(net.linear(y, 7, "last")), net.images(300)
    images[1, :, : images.shape[2] // 2, : images.shape[3] // 2] *= 4
    graph = quantise(model, images, arch=NANO)
    found = {each.name: each for each in compare(model, graph, images, NANO)}["logits"]
    assert found.clipped == 0


def test_a_scale_of_each_head() -> None:
    net = Net(6)
    x = net.norm(net.tokens(0), "norm")
    q, k = (net.linear(x, DIM, f"attention.{part}") for part in "qk")
    y = net.builder.emit(
        "Product", q, k, name="scores", heads=2, groups=1, scale=1.0, layout="tn"
    )
    scale = np.repeat([[0.5, 2.0]], DIM // 2, axis=1).astype(np.float32)
    y = net.builder.emit("Affine", y, scale, np.zeros((1, 1), np.float32), name="temperature")
    check(net, net.linear(y, 7, "last"))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("batch", [1, 2])
def test_shares_of_tokens_as_a_tensor(groups: int, batch: int) -> None:
    net = Net(7)
    x = net.linear(net.norm(net.tokens(0), "norm"), DIM, "x")
    y = net.builder.emit("Softmax", x, name="softmax", axis="tokens", groups=groups)
    check(net, net.linear(y, 7, "last"), batch=batch)


def test_an_epsilon_of_rows_over_tokens() -> None:
    """int16 rows are as fine as it lets them be."""
    net = Net(12)
    check(net, channels(net, normed=True, epsilon=0.5))
    with pytest.raises(ModelError, match=r"'norm\.0': its epsilon of 1e\+04 is larger"):
        check(net := Net(12), channels(net, normed=True, epsilon=1e4))


def over(net: Net, groups: int = 1, gamma: float = 1.0) -> tuple[ir.Value, ir.Value]:
    """Rows of channels, and these normalised over the rows."""
    x = net.builder.emit("Unfold", net.linear(net.tokens(0), 4 * DIM, "wide"), name="x", parts=4)
    return x, net.builder.emit(
        "RMSNorm", x, np.full(DIM, gamma, np.float32), name="over", axis="tokens", groups=groups,
        epsilon=1e-3,
    )


@pytest.mark.parametrize(("layout", "groups"), [("tn", 2), ("nt", 1), ("nn", 1)])
def test_a_product_that_does_not_sum_over_what_is_normalised(layout: str, groups: int) -> None:
    net = Net(8)
    x, y = over(net, groups)
    if layout == "nn":
        x = net.linear(x, int(shape_of(x)[1]), "scores")
    operands = (x, y) if layout == "nn" else (y, x)
    z = net.builder.emit(
        "Product", *operands, name="z", heads=1, groups=1, scale=1.0, layout=layout
    )
    check(net, net.linear(z, 7, "last"))


@pytest.mark.parametrize("gamma", [0.5, 0.0, -0.5])
def test_a_factor_of_a_norm_over_tokens(gamma: float) -> None:
    """A product takes a positive one into its multiplier."""
    net = Net(8)
    x, y = over(net, gamma=gamma)
    z = net.builder.emit("Product", y, x, name="z", heads=1, groups=1, scale=1.0, layout="tn")
    check(net, net.linear(z, 7, "last"))


def test_a_result_that_is_normalised_over_tokens() -> None:
    net = Net(8)
    x, y = over(net)
    z = net.builder.emit("Product", y, x, name="z", heads=1, groups=1, scale=1.0, layout="tn")
    check(net, y, net.linear(z, 7, "last"))


def test_softmax_of_what_is_normalised_over_tokens() -> None:
    net = Net(8)
    x, y = over(net)
    weights = net.builder.emit("Softmax", x, name="softmax", axis="tokens", groups=1)
    z = net.builder.emit("Product", weights, y, name="z", heads=1, groups=1, scale=1.0, layout="tn")
    with pytest.raises(UnsupportedOpError, match=r"'z'.* that 'over' normalises over tokens"):
        check(net, z)


def test_a_core_without_row_sums() -> None:
    net = Net(9)
    with pytest.raises(CapacityError, match="without 'row_sums'"):
        check(net, channels(net, normed=True), arch=replace(NANO, name="mine", row_sums=False))


def weighed(net: Net, shift: float = 0.0, kind: str | None = "sigmoid") -> ir.Value:
    """A function of scores instead of their softmax."""
    x = net.norm(net.tokens(0), "norm")
    q, k, v = (net.linear(x, DIM, f"attention.{part}") for part in "qkv")
    options = {"heads": 2, "groups": 1}
    y = net.builder.emit("Product", q, k, name="scores", layout="nt", scale=0.3, **options)
    if shift:
        one = np.ones((1, 1), np.float32)
        y = net.builder.emit("Affine", y, 0.8 * one, shift * one, name="shifted")
    y = y if kind is None else net.activation(y, "weights", kind)
    y = net.builder.emit("Product", y, v, name="product", layout="nn", scale=1.0, **options)
    return net.linear(y, 7, "last")


@pytest.mark.parametrize(("shift", "kind", "buffered"), [
    (0.0, "relu", True), (-1.5, "sigmoid", True), (0.0, None, True), (-1.5, None, False),
])
def test_a_function_of_scores(shift: float, kind: str | None, buffered: bool) -> None:
    net = Net(11)
    program = check(net, weighed(net, shift, kind))
    assert ("product.scores[0]" in [layer.name for layer in program.layers]) == buffered


def shares(net: Net, groups: int = 2) -> ir.Value:
    """Softmax that everything reads."""
    x = net.linear(net.norm(net.tokens(), "norm"), DIM, "x")
    y = net.builder.emit("Softmax", x, name="softmax", axis="channels", groups=groups)
    other = net.linear(net.activation(y, "act"), 7, "other")
    return net.add(net.linear(y, 7, "last"), other, "sum")


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("batch", [1, 2])
def test_softmax_as_a_tensor(groups: int, batch: int) -> None:
    net = Net(12)
    check(net, shares(net, groups), batch=batch)


INVERSE = "c = Constant <value_float = 0.01> ()  s = Add(x, c)  y = Reciprocal(s)"


def divided(net: Net, heads: int = 2, groups: int = 1, kind: str = INVERSE) -> ir.Value:
    """Linear attention with softplus as kernel: the sums of its weights divide."""
    x = net.norm(net.tokens(0), "norm")
    q, k = (net.activation(net.linear(x, DIM, f"{n}.in"), n, "softplus") for n in ("q", "k"))
    v, ones = net.linear(x, DIM, "v"), np.ones((int(shape_of(x)[1]), heads), np.float32)
    one = net.builder.emit("ConstantRows", x, ones, name="ones")
    options = {"heads": heads, "groups": groups, "scale": 1.0}
    made = []
    for name, y in (("values", v), ("total", one)):
        context = net.builder.emit("Product", k, y, name=f"{name}.k", layout="tn", **options)
        made.append(net.builder.emit("Product", q, context, name=name, layout="nn", **options))
    inverse = net.activation(made[1], "inverse", kind)
    y = net.builder.emit("Multiply", made[0], inverse, name="product")
    return net.linear(y, 7, "last")


@pytest.mark.parametrize(("heads", "groups"), [(2, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("batch", [1, 2])
def test_division_by_the_sum_of_a_row(heads: int, groups: int, batch: int) -> None:
    net = Net(13)
    program = check(net, divided(net, heads, groups), batch=batch)
    assert "total.copy" not in [layer.name for layer in program.layers]


def test_a_function_that_is_no_division() -> None:
    net = Net(13)
    program = check(net, divided(net, kind="y = Sqrt(x)"))
    assert "total.copy" in [layer.name for layer in program.layers]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("kind", "bias", "divides"), [
    ("relu", 0.0, True),
    # they are never all zero
    ("sigmoid", 0.0, False),
    # a sum of more than the weights
    ("relu", 0.5, False),
])
def test_weights_divided_by_their_sum(kind: str, bias: float, divides: bool, batch: int) -> None:
    """Attention by weights that may all be zero: a product makes the sums of 16 bits."""
    net = Net(13)
    x = net.norm(net.tokens(0), "norm")
    # positive, so that no sum is small beside the others
    q, k = (net.activation(net.linear(x, DIM, f"{name}.in"), name, "softplus") for name in "qk")
    v = net.linear(x, DIM, "v")
    options = {"heads": 2, "groups": 1}
    scores = net.builder.emit("Product", q, k, name="scores", layout="nt", scale=0.3, **options)
    weights = net.activation(scores, "weights", kind)
    ones = np.kron(np.eye(2), np.ones((1, int(shape_of(weights)[-1]) // 2))).astype(np.float32)
    total = net.builder.emit("Linear", weights, ones, np.full(2, bias, np.float32), name="total")
    values = net.builder.emit("Product", weights, v, name="values", layout="nn", scale=1.0,
                              **options)
    y = net.builder.emit("Multiply", values, net.activation(total, "inverse", INVERSE), name="mul")
    program = check(net, net.linear(y, 7, "last"), batch=batch, least=30)
    assert ("total" not in {layer.name for layer in program.layers}) == divides


def test_a_core_without_row_sums_does_not_divide() -> None:
    net = Net(13)
    with pytest.raises(CapacityError, match="without 'row_sums'"):
        check(net, divided(net), arch=replace(NANO, name="mine", row_sums=False), least=0)


def test_a_scale_behind_softmax() -> None:
    net = Net(15)
    x = net.linear(net.tokens(0), DIM, "x")
    y = net.builder.emit("Softmax", x, name="softmax", axis="tokens", groups=1)
    y = net.builder.emit("Product", y, x, name="z", heads=1, groups=1, scale=2.0, layout="tn")
    with pytest.raises(UnsupportedOpError, match="it scales what a softmax weighs"):
        check(net, y)
