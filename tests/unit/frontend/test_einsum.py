"""Einsum beyond a product of two matrices: sums, elementwise factors, several tensors, mixing."""

from __future__ import annotations

import math

import pytest
import tiny as t
from agree import assert_agrees, kinds, within
from tiny import picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise


def constant(name: str, *shape: int) -> str:
    places = range(math.prod(shape))
    values = ", ".join(f"{0.4 * ((7 * place) % 11 - 5):.2f}" for place in places)
    return f"{name} = Constant <value = float[{', '.join(map(str, shape))}] {{{values}}}> ()\n"


def sums(equation: str, *inputs: str) -> str:
    return f'Einsum <equation = "{equation}"> ({", ".join(inputs)})\n'


UP = "um = MatMul(y, fc1.weight)  u1 = Add(um, fc1.bias)\n"
CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "three tensors": (
        {"mlp": "u1 = " + sums("btc,cf,f->btf", "y", "fc1.weight", "fc1.bias")
         + "up = Add(u1, fc1.bias)"}, ["Activation"],
    ),
    "a number for each row": (
        {"mlp": UP + "gt = " + sums("btc->bt", "y") + "up = " + sums("btf,bt->btf", "u1", "gt")},
        ["Multiply"],
    ),
    "an outer product": (
        {"mlp": UP + "gt = " + sums("btf->bf", "u1") + "ht = " + sums("btf->bt", "u1")
         + "ot = " + sums("bt,bf->btf", "ht", "gt") + "up = Add(u1, ot)"}, ["Multiply"],
    ),
    "sums beside a product": (
        {"mlp": UP + "wt = " + sums("btc,bsf->bf", "y", "u1") + "up = "
         + sums("btf,bf->btf", "u1", "wt")}, ["Multiply"],
    ),
    "a matrix for a batch of one": (
        {"mlp": constant("mm", 1, t.D, 2 * t.D) + "u1 = " + sums("btc,bcf->btf", "y", "mm")
         + "up = Add(u1, fc1.bias)"}, ["Linear", "Activation"],
    ),
    "sums over an axis of one": (
        {"mlp": UP + "mt = ReduceMean <keepdims = 1> (u1, last)\n"
         + "st = " + sums("btf,btf->bt", "u1", "mt") + "up = " + sums("btf,bt->btf", "u1", "st")},
        ["Multiply"],
    ),
    "a matrix over tokens": (
        {"mlp": constant("mm", t.T, t.T) + "my = " + sums("mn,bnc->bmc", "mm", "y")
         + UP.replace("(y,", "(my,").replace("u1", "up")}, ["Mix"],
    ),
    "a matrix over tokens, behind them": (
        {"mlp": constant("mm", t.T, t.T) + "my = " + sums("bnc,mn->bmc", "y", "mm")
         + UP.replace("(y,", "(my,").replace("u1", "up")}, ["Mix"],
    ),
    "a matrix over tokens for each head": (
        {"scores": constant("mm", t.HEADS, t.T, t.T) + "mq = " + sums("hmn,bhnd->bhmd", "mm", "q")
         + "raw = MatMul(mq, k)  scores = Mul(raw, scale)"}, ["Product", "Attention"],
    ),
    "scores turned": (
        {"scores": "st = " + sums("bhqd,bhdk->bhkq", "q", "k")
         + "raw = Transpose <perm = [0, 1, 3, 2]> (st)  scores = Mul(raw, scale)"}, ["Softmax"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_einsum(name: str) -> None:
    slots, wanted = CASES[name]
    model = tiny(**slots)
    found = kinds(assert_agrees(model, picture(model)))
    assert within(wanted, found), found
    assert "Unfold" not in found or "Mix" not in found, found


@pytest.mark.parametrize(
    ("equation", "inputs", "words"),
    [
        ("btt->bt", ("w",), "takes a diagonal"),
        ("btc,cf->btf", ("y",), "does not fit its inputs"),
        ("btf,btf->bt", ("y", "u1"), "axes 'btf' have other sizes in another input"),
    ],
)
def test_refused(equation: str, inputs: tuple[str, ...], words: str) -> None:
    square = "yt = Transpose <perm = [0, 2, 1]> (y)  w = MatMul(y, yt)\n"
    said = "gt = " + sums(equation, *inputs) + "up = " + sums("btf,bt->btf", "u1", "gt")
    model = tiny(mlp=square + UP + said)
    with pytest.raises(UnsupportedOpError, match=words):
        canonicalise(model)
