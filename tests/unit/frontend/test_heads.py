"""Mixtures of heads: attention whose heads a router weighs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from agree import assert_agrees, kinds
from test_errors import one_sentence
from tiny import SOFTMAX, picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise, load
from vitrify.ir import attributes_of, shape_of

DATA = Path(__file__).parents[2] / "data"
SEED = 8
BLOCKS = 2
#: Operation, heads, k and the number of routed heads of each fixture; all normalise.
FIXTURES = {
    "moh_balanced_ts17": ("BalancedHeads", 8, 2, 5),
    "moh_balanced_dynamo18": ("BalancedHeads", 8, 2, 5),
    "moh_one_shared_dynamo20": ("BalancedHeads", 4, 2, 3),
    "moh_plain_ts14": ("RoutedHeads", 4, 2, 4),
    "moh_plain_shared_dynamo18": ("RoutedHeads", 8, 4, 5),
}


def test_every_fixture_is_tested() -> None:
    assert {path.stem for path in DATA.glob("moh_*.onnx")} == set(FIXTURES)


@pytest.mark.parametrize("name", FIXTURES)
def test_export_agrees(name: str) -> None:
    model = load(DATA / f"{name}.onnx")
    shape = [size if isinstance(size, int) else 3 for size in shape_of(model.graph.inputs[0])]
    image = np.random.default_rng(SEED).standard_normal(shape, np.float32)
    canonical = assert_agrees(model, {"image": image})
    operation, heads, k, routed = FIXTURES[name]
    found = [node for node in canonical.graph if node.op_type == operation]
    assert len(found) == BLOCKS
    assert "Attention" not in kinds(canonical)
    for node in found:
        attributes = attributes_of(node)
        assert (attributes["heads"], attributes["k"], attributes["normalize"]) == (heads, k, 1)
        assert node.inputs[3] is not None
        assert shape_of(node.inputs[3])[-1] == routed


# two heads, as many logits as the gate has: of four experts the first two
WEIGHED = SOFTMAX.replace("mixed_t =", "plain_t =").replace(
    "attended = Reshape(mixed_t, joined)", ""
)
GATE = """
    all_logits = MatMul(normal, gate.weight)
    logits3 = Slice(all_logits, first, two_i, axis2)
    shares = Softmax <axis = -1> (logits3)
"""
OUT = "weight = Unsqueeze(shares, last)  mixed_t = Mul(plain_t, weight)\n"
JOIN = "attended = Reshape(mixed_t, joined)"


def test_all_heads_weighed() -> None:
    model = tiny(softmax=WEIGHED + GATE + OUT + JOIN)
    canonical = assert_agrees(model, picture(model))
    node = next(node for node in canonical.graph if node.op_type == "RoutedHeads")
    assert attributes_of(node)["k"] == 2


def test_squared_weights_are_a_product() -> None:
    squares = OUT.replace("(plain_t, weight)", "(plain_t, w2)")
    squares = squares.replace("mixed_t", "w2 = Mul(weight, weight)  mixed_t")
    model = tiny(softmax=WEIGHED + GATE + squares + JOIN)
    found = kinds(assert_agrees(model, picture(model)))
    assert "RoutedHeads" not in found
    assert found[found.index("Attention") + 2 :][:3] == ["Softmax", "Activation", "Multiply"]


UNSUPPORTED = {
    "sigmoid": GATE.replace("Softmax <axis = -1>", "Sigmoid") + "sorted_, i = TopK(shares, two_i)\n"
    + OUT.replace("shares", "sorted_") + JOIN,
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_weights_are_refused(name: str) -> None:
    model: ir.Model = tiny(softmax=WEIGHED + UNSUPPORTED[name])
    with pytest.raises(UnsupportedOpError, match="weighs heads by something else") as caught:
        canonicalise(model)
    one_sentence(caught.value)
