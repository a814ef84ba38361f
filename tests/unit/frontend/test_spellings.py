"""One block in every spelling that no exporter of the fixtures uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny as t
from agree import assert_agrees, kinds
from tiny import picture, tiny

from vitrify.frontend import load

NINE_OPS = """
    mu = ReduceMean <keepdims = 1> (x, last)
    d = Sub(x, mu)
    {square}
    var = ReduceMean <keepdims = 1> (sq, last)
    ve = Add(var, epsilon)
    sd = Sqrt(ve)
    {quotient}
    scaled = Mul(xh, norm.weight)
    normal = Add(scaled, norm.bias)
"""
OLD_NINE_OPS = """
    mu = ReduceMean <axes = [2]> (x)
    d = Sub(x, mu)  d2 = Sub(x, mu)
    sq = Pow(d2, two)
    var = ReduceMean <axes = [-1]> (sq)
    ve = Add(epsilon, var)
    sd = Sqrt(ve)
    xh = Div(d, sd)
    scaled = Mul(norm.weight, xh)
    normal = Add(norm.bias, scaled)
"""
FUSED = "m = MatMul(normal, qkv.weight)  packed = Add(qkv.bias, m)\n"
PERMUTED = (
    FUSED
    + """
    p5 = Reshape(packed, packed_form)
    p = Transpose <perm = [2, 0, 3, 1, 4]> (p5)
"""
)
TURN = "k = Transpose <perm = [0, 1, 3, 2]> (kk)\n"
SLICED = (
    FUSED
    + """
    i8 = Constant <value_ints = [8]> ()  i16 = Constant <value_ints = [16]> ()
    i24 = Constant <value_ints = [24]> ()
    q3 = Slice(packed, first, i8, axis2)
    k3 = Slice(packed, i8, i16, axis2)
    v3 = Slice(packed, i16, i24, axis2)
    q4 = Reshape(q3, heads_form)   q = Transpose <perm = [0, 2, 1, 3]> (q4)
    k4 = Reshape(k3, heads_form)   k = Transpose <perm = [0, 2, 3, 1]> (k4)
    v4 = Reshape(v3, heads_form)   v = Transpose <perm = [0, 2, 1, 3]> (v4)
"""
)
# images and heads in one axis, heads first, as some hand-written models have it
HEADS_FIRST = """
    qm = MatMul(normal, q.weight)  q3 = Add(qm, q.bias)
    km = MatMul(normal, k.weight)  k3 = Add(km, k.bias)
    vm = MatMul(normal, v.weight)  v3 = Add(vm, v.bias)
    flat = Constant <value_ints = [-1, 4, 4]> ()
    q4 = Reshape(q3, heads_form)  q5 = Transpose <perm = [2, 0, 1, 3]> (q4)  q = Reshape(q5, flat)
    k4 = Reshape(k3, heads_form)  k5 = Transpose <perm = [2, 0, 3, 1]> (k4)  k = Reshape(k5, flat)
    v4 = Reshape(v3, heads_form)  v5 = Transpose <perm = [2, 0, 1, 3]> (v4)  v = Reshape(v5, flat)
"""
HEADS_FIRST_SOFTMAX = """
    weights = Softmax <axis = 2> (scores)
    mixed = MatMul(weights, v)
    split_form = Constant <value_ints = [2, -1, 4, 4]> ()
    mixed_5 = Reshape(mixed, split_form)
    mixed_t = Transpose <perm = [1, 2, 0, 3]> (mixed_5)
    attended = Reshape(mixed_t, joined)
"""
SPELLINGS: dict[str, dict[str, str]] = {
    "plain": {},
    "norm: square by Mul": {
        "norm": NINE_OPS.format(square="sq = Mul(d, d)", quotient="xh = Div(d, sd)")
    },
    "norm: reciprocal": {
        "norm": NINE_OPS.format(
            square="sq = Pow(d, two)", quotient="r = Reciprocal(sd)  xh = Mul(d, r)"
        )
    },
    "norm: no bias": {
        "norm": "normal = LayerNormalization <axis = 2, epsilon = 1e-5> (x, norm.weight)"
    },
    "qkv: split": {
        "project": PERMUTED + """
            qs, ks, vs = Split <axis = 0> (p, ones3)
            q = Squeeze(qs, first)  kk = Squeeze(ks, first)  v = Squeeze(vs, first)
        """ + TURN
    },
    "qkv: gather": {
        "project": PERMUTED + """
            i0 = Constant <value_int = 0> ()  i1 = Constant <value_int = 1> ()
            i2 = Constant <value_int = 2> ()
            q = Gather <axis = 0> (p, i0)  kk = Gather <axis = 0> (p, i1)
            v = Gather <axis = 0> (p, i2)
        """ + TURN
    },
    "qkv: slice": {"project": SLICED},
    "qkv: heads before images": {"project": HEADS_FIRST, "softmax": HEADS_FIRST_SOFTMAX},
    "qkv: Gemm on flat tokens": {
        "project": """
            flat_form = Constant <value_ints = [-1, 8]> ()
            flat = Reshape(normal, flat_form)
            packed2 = Gemm <alpha = 0.5, beta = 2.0> (flat, qkv.weight, qkv.bias)
            p5 = Reshape(packed2, packed_form)
            p = Transpose <perm = [2, 0, 3, 1, 4]> (p5)
            qs, ks, vs = Split <axis = 0> (p, ones3)
            q = Squeeze(qs, first)  kk = Squeeze(ks, first)  v = Squeeze(vs, first)
        """ + TURN
    },
    "scale: divisor on scores": {"scores": "raw = MatMul(q, k)  scores = Div(raw, divisor)"},
    "scale: on q": {"scores": "qs2 = Mul(q, scale)  scores = MatMul(qs2, k)"},
    "scale: on k": {"scores": "ks2 = Div(k, divisor)  scores = MatMul(q, ks2)"},
    "scale: on both": {
        "scores": "qs2 = Mul(q, quarter)  ks2 = Mul(quarter, k)  scores = MatMul(qs2, ks2)"
    },
    "scale: none": {"scores": "scores = MatMul(q, k)"},
    "scores: mask of zeros": {
        "scores": "raw = MatMul(q, k)  sc = Mul(raw, scale)  scores = Add(sc, mask)"
    },
    "softmax: PyTorch's guard": {
        "softmax": "w = Softmax <axis = -1> (scores)  n = IsNaN(w)\n"
        "nought = Constant <value_float = 0.0> ()  weights = Where(n, nought, w)\n"
        + t.SOFTMAX.partition("(scores)")[2]
    },
    "attention: scaled and shifted output": {
        "residual": "am = Mul(attended, gain)  aa = Add(am, norm.bias)\n"
        + t.RESIDUAL.replace("attended", "aa")
    },
    "residual: LayerScale": {
        "residual": "pm = MatMul(attended, proj.weight)  pb = Add(pm, proj.bias)\n"
        "projected = Mul(pb, gain)  y = Add(projected, x)"
    },
    "residual: Sub": {
        "residual": "pm = MatMul(attended, proj.weight)  pb = Add(pm, proj.bias)\n y = Sub(x, pb)"
    },
    "pool: slice": {"pool": "zs = Slice(z, first, axis1, axis1)  pooled = Squeeze(zs, axis1)"},
    "pool: last token": {
        "pool": "m1 = Constant <value_int = -1> ()  pooled = Gather <axis = 1> (z, m1)"
    },
    "pool: mean": {"pool": "pooled = ReduceMean <keepdims = 0> (z, axis1)"},
    "pool: mean of some": {
        "pool": "e4 = Constant <value_ints = [4]> ()  zs = Slice(z, axis1, e4, axis1)\n"
        "zm = ReduceMean <keepdims = 1> (zs, axis1)  pooled = Squeeze(zm, axis1)"
    },
    "pool: average pool": {
        "pool": "zt = Transpose <perm = [0, 2, 1]> (z)  za = GlobalAveragePool(zt)\n"
        "pooled = Flatten(za)"
    },
    "pool: norm of the last token": {
        "pool": "zn = LayerNormalization <axis = -1> (z, norm.weight, norm.bias)\n"
        "m1 = Constant <value_int = 3> ()  pooled = Gather <axis = 1> (zn, m1)"
    },
    "head: tanh, then the mean of two": {
        "head": "l1 = Gemm(pooled, head.weight, head.bias)  l2 = MatMul(pooled, head.weight)\n"
        "l3 = Add(l1, l2)  l4 = Div(l3, two)  logits = Tanh(l4)"
    },
    "image: normalised in the graph": {
        "embed": "im = Sub(image, mean)  is = Div(im, std)\n" + t.EMBED.replace("image", "is")
    },
    "image: BatchNormalization": {
        "embed": t.EMBED.replace("columns = Reshape(grid", "bn = BatchNormalization"
        " (grid, gain, norm.bias, embed.bias, variance)  columns = Reshape(bn")
    },
    "contrib: SkipLayerNormalization": {
        "residual": "pm = MatMul(attended, proj.weight)\n"
        "n2, u1, u2, y = com.microsoft.SkipLayerNormalization <epsilon = 1e-5>"
        " (x, pm, norm.weight, norm.bias, proj.bias)",
        "mlp": "um = MatMul(n2, fc1.weight)  up = Add(um, fc1.bias)",
    },
    "contrib: Attention": {
        "project": "attended = com.microsoft.Attention <num_heads = 2>"
        " (normal, qkv.weight, qkv.bias)",
        "scores": "", "softmax": "",
    },
    "contrib: MultiHeadAttention": {
        "project": "qm = MatMul(normal, q.weight)  km = MatMul(normal, k.weight)\n"
        "vm = MatMul(normal, v.weight)\n"
        "attended = com.microsoft.MultiHeadAttention <num_heads = 2, scale = 0.3>"
        " (qm, km, vm, qkv.bias)",
        "scores": "", "softmax": "",
    },
    "contrib: FusedMatMul": {
        "scores": "kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
        "scores = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (q, kt)",
        "mlp": "um = com.microsoft.FusedMatMul <alpha = 0.7> (y, fc1.weight)\n"
        "up = Add(um, fc1.bias)",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_spelling_agrees(name: str) -> None:
    model = tiny(opset=18, **SPELLINGS[name])
    canonical = assert_agrees(model, picture(model))
    assert kinds(canonical).count("Attention") == 1


def test_old_operator_sets() -> None:
    reduce = "pooled = ReduceMean <axes = [1], keepdims = 0> (z)"
    for opset in (13, 17):
        model = tiny(opset=opset, norm=OLD_NINE_OPS, pool=reduce)
        canonical = assert_agrees(model, picture(model))
        assert "LayerNorm" in kinds(canonical)


def test_attention_operator_of_opset_23() -> None:
    fused = "m = MatMul(normal, qkv.weight)  packed = Add(qkv.bias, m)\n"
    split = "q3, k3, v3 = Split <axis = 2> (packed, thirds)\n"
    call = "attended = Attention <q_num_heads = 2, kv_num_heads = 2> (q3, k3, v3)"
    model = tiny(opset=23, project=fused + split + call, scores="", softmax="")
    assert_agrees(model, picture(model))


def test_bytes_as_image() -> None:
    cast = "fl = Cast <to = 1> (image)  im = Div(fl, scale255)  ic = Sub(im, mean)\n"
    model = tiny(
        embed=cast + t.EMBED.replace("image", "ic"), image=f"uint8[{t.N},{t.C},{t.SIZE},{t.SIZE}]"
    )
    canonical = assert_agrees(model, picture(model))
    assert canonical.graph.inputs[0].dtype == ir.DataType.UINT8


def test_channels_last_picture_is_still_one_patch_embedding() -> None:
    """Patches cut from a transposed picture only permute the weights."""
    cut = """
        form = Constant <value_ints = [3, 3, 2, 4, 2, 4]> ()
        cells = Reshape(image, form)
        moved = Transpose <perm = [0, 2, 4, 5, 3, 1]> (cells)
        rows_form = Constant <value_ints = [3, 4, 48]> ()
        pixels = Reshape(moved, rows_form)
        w_form = Constant <value_ints = [8, 48]> ()
        w2 = Reshape(embed.weight, w_form)  w3 = Transpose <perm = [1, 0]> (w2)
        em = MatMul(pixels, w3)  ea = Add(em, embed.bias)
        x = Add(ea, position)
    """
    model = tiny(embed=cut)
    assert kinds(assert_agrees(model, picture(model)))[:2] == ["PatchEmbed", "Tokens"]


def test_norm_of_patches_before_their_projection() -> None:
    """As lucidrains' vit-pytorch does: an identity patch embedding, LayerNorm, Linear."""
    cut = """
        form = Constant <value_ints = [3, 3, 2, 4, 2, 4]> ()
        cells = Reshape(image, form)
        moved = Transpose <perm = [0, 2, 4, 3, 5, 1]> (cells)
        rows_form = Constant <value_ints = [3, 4, 48]> ()
        pixels = Reshape(moved, rows_form)
        ones48 = Constant <value = float[48] {1,2,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,
            1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,3}> ()
        pn = LayerNormalization <axis = -1> (pixels, ones48)
        w_form = Constant <value_ints = [8, 48]> ()
        w2 = Reshape(embed.weight, w_form)  w3 = Transpose <perm = [1, 0]> (w2)
        em = MatMul(pn, w3)  ea = Add(em, embed.bias)
        x = Add(ea, position)
    """
    model = tiny(embed=cut)
    found = kinds(assert_agrees(model, picture(model)))
    assert found[:4] == ["PatchEmbed", "LayerNorm", "Linear", "Tokens"]


@pytest.mark.parametrize("before", [True, False], ids=["position before", "position after"])
def test_tokens_fold_into_one_node(before: bool) -> None:
    """Three patches get a class token in front and a position before or after."""
    patches = """
        grid = Conv <strides = [4, 4]> (image, embed.weight, embed.bias)
        columns = Reshape(grid, tokens)
        patches = Transpose <perm = [0, 2, 1]> (columns)
        form = Constant <value_ints = [3, 1, 8]> ()  many = Expand(cls, form)
    """
    tail = {
        True: "placed = Add(patches, position)  x = Concat <axis = 1> (many, placed)",
        False: "t5 = Concat <axis = 1> (many, patches)\n"
        "longer = Concat <axis = 1> (cls, position)  x = Add(t5, longer)",
    }[before]
    one = "z5 = Constant <value_int = 1> ()  pooled = Gather <axis = 1> (x, z5)"
    dropped = dict.fromkeys(
        ("norm", "project", "scores", "softmax", "residual", "mlp", "activation", "out"), ""
    )
    mean = "pooled = ReduceMean <keepdims = 0> (x, axis1)"
    model = tiny(opset=18, embed=patches + tail, pool=mean, **dropped)
    found = assert_agrees(model, picture(model))
    assert kinds(found) == ["PatchEmbed", "Tokens", "MeanPool", "Linear"]
    # one token alone needs no sequence: its position is a bias
    model = tiny(opset=18, embed=patches + tail, pool=one, **dropped)
    found = assert_agrees(model, picture(model))
    assert kinds(found) == ["PatchEmbed", "SelectToken", "Linear"]


def test_half_precision_model(tmp_path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    file = tmp_path / "half.onnx"
    onnx.save(convert_float_to_float16(ir.to_proto(tiny()), keep_io_types=True), file)
    half = load(file)
    assert any(value.dtype == ir.DataType.FLOAT16 for value in half.graph.initializers.values())
    # the float16 original rounds every tensor
    assert_agrees(half, picture(half), tolerance=2e-2)


def test_quantised_model(tmp_path: Path) -> None:
    """QDQ nodes fall away; what stays is the float model with rounded weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    model = tiny()
    feeds = picture(model)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [feeds]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    source, target = tmp_path / "float.onnx", tmp_path / "qdq.onnx"
    onnx.save(ir.to_proto(model), source)
    quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    quantised = ir.load(target)
    assert any(node.op_type == "QuantizeLinear" for node in quantised.graph)
    assert_agrees(quantised, feeds, tolerance=5e-2)
