"""Operators of the com.microsoft domain, as ONNX Runtime's transformer optimizer writes them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .on_attention import attention, join_heads, split_heads
from .on_elementwise import binary, sampled, step
from .trace import Tracer, attribute, constant, handles
from .values import Const, Traced, Unfit, View

MICROSOFT = "com.microsoft"
#: Epsilon of SkipLayerNormalization where the node names none.
SKIP_EPSILON = 1e-12


def _given(inputs: list[Traced | None], place: int) -> Traced | None:
    return inputs[place] if place < len(inputs) else None


def _shifted(tracer: Tracer, value: Traced | None, bias: Traced | None) -> Traced | None:
    """``value + bias`` for an optional constant bias."""
    if bias is None:
        return value
    shift = constant(bias, "bias")
    return tracer.view(value).affine(1.0, shift.array.astype(np.float64), shift.name)


def _nothing_else(inputs: list[Traced | None], first: int, what: str) -> None:
    if any(value is not None for value in inputs[first:]):
        raise Unfit(f"it has {what}", "export plain scaled-dot-product attention")


@handles("Gelu", "BiasGelu", domain=MICROSOFT)
def gelu(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """GELU by the error function, after a bias."""
    return [sampled(node, _shifted(tracer, inputs[0], _given(inputs, 1)), "gelu")]


@handles("FastGelu", domain=MICROSOFT)
def fast_gelu(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """GELU by the tanh approximation, after a bias."""
    return [sampled(node, _shifted(tracer, inputs[0], _given(inputs, 1)), "gelu_tanh")]


@handles("QuickGelu", domain=MICROSOFT)
def quick_gelu(_tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """``x * sigmoid(alpha * x)``: SiLU of alpha x, divided by alpha."""
    return [sampled(node, inputs[0], "silu", attribute(node, "alpha", 1.702))]


@handles("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_norm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A residual addition (with a bias), then LayerNorm; the sum is the fourth output."""
    operands = [_shifted(tracer, inputs[0], _given(inputs, 4)), inputs[1]]
    made = [value if isinstance(value, Const) else tracer.view(value) for value in operands]
    total = tracer.view(binary(tracer, step("Add", node), list(made))[0])
    beta = _given(inputs, 3)
    normal = tracer.settler.layer_norm(
        total,
        constant(inputs[2], "gamma"),
        None if beta is None else constant(beta, "beta"),
        attribute(node, "epsilon", SKIP_EPSILON),
    )
    return [normal, normal, normal, total]


@handles("FusedMatMul", domain=MICROSOFT)
def fused_matmul(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A matrix product with transpositions and a factor."""
    from .on_linear import matmul

    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        raise Unfit("it transposes batches")
    operands = []
    for value, flag in zip(inputs, ("transA", "transB"), strict=True):
        if not attribute(node, flag, 0):
            operands.append(value)
        elif isinstance(value, Const):
            operands.append(Const(value.array.swapaxes(-1, -2), value.name))
        else:
            operands.append(tracer.view(value).moved(lambda array: array.swapaxes(-1, -2)))
    alpha = attribute(node, "alpha", 1.0)
    result = matmul(tracer, node, operands)[0]
    if alpha == 1.0:
        return [result]
    return binary(tracer, step("Mul", node), [result, Const(np.asarray(alpha, np.float32))])


@handles("Attention", domain=MICROSOFT)
def packed_attention(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Fused QKV projection and attention: (x, weights [in, 3D], bias [3D])."""
    _nothing_else(inputs, 3, "a mask, a position bias or a cache")
    if attribute(node, "unidirectional", 0) or attribute(node, "do_rotary", 0):
        raise Unfit("it is causal or rotary", "export plain scaled-dot-product attention")
    weight = constant(inputs[1], "weight")
    fused = tracer.settler.linear(
        tracer.view(inputs[0]), weight.array.T, (weight.name, node.name or "")
    )
    fused = tracer.view(_shifted(tracer, fused, _given(inputs, 2)))
    sizes = attribute(node, "qkv_hidden_sizes", None) or [weight.shape[1] // 3] * 3
    ends = np.cumsum(sizes)
    heads = attribute(node, "num_heads", 1)
    q, k, v = (
        split_heads(_columns(fused, int(end) - size, int(end)), heads)
        for size, end in zip(sizes, ends, strict=True)
    )
    return [join_heads(attention(tracer, q, k, v, attribute(node, "scale", None)))]


def _columns(view: View, start: int, end: int) -> View:
    return view.moved(lambda array: array[..., start:end])


@handles("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(
    tracer: Tracer, node: ir.Node, inputs: list[Traced | None]
) -> list[Traced]:
    """Attention of three projections [N, T, D], a bias [3D] optional."""
    _nothing_else(inputs, 4, "a mask, a position bias or a cache")
    if attribute(node, "unidirectional", 0):
        raise Unfit("it is causal", "export plain scaled-dot-product attention")
    heads = attribute(node, "num_heads", 1)
    bias = _given(inputs, 3)
    shift = None if bias is None else constant(bias, "bias")
    views = []
    for place, value in enumerate(inputs[:3]):
        view = tracer.view(value)
        if len(view.shape) == 3:
            if shift is not None:
                width = view.shape[-1]
                part = shift.array[place * width : (place + 1) * width].astype(np.float64)
                view = view.affine(1.0, part, shift.name)
            view = split_heads(view, heads)
        elif len(view.shape) != 4 or shift is not None:
            raise Unfit("its operands are packed", "export plain scaled-dot-product attention")
        views.append(view)
    if len(views) != 3:
        raise Unfit("its operands are packed", "export plain scaled-dot-product attention")
    q, k, v = views
    return [join_heads(attention(tracer, q, k, v, attribute(node, "scale", None)))]
