"""Mixtures of experts as one operator: com.microsoft.MoE and QMoE.

ONNX Runtime's CPU provider defines them: the input named ``router_probs`` holds logits, "gelu" is
the tanh approximation, weights whose middle and last sizes are exchanged (as older versions wrote
them) are read as if they were not, and QMoE always takes the softmax of the chosen logits.  Of
equal logits it prefers the higher expert, the canonical graph the lower.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .on_contrib import MICROSOFT
from .trace import Tracer, attribute, constant, handles
from .values import Const, Traced, Unfit

_ACTIVATIONS = {"relu": "relu", "gelu": "gelu_tanh", "silu": "silu"}
_FIX = "use experts of two linear layers with relu, gelu or silu between them"


def _check(node: ir.Node, third: list[Traced | None]) -> str:
    """The activation; what the canonical operation does not do is refused."""
    kind = attribute(node, "activation_type", "relu")
    if kind not in _ACTIVATIONS:
        raise Unfit(f"its activation {kind!r} is none of {', '.join(_ACTIVATIONS)}", _FIX)
    if any(value is not None for value in third):
        raise Unfit("its experts are gated units (it has the weights fc3)", _FIX)
    if attribute(node, "use_sparse_mixer", 0):
        raise Unfit("its router is a sparse mixer", "use the softmax of the router's logits")
    return _ACTIVATIONS[kind]


def _emit(
    tracer: Tracer, node: ir.Node, inputs: list[Traced | None], kind: str, normalize: int,
    parameters: tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None],
    hints: tuple[str, ...],
) -> list[Traced]:  # fmt: skip
    x, rows = tracer.settler.settle(tracer.view(inputs[0]))
    logits, others = tracer.settler.settle(tracer.view(inputs[1]))
    same = np.array_equal(rows.ravel(), others.ravel())
    if not same or shape_of(x)[:-1] != shape_of(logits)[:-1]:
        raise Unfit("its router does not decide about every token of its experts")
    fc1, b1, fc2, b2 = parameters
    experts, width, hidden = len(fc1), int(shape_of(x)[-1]), fc1[0].size // int(shape_of(x)[-1])
    result = tracer.settler.emit(
        "Experts", x, logits,
        fc1.reshape(experts, hidden, width),
        np.zeros((experts, hidden)) if b1 is None else b1,
        fc2.reshape(experts, width, hidden),
        np.zeros((experts, width)) if b2 is None else b2,
        k=attribute(node, "k", 1), normalize=normalize, kind=kind, hints=hints,
    )  # fmt: skip
    return [tracer.settler.view_of_rows(result, rows)]


def _optional(value: Traced | None, what: str) -> np.ndarray | None:
    return None if value is None else constant(value, what).array


@handles("MoE", domain=MICROSOFT)
def moe(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """(x, logits, fc1, fc1 bias, fc2, fc2 bias, fc3, fc3 bias)."""
    inputs = inputs + [None] * (8 - len(inputs))
    kind = _check(node, inputs[6:8])
    fc1, fc2 = constant(inputs[2], "fc1"), constant(inputs[4], "fc2")
    parameters = fc1.array, _optional(inputs[3], "bias"), fc2.array, _optional(inputs[5], "bias")
    normalize = attribute(node, "normalize_routing_weights", 0)
    hints = (fc1.name, fc2.name, node.name or "")
    return _emit(tracer, node, inputs, kind, normalize, parameters, hints)


def dequantise(weight: Const, scales: Traced | None, zero: Traced | None, block: int) -> np.ndarray:
    """8-bit weights [E, rows, columns] as numbers; one scale a row, or one a block of a row."""
    scale = constant(scales, "scale").array.astype(np.float64)
    number = weight.array.astype(np.float64)
    offset = constant(zero, "zero point").array.astype(np.float64) if zero is not None else 128.0
    if block > 0:
        number = number.reshape(*number.shape[:-1], -1, block)
    offset = offset[..., None] if isinstance(offset, np.ndarray) else offset
    return ((number - offset) * scale[..., None]).reshape(weight.shape)


@handles("QMoE", domain=MICROSOFT)
def quantised_moe(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """(x, logits, fc1, scales, bias, fc2, scales, bias, fc3 …, zero points, router weights …)."""
    inputs = inputs + [None] * (15 - len(inputs))
    kind = _check(node, inputs[8:11])
    bits = attribute(node, "expert_weight_bits", 4)
    widths = {bits, *(attribute(node, f"fc{layer}_expert_weight_bits", bits) for layer in (1, 2))}
    if widths != {8} or attribute(node, "quant_type", "int") != "int":
        raise Unfit("its weights are no 8-bit integers", "quantise the experts to 8 bits")
    if attribute(node, "weights_prepacked", -1) == 1:
        raise Unfit("its weights are packed for one device", "set weights_prepacked to 0")
    if any(value is not None for value in inputs[14:]):
        raise Unfit("its router has weights of its own", "use the softmax of the router's logits")
    block = attribute(node, "block_size", 0)
    fc1, fc2 = constant(inputs[2], "fc1"), constant(inputs[5], "fc2")
    parameters = (
        dequantise(fc1, inputs[3], inputs[11], block), _optional(inputs[4], "bias"),
        dequantise(fc2, inputs[6], inputs[12], block), _optional(inputs[7], "bias"),
    )  # fmt: skip
    hints = (fc1.name, fc2.name, node.name or "")
    return _emit(tracer, node, inputs, kind, 1, parameters, hints)
