"""Operators with another result each time."""

from __future__ import annotations

import onnx_ir as ir

from .edit import constant_of

_RANDOM = frozenset({
    "RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Multinomial",
    "Bernoulli",
})


def draws(node: ir.Node) -> bool:
    """Whether it draws random numbers: a Dropout only where it is, or may be, in training."""
    if node.domain != "":
        return False
    if node.op_type != "Dropout":
        return node.op_type in _RANDOM
    ratio, training = (list(node.inputs) + [None] * 3)[1:3]
    if training is None:
        return False
    mode, part = constant_of(training), constant_of(ratio)
    may_be = mode is None or bool(mode.any())
    return may_be and (ratio is None or part is None or bool(part.any()))
