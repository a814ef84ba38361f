"""Operators that are read by what ONNX says that they compute."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import tiny as t
from agree import assert_agrees, kinds
from tiny import picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise

PACKED = """
    m = MatMul(normal, qkv.weight)  packed = Add(qkv.bias, m)
    parts = Constant <value = int64[{count}] {{{parts}}}> ()
    {names} = Split <axis = 2> (packed, parts)
"""
SEEN = ", ".join(["1, 0, 1, 0", "1, 1, 0, 0", "0, 1, 1, 1", "0, 0, 0, 1"])
#: Attributes of the operator, its further inputs, and what makes these.
ATTENTION = {
    "plain": ("", "", ""),
    "a scale": (", scale = 0.3", "", ""),
    "causal": (", is_causal = 1", "", ""),
    "a cap": (", softcap = 0.5", "", ""),
    "a mask": ("", ", seen", f"seen = Constant <value = bool[4, 4] {{{SEEN}}}> ()"),
}


def attending(
    attributes: str, more: str = "", *, keys: int = t.HEADS, inputs: str = "", **slots: str
) -> ir.Model:
    """A block with the operator of opset 23 in place of products and a softmax."""
    width = t.D // t.HEADS * keys
    names = ["q3", "k3", "v3", *["rest"] * (keys < t.HEADS)]
    parts = [t.D, width, width, *[2 * (t.D - width)] * (keys < t.HEADS)]
    split = PACKED.format(
        count=len(parts), parts=", ".join(map(str, parts)), names=", ".join(names)
    )
    formals = f"q_num_heads = {t.HEADS}, kv_num_heads = {keys}{attributes}"
    call = f"attended = Attention <{formals}> (q3, k3, v3{inputs})"
    return tiny(opset=23, project=f"{split}{more}\n{call}", scores="", softmax="", **slots)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    attributes, inputs, more = ATTENTION[name]
    model = attending(attributes, more, inputs=inputs)
    found = kinds(assert_agrees(model, picture(model)))
    assert ("Attention" in found) == (name in ("plain", "a scale")), found


def test_fewer_heads_of_keys_than_of_queries() -> None:
    model = attending("", keys=1)
    assert_agrees(model, picture(model))


TABLE = ", ".join(f"{0.5 + n / 64}" for n in range(t.T * t.D))
#: What stands for the norm of a block.
FORMS = {
    "a norm of all tokens": f"""
        table = Constant <value = float[4, 8] {{{TABLE}}}> ()
        normal = LayerNormalization <axis = 1> (x, table)
    """,
    "a norm of each channel": "normal = MeanVarianceNormalization <axes = [1]> (x)",
    "an activation": "normal = Shrink <bias = 0.1, lambd = 0.2> (x)",
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    model = tiny(opset=18, norm=FORMS[name])
    assert_agrees(model, picture(model))


def test_what_is_refused_is_the_operator() -> None:
    """Not one of its body's, which the user did not write."""
    model = tiny(opset=18, norm="normal = MeanVarianceNormalization <axes = [0]> (x)")
    with pytest.raises(UnsupportedOpError, match=r"^Node '\w+' \(MeanVarianceNormalization\)"):
        canonicalise(model)


def test_what_is_refused_behind_a_body_is_itself() -> None:
    model = attending(", is_causal = 1", head="logits = Transpose <perm = [2, 0, 1]> (z)", pool="")
    with pytest.raises(UnsupportedOpError, match=r"\(Transpose\)"):
        canonicalise(model)


def test_operator_that_breaks_its_rules_stays_refused() -> None:
    """Its body might make something of it that no other runtime does."""
    turn = "turned = RotaryEmbedding <num_heads = 3> (normal, cs, cs)"
    angles = f"cs = Constant <value = float[{t.N}, {t.T}, 1] {{{', '.join(['1'] * t.N * t.T)}}}> ()"
    project = t.PROJECT.replace("qm = MatMul(normal", f"{angles}\n{turn}\nqm = MatMul(turned")
    with pytest.raises(UnsupportedOpError, match=r"\(RotaryEmbedding\).*does not divide"):
        canonicalise(tiny(opset=23, project=project))
