"""Functions of one variable that differ from channel to channel: tables for groups of channels."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from agree import assert_agrees, kinds
from tiny import D, N, T, picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise

#: The MLP's hidden units in groups of four, and numbers for each group.
_SPLIT = (
    f"gf = Constant <value_ints = [{N}, {T}, 4, {2 * D // 4}]> ()  gx = Reshape(up, gf)\n"
    "a = Constant <value = float[4,1] {0.5, -0.7, 0.2, 1.1}> ()\n"
    "b = Constant <value = float[4,1] {0.3, 0.1, -0.4, 0.8}> ()\n"
)
_JOIN = f"\nwf = Constant <value_ints = [{N}, {T}, {2 * D}]> ()  active = Reshape(gy, wf)"
#: How the units become others, and how many tables that takes.
CASES = {
    "rational": (
        ("p0 = Mul(gx, a)  p1 = Add(p0, one)  p2 = Mul(p1, gx)  d0 = Mul(gx, b)\n"
         "d1 = Add(d0, one)  d2 = Mul(d1, gx)  da = Abs(d2)  d3 = Add(da, one)\n"
         "gy = Div(p2, d3)"), 4,
    ),
    "slopes": ("gy = PRelu(gx, a)", 4),
    "thresholds": ("gt = Greater(gx, b)  fl = Cast <to = 1> (gt)  gy = Mul(fl, gx)", 4),
    "two alike": (
        "ab = Constant <value = float[4,1] {0.5, 0.2, 0.5, 0.2}> ()  gy = PRelu(gx, ab)", 2,
    ),
    "larger of numbers": ("gy = Max(gx, b)", 4),
}  # fmt: skip


def model(step: str) -> ir.Model:
    return tiny(activation=_SPLIT + step + _JOIN)


@pytest.mark.parametrize("name", CASES)
def test_a_table_for_each_group(name: str) -> None:
    step, tables = CASES[name]
    made = model(step)
    found = kinds(assert_agrees(made, picture(made)))
    assert found.count("Activation") == tables
    assert "Multiply" not in found


def test_groups_move() -> None:
    """What is moved about between two steps keeps its functions."""
    made = model(
        "g0 = PRelu(gx, a)  g1 = Transpose <perm = [0, 2, 1, 3]> (g0)  g2 = Tanh(g1)\n"
        "gy = Transpose <perm = [0, 2, 1, 3]> (g2)"
    )
    assert kinds(assert_agrees(made, picture(made))).count("Activation") == 4


APART = {
    "of scaled elements beside": "gs = Mul(gx, b)  g0 = PRelu(gx, a)  g1 = PRelu(gs, a)",
    "of another tensor beside": (
        "om = MatMul(normal, fc1.weight)  on = Add(om, fc1.bias)  og = Reshape(on, gf)\n"
        "g0 = PRelu(gx, a)  g1 = PRelu(og, a)"
    ),
}


@pytest.mark.parametrize("name", APART)
def test_functions_of_other_elements(name: str) -> None:
    made = model(APART[name] + "  gy = Add(g0, g1)")
    assert kinds(assert_agrees(made, picture(made))).count("Activation") == 8


def test_groups_that_two_axes_tell_apart() -> None:
    """A constant for each of 32 channels, which become two axes: the tables come first."""
    slopes = ", ".join(str(0.1 * (i // 3)) for i in range(2 * D))
    made = tiny(activation=(
        f"sl = Constant <value = float[{2 * D}] {{{slopes}}}> ()  g0 = PRelu(up, sl)\n"
        f"gf = Constant <value_ints = [{N}, {T}, 4, {2 * D // 4}]> ()  g1 = Reshape(g0, gf)\n"
        "g2 = Transpose <perm = [0, 1, 3, 2]> (g1)  g3 = Tanh(g2)"
        f"  wf = Constant <value_ints = [{N}, {T}, {2 * D}]> ()  active = Reshape(g3, wf)"
    ))  # fmt: skip
    assert "Activation" in kinds(assert_agrees(made, picture(made)))


def test_scales_of_channels_are_no_groups() -> None:
    """A product is cheaper than a table for every channel."""
    made = tiny(activation="s = Sigmoid(um)  active = Mul(up, s)")
    found = kinds(assert_agrees(made, picture(made)))
    assert found.count("Activation") == 1
    assert "Multiply" in found


def test_functions_of_tokens_and_channels_are_refused() -> None:
    numbers = ", ".join(str(i % 7 - 3) for i in range(4 * T))
    step = (
        f"t = Constant <value = float[{T},4,1] {{{numbers}}}> ()  gy = PRelu(gx, t)"
    )
    with pytest.raises(UnsupportedOpError, match=r"PRelu.*its constant is not one number"):
        canonicalise(model(step))
