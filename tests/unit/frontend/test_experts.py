"""Mixtures of experts as one operator, and what a mixture must not be."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
import tiny as t
from agree import assert_agrees, kinds
from test_errors import one_sentence
from tiny import picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise
from vitrify.frontend.on_moe import dequantise
from vitrify.frontend.values import Const
from vitrify.ir import attributes_of, shape_of

ROUTER = """
    logits3 = MatMul(y, gate.weight)
    shares = Softmax <axis = -1> (logits3)
    best, chosen = TopK <axis = -1> (shares, two_i)
    table = ScatterElements <axis = -1> (no_weights, chosen, best)
"""
EXPERTS = """
    y4 = Unsqueeze(y, axis1)
    hm = MatMul(y4, experts.w1)  hb = Add(hm, experts.b1)  h = Relu(hb)
    om = MatMul(h, experts.w2)  o = Add(om, experts.b2)
"""
MIX = """
    by_expert = Transpose <perm = [0, 2, 1]> (table)
    weight = Unsqueeze(by_expert, last)
    weighed = Mul(o, weight)
    mixed_experts = ReduceSum <keepdims = 0> (weighed, axis1)
    z = Add(y, mixed_experts)
"""
LOGITS = "logits3 = MatMul(y, gate.weight)  logits2 = Reshape(logits3, flat_experts)\n"
MOE = (
    LOGITS
    + """
    moe = com.microsoft.MoE <{attributes}> (y, logits2, experts.fc1, experts.bias1, experts.fc2,
        experts.bias2{more})
    z = Add(y, moe)
"""
)
QMOE = LOGITS + """
    moe = com.microsoft.QMoE <{attributes}> (y, logits2, bytes1, experts.scale1, experts.bias1,
        bytes2, experts.scale2, experts.bias2{more})
    z = Add(y, moe)
"""  # fmt: skip


def mixture(
    *, router: str = ROUTER, experts: str = EXPERTS, mix: str = MIX, task: str = ""
) -> ir.Model:
    return tiny(mlp=router, activation=experts, out=mix, task=task)


def fused(text: str, attributes: str, more: str = "") -> ir.Model:
    body = text.format(attributes=attributes, more=more)
    return tiny(mlp=body, activation="", out="")


def experts_of(model: ir.Model) -> tuple[int, int, str]:
    nodes = [node for node in model.graph if node.op_type == "Experts"]
    assert len(nodes) == 1
    found = attributes_of(nodes[0])
    return found["k"], found["normalize"], found["kind"]


def test_plain_mixture() -> None:
    model = mixture()
    assert experts_of(assert_agrees(model, picture(model))) == (2, 0, "relu")


@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(
    ("activation", "kind"), [("relu", "relu"), ("gelu", "gelu_tanh"), ("silu", "silu")]
)
def test_moe_operator(activation: str, kind: str, k: int, normalize: int) -> None:
    attributes = f'k = {k}, activation_type = "{activation}"'
    model = fused(MOE, f"{attributes}, normalize_routing_weights = {normalize}")
    assert experts_of(assert_agrees(model, picture(model), tolerance=2e-6)) == (k, normalize, kind)


def test_softmax_before_the_operator() -> None:
    """The operator takes the softmax of its input all the same."""
    text = MOE.replace("gate.weight)", "gate.weight)  l1 = Softmax(logits3)")
    model = fused(text.replace("Reshape(logits3", "Reshape(l1"), "k = 2")
    canonical = assert_agrees(model, picture(model))
    assert experts_of(canonical) == (2, 0, "relu")
    assert "Softmax" in kinds(canonical)


#: No mixtures, although they look like it: what is computed, and what it becomes.
NO_MIXTURES = {
    "all experts, weighed over the tokens": (
        {"router": "logits3 = MatMul(y, gate.weight)  table = Softmax <axis = 1> (logits3)"},
        ["Softmax", "Multiply", "Multiply", "Multiply", "Multiply"],
    ),
    "the largest of the experts": (
        {"mix": "top = ReduceMax <keepdims = 0> (o, axis1)  z = Add(y, top)"}, ["Pool"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_MIXTURES)
def test_all_experts_computed(name: str) -> None:
    slots, wanted = NO_MIXTURES[name]
    model = mixture(**slots)
    found = kinds(assert_agrees(model, picture(model)))
    assert "Experts" not in found
    assert [kind for kind in found if kind in ("Softmax", "Multiply", "Pool")] == wanted


def test_moe_operator_without_biases() -> None:
    text = MOE.replace("experts.bias1", "").replace(",\n        experts.bias2{more}", "")
    model = fused(text, "k = 2")
    assert experts_of(assert_agrees(model, picture(model))) == (2, 0, "relu")


def test_moe_operator_with_sizes_exchanged() -> None:
    # as ONNX Runtime's older versions wrote them; the numbers lie in memory as in the newer ones
    text = MOE.replace("experts.fc1", "experts.w1").replace("experts.fc2", "experts.w2")
    model = fused(text, "k = 2")
    assert experts_of(assert_agrees(model, picture(model))) == (2, 0, "relu")


@pytest.mark.parametrize("more", ["", ", , , , zero1, zero2"], ids=["middle", "zero points"])
def test_qmoe_operator(more: str) -> None:
    model = fused(QMOE, 'k = 2, expert_weight_bits = 8, activation_type = "silu"', more)
    assert experts_of(assert_agrees(model, picture(model))) == (2, 1, "silu")


def test_blocks_of_quantised_rows() -> None:
    # ONNX Runtime computes this one with 8-bit activations, so the numbers are compared instead
    rng = np.random.default_rng(t.SEED)
    stored = rng.integers(0, 256, (4, 6, 32)).astype(np.uint8)
    scale = rng.uniform(0.1, 2.0, (4, 6, 2))
    zero = rng.integers(0, 256, (4, 6, 2)).astype(np.uint8)
    found = dequantise(Const(stored), Const(scale), Const(zero), 16)
    for expert, row, column in np.ndindex(stored.shape):
        number = float(stored[expert, row, column]) - zero[expert, row, column // 16]
        wanted = number * scale[expert, row, column // 16]
        assert found[expert, row, column] == pytest.approx(wanted)


def test_batch_of_one_task_for_all() -> None:
    chosen = "gate_of_task = Gather <axis = 0> (gates, task)\n"
    router = chosen + ROUTER.replace("MatMul(y, gate.weight)", "MatMul(y, gate_of_task)")
    model = mixture(router=router, task="int64")
    for task in range(t.TASKS):
        feeds = {**picture(model), "task": np.array(task)}
        canonical = assert_agrees(model, feeds)
    assert "TaskLinear" in kinds(canonical)
    assert shape_of(canonical.graph.inputs[1]) == ()


UNSUPPORTED: dict[str, tuple[dict[str, str], str]] = {
    "gated unit": (
        {"fused": MOE, "attributes": 'k = 2, activation_type = "swiglu"'},
        r"\(com\.microsoft\.MoE\).*activation 'swiglu' is none of relu, gelu, silu",
    ),
    "fc3": (
        {"fused": MOE, "attributes": "k = 2", "more": ", experts.fc1"},
        r"\(com\.microsoft\.MoE\).*gated units",
    ),
    "sparse mixer": ({"fused": MOE, "attributes": "k = 2, use_sparse_mixer = 1"}, "sparse mixer"),
    "five choices": ({"fused": MOE, "attributes": "k = 5"}, "k 5 is not 1 to 4"),
    "four bits": ({"fused": QMOE, "attributes": "k = 2"}, r"\(com\.microsoft\.QMoE\).*no 8-bit"),
    "packed": (
        {"fused": QMOE, "attributes": "k = 2, expert_weight_bits = 8, weights_prepacked = 1"},
        "packed for one device",
    ),
    "weights beside the logits": (
        {
            "fused": QMOE, "more": ", , , , , , , logits2",
            "attributes": "k = 2, expert_weight_bits = 8",
        },
        "router has weights of its own",
    ),
    "sigmoid": (
        {"router": ROUTER.replace("Softmax <axis = -1>", "Sigmoid")},
        r"\(TopK\).*something else than the softmax of the router's logits",
    ),
    "capacity": (
        {
            "router": ROUTER.replace("table =", "all =")
            + "rank = CumSum(all, one_i)  few = Less(rank, one)  mask = Cast <to = 1> (few)\n"
            "table = Mul(all, mask)"
        },
        r"\(Softmax\).*something else than the softmax.*no capacity limit",
    ),
    "softmax over tokens": (
        {"router": ROUTER.replace("shares = Softmax <axis = -1>", "shares = Softmax <axis = 1>")},
        r"\(TopK\).*something else than the softmax of the router's logits",
    ),
    "weights as activations": (
        {"mix": MIX.replace("z = Add(y, mixed_experts)", "z0 = Add(y, mixed_experts)\n"
                            "bw = Slice(shares, first, axis1, axis2)  z = Add(z0, bw)")},
        r"\(Softmax\).*no softmax of attention scores or of a router",
    ),
    "choices as activations": (
        {"mix": MIX.replace("z = Add(y, mixed_experts)", "z0 = Add(y, mixed_experts)\n"
                            "cf = Cast <to = 1> (chosen)  z = Add(z0, cf)")},
        r"\(Softmax\).*(no softmax of|used for something else)",
    ),
    "experts of one layer": (
        {"experts": "y4 = Unsqueeze(y, axis1)  o = MatMul(y4, square)"},
        r"\(Softmax\).*weighs something else than experts",
    ),
    "one expert less": (
        {"mix": MIX.replace("mixed_experts = ReduceSum <keepdims = 0> (weighed, axis1)",
                            "fewer = Slice(weighed, first, two_i, axis1)\n"
                            "mixed_experts = ReduceSum <keepdims = 0> (fewer, axis1)")},
        r"\(Softmax\).*2 experts do not share 4 logits",
    ),
    "experts multiplied": (
        {"mix": MIX.replace("z = Add(y, mixed_experts)", "z = Mul(y, mixed_experts)")},
        r"\(Mul\)",
    ),
    "largest of the experts": (
        {"mix": MIX.replace("ReduceSum <keepdims = 0>", "ReduceMax <keepdims = 0>")},
        r"\(Softmax\).*do not share 4 logits",
    ),
    "channels weighed unevenly": (
        {
            "mix": MIX.replace("weight = Unsqueeze(by_expert, last)",
                               "w1 = Unsqueeze(by_expert, last)  wide = Expand(w1, wide_form)\n"
                               "weight = Mul(wide, gain)")
        },
        r"\(Softmax\).*weighs the channels of a token unevenly",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str) -> None:
    slots, words = UNSUPPORTED[name]
    slots = dict(slots)
    if "fused" in slots:
        model = fused(slots["fused"], slots["attributes"], slots.get("more", ""))
    else:
        model = mixture(**slots)
    with pytest.raises(UnsupportedOpError) as caught:
        canonicalise(model)
    text = one_sentence(caught.value)
    assert re.match(r"Node '\w+' \([\w.]+\) is not supported: ", text), text
    assert re.search(words, text), text


TASKS_MISUSED = {
    "added": ("wt = Cast <to = 1> (task)  z = Add(y, wt)", r"\(\w+\).*"),
    "bias of tokens": ("tb = Gather <axis = 0> (gains, task)  z = Add(y, tb)", "linear layer"),
    "compared": ("c = Equal(task, one_i)  f = Cast <to = 1> (c)  z = Mul(y, f)", r"\(Equal\)"),
}


@pytest.mark.parametrize("name", TASKS_MISUSED)
def test_task_used_otherwise(name: str) -> None:
    text, words = TASKS_MISUSED[name]
    model = tiny(mlp="", activation="", out=text, task="int64")
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        canonicalise(model)
    one_sentence(caught.value)
