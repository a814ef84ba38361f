"""Positions that depend on queries, and heads that lie beside the images of a batch."""

import numpy as np
import onnx_ir as ir
import pytest
import tiny as t
from agree import assert_agrees, kinds
from tiny import picture, tiny

#: Width of a head, lines and columns of the map of tokens.
HEAD, SIDE = t.D // t.HEADS, 2


def table(name: str, *shape: int) -> str:
    """ONNX text of a constant of floats."""
    rng = np.random.default_rng(len(name))
    numbers = ",".join(f"{x:.2f}" for x in rng.normal(size=np.prod(shape)))
    sizes = ",".join(map(str, shape))
    return f"{name} = Constant <value = float[{sizes}] {{{numbers}}}> ()\n"


TABLES = table("line_table", SIDE, SIDE, HEAD) + table("column_table", SIDE, SIDE, HEAD)
#: MViTv2: images, then heads.
APART = (
    TABLES + f"""
    form5 = Constant <value_ints = [{t.N}, {t.HEADS}, {SIDE}, {SIDE}, {HEAD}]> ()
    form6 = Constant <value_ints = [{t.N}, {t.HEADS}, {SIDE}, {SIDE}, {SIDE}, {SIDE}]> ()
    form4 = Constant <value_ints = [{t.N}, {t.HEADS}, {t.T}, {t.T}]> ()
    axis4 = Constant <value_ints = [4]> ()  axis5 = Constant <value_ints = [5]> ()
    q5 = Reshape(q, form5)
    by_line = Einsum <equation = "byhwc,hkc->byhwk"> (q5, line_table)
    by_column = Einsum <equation = "byhwc,wkc->byhwk"> (q5, column_table)
    wide_line = Unsqueeze(by_line, axis5)  wide_column = Unsqueeze(by_column, axis4)
    qs = Mul(q, scale)  raw = MatMul(qs, k)  raw6 = Reshape(raw, form6)
    part = Add(raw6, wide_line)  second = Add(part, wide_column)
    scores = Reshape(second, form4)
    """
)
#: SAM: heads are images.
TOGETHER = (
    TABLES + f"""
    rows3 = Constant <value_ints = [{t.N * t.HEADS}, {t.T}, {HEAD}]> ()
    keys3 = Constant <value_ints = [{t.N * t.HEADS}, {HEAD}, {t.T}]> ()
    form4 = Constant <value_ints = [{t.N * t.HEADS}, {SIDE}, {SIDE}, {HEAD}]> ()
    square = Constant <value_ints = [{t.N * t.HEADS}, {t.T}, {t.T}]> ()
    back = Constant <value_ints = [{t.N}, {t.HEADS}, {t.T}, {t.T}]> ()
    axis3 = Constant <value_ints = [3]> ()  axis4 = Constant <value_ints = [4]> ()
    qr = Reshape(q, rows3)  kr = Reshape(k, keys3)  q4r = Reshape(qr, form4)
    by_line = Einsum <equation = "bhwc,hkc->bhwk"> (q4r, line_table)
    by_column = Einsum <equation = "bhwc,wkc->bhwk"> (q4r, column_table)
    wide_line = Unsqueeze(by_line, axis4)  wide_column = Unsqueeze(by_column, axis3)
    both = Add(wide_line, wide_column)  positions = Reshape(both, square)
    qs = Mul(qr, scale)  raw = MatMul(qs, kr)  sums = Add(raw, positions)
    chosen = Softmax <axis = -1> (sums)  weights = Reshape(chosen, back)
    """
)
VALUES = t.SOFTMAX.replace("weights = Softmax <axis = -1> (scores)", "")


def made(model: ir.Model) -> list[str]:
    return kinds(assert_agrees(model, picture(model)))


@pytest.mark.parametrize(("scores", "values"), [(APART, t.SOFTMAX), (TOGETHER, VALUES)])
def test_positions_of_lines_and_columns_are_a_part_of_the_attention(scores, values):
    found = made(tiny(scores=scores, softmax=values))
    assert found.count("RelativeAttention") == 1
    assert found.count("Product") == 2
    assert {"Softmax", "Unfold", "Fold"}.isdisjoint(found)
    # queries are not computed again for their scale
    assert found.count("Linear") == made(tiny()).count("Linear")


def test_other_positions_stay_sums_of_scores():
    scores = APART.replace("part = Add(raw6, wide_line)", "part = Mul(raw6, wide_line)")
    found = made(tiny(scores=scores))
    assert "RelativeAttention" not in found
    assert "Softmax" in found


def pooled(name: str, stride: int, turned: bool) -> str:
    """ONNX text of a depthwise convolution of each head of ``{name}3``."""
    back = [0, 1, 3, 2] if turned else [0, 1, 2, 3]
    return table(f"{name}_kernel", HEAD, 1, 3, 3) + f"""
    {name}_maps = Constant <value_ints = [{t.N * t.HEADS}, {HEAD}, {SIDE}, {SIDE}]> ()
    {name}_form = Constant <value_ints = [{t.N}, {t.HEADS}, {HEAD}, {(SIDE // stride) ** 2}]> ()
    {name}4 = Reshape({name}3, heads_form)
    {name}t = Transpose <perm = [0, 2, 3, 1]> ({name}4)
    {name}_in = Reshape({name}t, {name}_maps)
    {name}_out = Conv <group = {HEAD}, pads = [1, 1, 1, 1], strides = [{stride}, {stride}]>
        ({name}_in, {name}_kernel)
    {name}_heads = Reshape({name}_out, {name}_form)
    {name} = Transpose <perm = {back}> ({name}_heads)
    """


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_each_head_is_one_of_all_channels(stride):
    queries = t.PROJECT.partition("k4 = ")[0]
    project = queries + pooled("k", stride, False) + pooled("v", stride, True)
    found = made(tiny(project=project))
    assert found.count("Conv") == 2
    assert "Unfold" not in found
