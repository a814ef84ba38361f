"""Operators that compute on integers, rewritten as float ones between (de)quantisers.

ONNX's QLinear operators, ONNX Runtime's of the domain com.microsoft, dynamic quantisation and
QONNX's ``Quant`` all become what :mod:`vitrify.frontend.saturation` reads.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vitrify.ir.quantisers import Quantiser

from .edit import Editor, Rule, Value, constant_of, rewrite
from .values import Unfit

MICROSOFT = "com.microsoft"
QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")


def dequantised(edit: Editor, x: Value, scale: Value, zero: Value, axis: int = 1) -> Value:
    """``(x - zero) * scale``: computed when all three are constants."""
    arrays = [constant_of(value) for value in (x, scale, zero)]
    stored, step, shift = arrays
    if x is None or stored is None or step is None or (zero is not None and shift is None):
        if step is None or step.size > 1:
            return edit.op("DequantizeLinear", x, scale, zero, axis=axis)
        return edit.op("DequantizeLinear", x, scale, zero)
    form = [1] * stored.ndim
    each = max(step.size, 1 if shift is None else shift.size)
    if each > 1:
        form[axis] = each
    less, wide = (
        np.zeros(()) if array is None else array.reshape(form if array.size > 1 else ())
        for array in (shift, step)
    )
    name = (x.name or "").removesuffix("_quantized")
    return edit.constant((stored.astype(np.float64) - less) * wide, name)


def quantised(edit: Editor, x: Value, scale: Value, zero: Value) -> Value:
    """A quantiser behind ``x``."""
    return edit.op("QuantizeLinear", x, scale, zero)


def _bias(edit: Editor, bias: Value, *scales: Value) -> Value:
    """An int32 bias in the units of the products."""
    if bias is None:
        return None
    found = [constant_of(value) for value in (bias, *scales)]
    arrays = [array.astype(np.float64) for array in found if array is not None]
    if len(arrays) < len(found):
        raise Unfit("its bias or its scales are no constants", node=edit.node)
    product = functools.reduce(np.multiply, arrays)
    return edit.constant(product, (bias.name or "").removesuffix("_quantized"))


def _conv(edit: Editor) -> Sequence[Value]:
    x, xs, xz, w, ws, wz, ys, yz, bias, *_ = edit.inputs
    float_bias = _bias(edit, bias, xs, ws)
    attributes = {name: attribute.value for name, attribute in edit.node.attributes.items()}
    made = edit.op(
        "Conv", dequantised(edit, x, xs, xz), dequantised(edit, w, ws, wz, 0), float_bias,
        **attributes,
    )  # fmt: skip
    return [quantised(edit, made, ys, yz)]


def _matmul(edit: Editor) -> Sequence[Value]:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero, *_ = edit.inputs
    made = edit.op(
        "MatMul", dequantised(edit, a, a_scale, a_zero), dequantised(edit, b, b_scale, b_zero, -1)
    )
    return [quantised(edit, made, scale, zero)]


def _gemm(edit: Editor) -> Sequence[Value]:
    a, a_scale, a_zero, b, b_scale, b_zero, bias, scale, zero, *_ = edit.inputs
    alpha, turned = edit.attribute("alpha", 1.0), edit.attribute("transB", 0)
    factor = edit.constant(float(alpha))
    made = edit.op(
        "Gemm",
        dequantised(edit, a, a_scale, a_zero),
        dequantised(edit, b, b_scale, b_zero, 0 if turned else 1),
        _bias(edit, bias, a_scale, b_scale, factor),
        alpha=alpha, transA=edit.attribute("transA", 0), transB=turned,
    )  # fmt: skip
    return [made if scale is None else quantised(edit, made, scale, zero)]


def _binary(op_type: str) -> Rule:
    def rule(edit: Editor) -> Sequence[Value]:
        a, a_scale, a_zero, b, b_scale, b_zero, scale, zero, *_ = edit.inputs
        operands = dequantised(edit, a, a_scale, a_zero), dequantised(edit, b, b_scale, b_zero)
        return [quantised(edit, edit.op(op_type, *operands), scale, zero)]

    return rule


def _unary(op_type: str, *attributes: str) -> Rule:
    def rule(edit: Editor) -> Sequence[Value]:
        x, x_scale, x_zero, scale, zero, *_ = edit.inputs
        given = {
            name: edit.node.attributes[name].value
            for name in attributes
            if name in edit.node.attributes
        }
        made = edit.op(op_type, dequantised(edit, x, x_scale, x_zero), **given)
        return [quantised(edit, made, scale, zero)]

    return rule


def _reduce_mean(edit: Editor) -> Sequence[Value]:
    x, x_scale, x_zero, scale, zero, *_ = edit.inputs
    axes = edit.constant(np.array(edit.attribute("axes", []), np.int64))
    operand, keep = dequantised(edit, x, x_scale, x_zero), edit.attribute("keepdims", 1)
    if edit.graph.opset_imports.get("", 1) >= 18:
        made = edit.op("ReduceMean", operand, axes, keepdims=keep)
    else:
        made = edit.op("ReduceMean", operand, axes=edit.attribute("axes", []), keepdims=keep)
    return [quantised(edit, made, scale, zero)]


def _global_pool(edit: Editor) -> Sequence[Value]:
    if edit.attribute("channels_last", 0):
        raise Unfit("it pools with channels last", "export the model channels first", edit.node)
    return _unary("GlobalAveragePool")(edit) or ()


def _softmax(edit: Editor) -> Sequence[Value]:
    x, x_scale, x_zero, scale, zero, *_ = edit.inputs
    operand, axis = dequantised(edit, x, x_scale, x_zero), edit.attribute("axis", -1)
    if edit.attribute("opset", 13) < 13:
        # flattened to two axes, as it was then
        flat = edit.op("Softmax", edit.op("Flatten", operand, axis=axis), axis=1)
        return [quantised(edit, edit.op("Reshape", flat, edit.op("Shape", operand)), scale, zero)]
    return [quantised(edit, edit.op("Softmax", operand, axis=axis), scale, zero)]


def _concat(edit: Editor) -> Sequence[Value]:
    scale, zero, *rest = edit.node.inputs
    triples = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    parts = [dequantised(edit, x, step, shift) for x, step, shift in triples]
    return [quantised(edit, edit.op("Concat", *parts, axis=edit.attribute("axis", 0)), scale, zero)]


def _product_of_integers(edit: Editor) -> Sequence[Value]:
    a, b, a_zero, b_zero, *_ = edit.inputs
    one = edit.constant(1.0)
    operand = _number(edit, a, a_zero)
    if edit.node.op_type == "ConvInteger":
        attributes = {name: attribute.value for name, attribute in edit.node.attributes.items()}
        return [edit.op("Conv", operand, dequantised(edit, b, one, b_zero, 0), **attributes)]
    return [edit.op("MatMul", operand, dequantised(edit, b, one, b_zero, -1))]


def _number(edit: Editor, x: Value, zero: Value) -> Value:
    """``x - zero`` as floats, whatever ``x`` is."""
    number = edit.op("Cast", x, to=ir.DataType.FLOAT.value)
    if zero is None:
        return number
    return edit.op("Sub", number, edit.op("Cast", zero, to=ir.DataType.FLOAT.value))


def _dynamic(edit: Editor) -> Sequence[Value]:
    """Scale one and zero point zero: it rounds what is in its range, and that is everything."""
    x = edit.inputs[0]
    return [x, edit.constant(1.0), edit.constant(np.zeros((), np.uint8))]


def _dynamic_matmul(edit: Editor) -> Sequence[Value]:
    a, b, b_scale, b_zero, bias, *_ = edit.inputs
    made = edit.op("MatMul", a, dequantised(edit, b, b_scale, b_zero, -1))
    return [made if bias is None else edit.op("Add", made, bias)]


def _matmul_to_float(edit: Editor) -> Sequence[Value]:
    a, b, a_scale, b_scale, a_zero, b_zero, bias, *_ = edit.inputs
    operand = edit.op("Mul", _number(edit, a, a_zero), a_scale)
    made = edit.op("MatMul", operand, dequantised(edit, b, b_scale, b_zero, -1))
    return [made if bias is None else edit.op("Add", made, bias)]


def _attention(edit: Editor) -> Sequence[Value]:
    x, weight, bias, x_scale, w_scale, mask, x_zero, w_zero, past, *_ = edit.inputs
    attributes = {name: attribute.value for name, attribute in edit.node.attributes.items()}
    operands = dequantised(edit, x, x_scale, x_zero), dequantised(edit, weight, w_scale, w_zero, 1)
    return [edit.op("Attention", *operands, bias, mask, past, domain=MICROSOFT, **attributes)]


def _quant(edit: Editor) -> Sequence[Value]:
    """QONNX: ``(clip(round(x / scale + zero)) - zero) * scale`` to any number of bits."""
    x, *others = edit.inputs[:4]
    scale, zero, bits = (constant_of(value) for value in others)
    if scale is None or zero is None or bits is None or bits.size != 1:
        raise Unfit("its scale, zero point and bits are no constants", node=edit.node)
    width, signed = float(bits.reshape(())), edit.attribute("signed", 1)
    low = -(2.0 ** (width - 1)) if signed else 0.0
    high = 2.0 ** (width - 1) - 1 if signed else 2.0**width - 1
    if edit.attribute("narrow", 0):
        low, high = (low + 1, high) if signed else (low, high - 1)
    step, shift = scale.astype(np.float64), zero.astype(np.float64)
    stored = constant_of(x)
    if stored is not None:
        rounding = _ROUNDINGS.get(str(edit.attribute("rounding_mode", "ROUND")).upper())
        if rounding is None:
            raise Unfit("it rounds in a way that is not known", node=edit.node)
        code = np.clip(rounding(stored.astype(np.float64) / step + shift), low, high)
        return [edit.constant((code - shift) * step, (x.name if x else "") or "")]
    bounds = [edit.constant((bound - shift) * step) for bound in (low, high)]
    made = edit.op("Clip", x, *bounds)
    made.meta["saturates"] = Quantiser((x.name if x else "") or "", step, shift, low, high)
    return [made]


def _dequantise(edit: Editor) -> Sequence[Value]:
    x, scale, zero, *_ = edit.inputs
    return [dequantised(edit, x, scale, zero, edit.attribute("axis", 1))]


_ROUNDINGS = {
    "ROUND": np.rint, "CEIL": np.ceil, "FLOOR": np.floor, "ROUND_TO_ZERO": np.trunc,
    "HALF_EVEN": np.rint, "DOWN": np.trunc,
}  # fmt: skip

RULES: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    ("", "MatMulInteger"): _product_of_integers,
    ("", "ConvInteger"): _product_of_integers,
    ("", "DynamicQuantizeLinear"): _dynamic,
    (MICROSOFT, "QLinearConv"): _conv,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu", "alpha"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _global_pool,
    (MICROSOFT, "QLinearReduceMean"): _reduce_mean,
    (MICROSOFT, "QLinearSoftmax"): _softmax,
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_matmul,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_to_float,
    (MICROSOFT, "QAttention"): _attention,
    (MICROSOFT, "QuantizeLinear"): lambda e: [quantised(e, *e.inputs[:3])],
    (MICROSOFT, "DequantizeLinear"): _dequantise,
    **{(domain, "Quant"): _quant for domain in QONNX},
    **{(domain, "IntQuant"): _quant for domain in QONNX},
}


def without_integers(model: ir.Model) -> None:
    """Replace every operator that computes on integers, in place."""
    rewrite(model, RULES)
