"""What stands between weights and values goes to the operands of an attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.quant.graphs import DIM, TOKENS, Net
from vitrify.frontend.simplify import simplify
from vitrify.ir import Evaluator, verify

HEADS = 2
KEYS = TOKENS * HEADS
ONE = {"heads": 1, "groups": TOKENS}


def tokens(net: Net) -> ir.Value:
    """The same ones for all."""
    made = [node.outputs[0] for node in net.builder.graph if node.op_type == "Tokens"]
    return made[0] if made else net.tokens(0)


def scores(net: Net) -> ir.Value:
    x = tokens(net)
    q, k = (net.linear(x, DIM, name) for name in "qk")
    return net.builder.emit(
        "Product", q, k, name="scores", heads=HEADS, groups=1, scale=0.3, layout="nt"
    )


def softmax(net: Net, x: ir.Value, groups: int = HEADS) -> ir.Value:
    return net.builder.emit("Softmax", x, name="softmax", axis="channels", groups=groups)


def finished(net: Net, weights: ir.Value) -> ir.Value:
    v = net.linear(tokens(net), DIM, "v")
    y = net.builder.emit(
        "Product", weights, v, name="product", heads=HEADS, groups=1, scale=1.0, layout="nn"
    )
    return net.linear(y, 3, "last")


def mixed(net: Net, x: ir.Value, name: str) -> ir.Value:
    return net.builder.emit(
        "Mix", x, net.normal(1, HEADS, HEADS), net.normal(HEADS), name=name, **ONE
    )


def talking(net: Net, before: bool, behind: bool) -> ir.Value:
    x = scores(net)
    if before:
        x = mixed(net, net.builder.emit("Unfold", x, name="apart", parts=HEADS), "before")
    x = softmax(net, x, 1 if before else HEADS)
    if behind:
        x = x if before else net.builder.emit("Unfold", x, name="apart", parts=HEADS)
        x = mixed(net, x, "behind")
    if before or behind:
        x = net.builder.emit("Fold", x, name="together", rows=HEADS)
    return finished(net, x)


def positions(net: Net) -> tuple[np.ndarray, np.ndarray]:
    """ConViT's: content and positions weighed by a gate for each head."""
    gate = np.array([0.3, 0.6])
    rows = np.exp(net.normal(TOKENS, HEADS, TOKENS))
    rows *= gate[:, None] / rows.sum(axis=-1, keepdims=True)
    return np.repeat(1 - gate, TOKENS)[None], rows.reshape(TOKENS, KEYS)


def gated(net: Net) -> ir.Value:
    """With the division by sums that are one."""
    x, affine = softmax(net, scores(net)), positions(net)
    summed = net.builder.emit("Affine", x, *affine, name="summed")
    ones = np.repeat(np.eye(HEADS), TOKENS, axis=1)
    total = net.builder.emit("Linear", summed, ones, np.zeros(HEADS), name="sum")
    inverse = net.builder.emit("Activation", total, name="inverse", kind="y = Reciprocal(x)")
    weighed = net.builder.emit("Affine", x, *affine, name="weighed")
    return finished(net, net.builder.emit("Multiply", weighed, inverse, name="shares"))


def without_sums(net: Net) -> ir.Value:
    x = softmax(net, scores(net))
    return finished(net, net.builder.emit("Affine", x, *positions(net), name="weighed"))


def normalised(net: Net) -> ir.Value:
    """Kernels divided by their sums: those of another function of the scores."""
    x = net.activation(scores(net), "kernel", "sigmoid")
    ones = np.repeat(np.eye(HEADS), TOKENS, axis=1)
    total = net.builder.emit("Linear", x, ones, np.zeros(HEADS), name="sum")
    inverse = net.builder.emit("Activation", total, name="inverse", kind="y = Reciprocal(x)")
    return finished(net, net.builder.emit("Multiply", x, inverse, name="shares"))


def read_twice(net: Net) -> ir.Value:
    x = scores(net)
    weights = softmax(net, x)
    return net.add(finished(net, weights), net.linear(weights, 3, "other"), "both")


def weighted(net: Net, groups: int = 2, ones: float = 1.0, bias: float = 0.0) -> ir.Value:
    x = tokens(net)
    weights = net.builder.emit(
        "Softmax", net.linear(x, 1, "s"), name="softmax", axis="tokens", groups=groups
    )
    values = net.builder.emit("Multiply", net.linear(x, DIM, "v"), weights, name="weighted")
    matrix = np.full((1, 1, TOKENS // 2), ones), np.full(1, bias)
    y = net.builder.emit("Mix", values, *matrix, name="sum", heads=1, groups=2)
    return net.linear(y, 3, "last")


GRAPHS: dict[str, tuple[Callable[[Net], ir.Value], set[str]]] = {
    "nothing between": (lambda net: talking(net, False, False), {"Product", "Softmax"}),
    "heads talk before": (lambda net: talking(net, True, False), {"Product", "Softmax", "Mix"}),
    "heads talk behind": (lambda net: talking(net, False, True), {"Product", "Softmax", "Fold"}),
    "heads talk": (lambda net: talking(net, True, True), {"Product", "Softmax", "Unfold"}),
    "gated positions": (gated, {"Product", "Softmax", "Activation", "Multiply"}),
    "without sums": (without_sums, {"Product", "Softmax"}),
    "normalised": (normalised, {"CrossAttention"}),
    "read twice": (read_twice, {"CrossAttention"}),
    "one weight a token": (weighted, {"Multiply", "Mix"}),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_numbers(name: str) -> None:
    graph, gone = GRAPHS[name]
    net = Net(2)
    model = net.model(graph(net))
    feeds = {"image": net.images(3)}
    output = model.graph.outputs[0].name or ""
    before = Evaluator(model, [output]).run(feeds)[output]
    simplify(model)
    verify(model)
    after = Evaluator(model, [model.graph.outputs[0].name or ""]).run(feeds)
    np.testing.assert_allclose(next(iter(after.values())), before, rtol=1e-4, atol=1e-5)
    found = {node.op_type for node in model.graph}
    assert not found & gone, found


@pytest.mark.parametrize("other", [{"groups": 1}, {"ones": 0.5}, {"bias": 1.0}], ids=str)
def test_no_sum_of_weighted_tokens(other: dict) -> None:
    net = Net(2)
    model = net.model(weighted(net, **other))
    simplify(model)
    assert {"Multiply", "Mix"} <= {node.op_type for node in model.graph}


def test_the_factor_goes_behind_the_product() -> None:
    net = Net(2)
    model = net.model(normalised(net))
    simplify(model)
    (product,) = [node for node in model.graph if node.op_type == "Multiply"]
    assert product.inputs[0] is not None
    made = product.inputs[0].producer()
    assert made is not None
    assert made.op_type == "Product"
