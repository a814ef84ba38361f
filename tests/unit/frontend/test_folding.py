"""What does nothing, and what is written in a roundabout way, folds into plain attention."""

from __future__ import annotations

import pytest
import tiny as t
from agree import assert_agrees, kinds
from tiny import picture, tiny

from vitrify.frontend import canonicalise

FUSED = "m = MatMul(normal, qkv.weight)  packed = Add(qkv.bias, m)\n"
HEADS = """
    q4 = Reshape(q3, heads_form)   q = Transpose <perm = [0, 2, 1, 3]> (q4)
    k4 = Reshape(k3, heads_form)   k = Transpose <perm = [0, 2, 3, 1]> (k4)
    v4 = Reshape(v3, heads_form)   v = Transpose <perm = [0, 2, 1, 3]> (v4)
"""
PICKED = "\n".join(
    f"i{place} = Constant <value_int = {number}> ()  {name} = SequenceAt({{}}, i{place})"
    for place, (name, number) in enumerate([("q3", 0), ("k3", 1), ("v3", -1)])
).replace("{}", "parts")
PERMUTED = "p5 = Reshape(packed, packed_form)  p = Transpose <perm = [2, 0, 3, 1, 4]> (p5)\n"
UNBOUND = (
    PERMUTED + "parts = SplitToSequence <axis = 0, keepdims = 0> (p)\n"
    + PICKED.replace("q3 =", "q =").replace("k3 =", "kk =").replace("v3 =", "v =")
    + "\nk = Transpose <perm = [0, 1, 3, 2]> (kk)"
)  # fmt: skip
MASK = "mk = Constant <value = bool[1, 1, 1, 4] {{{}}}> ()  ni = Constant <value_float = {}> ()\n"
RAW = "raw = MatMul(q, k)  sc = Mul(raw, scale)\n"

SPELLINGS: dict[str, dict[str, str]] = {
    "chunk": {
        "project": FUSED + "n8 = Constant <value_int = 8> ()\n"
        "parts = SplitToSequence <axis = 2> (packed, n8)\n" + PICKED + HEADS
    },
    "chunk by sizes": {
        "project": FUSED + "n8 = Constant <value_ints = [8, 8, 8]> ()\n"
        "parts = SplitToSequence <axis = -1> (packed, n8)\n" + PICKED + HEADS
    },
    "unbind": {"project": FUSED + UNBOUND},
    "unbind, axes kept": {
        "project": FUSED + PERMUTED + "parts = SplitToSequence <axis = 0> (p)\n"
        + PICKED.replace("q3 =", "qs =").replace("k3 =", "ks =").replace("v3 =", "vs =")
        + "\nq = Squeeze(qs, first)  kk = Squeeze(ks, first)  v = Squeeze(vs, first)\n"
        "k = Transpose <perm = [0, 1, 3, 2]> (kk)"
    },
    "sequence of three": {
        "project": FUSED + "q0, k0, v0 = Split <axis = 2> (packed, thirds)\n"
        "parts = SequenceConstruct(q0, k0, v0)\n" + PICKED + HEADS
    },
    "einsum with dots": {
        "scores": 'raw = Einsum <equation = "...id,...dj->...ij"> (q, k)  scores = Mul(raw, scale)'
    },
    "einsum without a result": {
        "mlp": 'um = Einsum <equation = "...c,cf"> (y, fc1.weight)  up = Add(um, fc1.bias)'
    },
    "einsum with dots on one side": {
        "mlp": 'um = Einsum <equation = "... c, c f -> ... f"> (y, fc1.weight)\n'
        "up = Add(um, fc1.bias)"
    },
    "mask that hides nothing": {
        "scores": RAW + MASK.format("1, 1, 1, 1", -10000.0) + "scores = Where(mk, sc, ni)"
    },
    "mask that hides nothing, inverted": {
        "scores": RAW + MASK.format("0, 0, 0, 0", -10000.0) + "scores = Where(mk, ni, sc)"
    },
    "pad of nothing": {
        "embed": "pd = Constant <value_ints = [0, 0, 0, 0, 0, 0, 0, 0]> ()\n"
        "im = Pad(image, pd)\n" + t.EMBED.replace("image", "im")
    },
    "scale of each head": {
        "scores": "hs = Constant <value = float[1, 2, 1, 1] {0.5, 0.25}> ()\n"
        "raw = MatMul(q, k)  scores = Mul(raw, hs)"
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_folds_into_plain_attention(name: str) -> None:
    model = tiny(opset=18, **SPELLINGS[name])
    canonical = assert_agrees(model, picture(model))
    assert kinds(canonical) == kinds(canonicalise(tiny(opset=18)))


@pytest.mark.parametrize("opset", [12, 13, 17])
def test_unbind_of_older_operator_sets(opset: int) -> None:
    norm = "normal = Mul(x, norm.weight)"
    model = tiny(opset=opset, project=FUSED + UNBOUND, norm=norm)
    assert "Attention" in kinds(assert_agrees(model, picture(model)))


def test_mask_that_hides_a_key() -> None:
    """Also of the scores' own value: what is hidden weighs nothing."""
    for text in (
        MASK.format("1, 1, 0, 1", -10000.0) + "scores = Where(mk, sc, ni)",
        MASK.format("0, 0, 1, 0", -3.4e38) + "scores = Where(mk, ni, sc)",
    ):
        model = tiny(opset=18, scores=RAW + text)
        assert "CrossAttention" in kinds(assert_agrees(model, picture(model)))


NO_MASKS = {
    "a number that weighs": RAW + MASK.format("1, 1, 0, 1", -1.0) + "scores = Where(mk, sc, ni)",
    "all keys of a query": (
        RAW + "mk = Constant <value = bool[4, 4] {0,0,0,0,1,1,1,1,1,1,1,1,1,1,1,1}> ()\n"
        "ni = Constant <value_float = -10000.0> ()  scores = Where(mk, sc, ni)"
    ),
    "a number by the scores": "raw = MatMul(q, k)  scores = Div(one, raw)",
}


@pytest.mark.parametrize("name", NO_MASKS)
def test_what_is_neither_scale_nor_mask(name: str) -> None:
    model = tiny(opset=18, scores=NO_MASKS[name])
    assert "Softmax" in kinds(assert_agrees(model, picture(model)))


ATTENTION = "attended = Attention <q_num_heads = 2, kv_num_heads = 2> (q3, k3, v3, mk)"
SPLIT = FUSED + "q3, k3, v3 = Split <axis = 2> (packed, thirds)\n"


@pytest.mark.parametrize(
    ("mask", "hides"),
    [("float[4, 4] {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}", False),
     ("bool[4, 4] {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}", False),
     ("bool[4, 4] {1,0,1,1,1,1,1,1,1,1,0,1,1,1,1,1}", True),
     ("float[4, 4] {0,0,0,0,0,0,1,0,0,-2,0,0,0,0,0,0}", True)],
)  # fmt: skip
def test_mask_of_the_attention_operator(mask: str, hides: bool) -> None:
    text = f"mk = Constant <value = {mask}> ()\n"
    model = tiny(opset=23, project=SPLIT + text + ATTENTION, scores="", softmax="")
    found = kinds(assert_agrees(model, picture(model)))
    assert ("CrossAttention" in found) == hides
    assert ("Attention" in found) != hides


def test_mask_that_hides_everything() -> None:
    text = "mk = Constant <value = bool[4, 4] {0,0,0,0,1,1,1,1,1,1,1,1,1,1,1,1}> ()\n"
    model = tiny(opset=23, project=SPLIT + text + ATTENTION, scores="", softmax="")
    assert "Softmax" in kinds(assert_agrees(model, picture(model)))  # zeros, by ONNX
