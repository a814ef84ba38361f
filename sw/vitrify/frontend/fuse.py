"""Rewriting rules for decomposed normalisations, before tracing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewritePass, RewriteRuleSet, pattern


def _number(value: ir.Value | None) -> float | None:
    array = None if value is None else ir.convenience.get_const_tensor(value)
    return None if array is None or array.size != 1 else float(array.numpy().reshape(()))


def _over_last_axis(mean: ir.Value) -> bool:
    """Whether a ReduceMean keeps its shape and runs over the last axis only."""
    node = mean.producer()
    if node is None:
        return False
    axes: Any = node.attributes["axes"].value if "axes" in node.attributes else None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = ir.convenience.get_const_tensor(node.inputs[1])
        axes = None if constant is None else constant.numpy().tolist()
    keep = node.attributes["keepdims"].value if "keepdims" in node.attributes else 1
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    last = (-1,) if shape is None else (-1, len(shape) - 1)
    return bool(keep) and axes is not None and len(axes) == 1 and axes[0] in last


class _LayerNorm(pattern.RewriteRuleClassBase):
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon), however square and quotient are written.

    Parameters
    ----------
    power:
        The square is ``Pow(d, 2)``, not ``Mul(d, d)``.
    divide:
        The quotient is ``Div``, not ``Mul`` by a ``Reciprocal``.
    scaled:
        A product with gamma follows.
    """

    def __init__(self, *, power: bool, divide: bool, scaled: bool) -> None:
        super().__init__(name=f"LayerNorm({power=}, {divide=}, {scaled=})")
        self.power, self.divide, self.scaled = power, divide, scaled

    def pattern(self, op: Any, x: Any, epsilon: Any, two: Any, gamma: Any) -> Any:
        mean = op.ReduceMean(x, _allow_other_inputs=True, _outputs=["mean"])
        centred = op.Sub(x, mean)
        # an exporter that writes the subtraction twice is met by common subexpression elimination
        square = op.Pow(centred, two) if self.power else op.Mul(centred, centred)
        variance = op.ReduceMean(square, _allow_other_inputs=True, _outputs=["variance"])
        deviation = op.Sqrt(op.Add(variance, epsilon))
        if self.divide:
            normal = op.Div(centred, deviation)
        else:
            normal = op.Mul(centred, op.Reciprocal(deviation))
        return op.Mul(normal, gamma) if self.scaled else normal

    def check(
        self, _context: Any, x: Any, epsilon: Any, mean: Any, variance: Any, **others: Any
    ) -> pattern.MatchResult:
        result = pattern.MatchResult()
        small = _number(epsilon)
        if small is None or small <= 0:
            return result.fail("epsilon is no positive constant", epsilon)
        if self.power and _number(others["two"]) != 2.0:
            return result.fail("the exponent is not two", others["two"])
        if not (_over_last_axis(mean) and _over_last_axis(variance)):
            return result.fail("a mean is not over the last axis", mean)
        if self.scaled:
            gamma = ir.convenience.get_const_tensor(others["gamma"])
            if gamma is None or not len(gamma.shape) or gamma.size != gamma.shape[-1]:
                return result.fail("gamma is no constant vector", others["gamma"])
        elif x.shape is None or not isinstance(x.shape[-1], int):
            return result.fail("the number of channels is unknown", x)
        return result

    def rewrite(self, op: Any, x: Any, epsilon: Any, gamma: Any = None, **_: Any) -> Any:
        if not self.scaled:
            gamma = op.Constant(value=ir.tensor(np.ones(x.shape[-1], np.float32)))
        elif gamma.shape is None or len(gamma.shape) != 1:
            gamma = op.Reshape(gamma, op.Constant(value_ints=[-1]))
        return op.LayerNormalization(x, gamma, axis=-1, epsilon=_number(epsilon))


class _SafeSoftmax(pattern.RewriteRuleClassBase):
    """PyTorch's guard against rows that a mask empties: Where(IsNaN(p), 0, p)."""

    def pattern(self, op: Any, x: Any, axis: Any, zero: Any) -> Any:
        weights = op.Softmax(x, axis=axis)
        return op.Where(op.IsNaN(weights), zero, weights)

    def check(self, _context: Any, zero: Any, **_: Any) -> pattern.MatchResult:
        result = pattern.MatchResult()
        return result if _number(zero) == 0.0 else result.fail("it inserts no zero", zero)

    def rewrite(self, op: Any, x: Any, axis: Any, **_: Any) -> Any:
        return op.Softmax(x, axis=axis)


_CHOICES = itertools.product((True, False), repeat=3)

#: Fuses every decomposed LayerNormalization (beta stays an Add) and softmax.
_FUSE = RewritePass(
    RewriteRuleSet(
        [
            _SafeSoftmax.rule(),
            *(_LayerNorm.rule(scaled=s, power=p, divide=d) for s, p, d in _CHOICES),
        ],
        commute=True,
    )
)


def fuse(model: ir.Model) -> None:
    """Apply the rules, in place."""
    if any(node.op_type in ("ReduceMean", "IsNaN") for node in model.graph):
        _FUSE(model)
