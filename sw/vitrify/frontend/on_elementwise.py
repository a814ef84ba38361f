"""Elementwise operators: affine steps, residual additions, steps of functions of one variable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY, shape_of

from . import grouped
from .bounds import least
from .functions import affine_of, known, samples_of, text_of
from .joining import joined
from .mixed import Gating, Mixture, Picked, Stack
from .pairs import combine, multiply
from .product import as_view
from .scaled_scores import masked, scaled
from .task import add_selected, is_selected, is_task
from .trace import Tracer, handles
from .values import Const, Elementwise, Grouped, Scores, Traced, Unfit, View


def uniform(value: Const) -> Const:
    """The one number that all of a constant are, or the constant itself."""
    array = value.array
    if array.size > 1 and (array == array.flat[0]).all():
        return Const(array.ravel()[:1].reshape(()), value.name)
    return value


#: What a function of one variable may be computed from.
_Operand = Const | View | Elementwise | Grouped


def _operand(tracer: Tracer, value: Traced | None) -> _Operand:
    """``value``, of another kind as a view."""
    return value if isinstance(value, _Operand) else tracer.view(value)


def _elementwise(
    tracer: Tracer, node: ir.Node, operands: Sequence[_Operand]
) -> Elementwise | None:
    """The function of one view that ``node`` computes, or ``None``."""
    plain = [value for value in operands if not isinstance(value, Grouped)]
    if len(plain) < len(operands):
        return None
    live = [value for value in plain if not isinstance(value, Const)]
    roots = samples_of(live[0])
    for value in live[1:]:
        also = samples_of(value)
        roots = {root: samples for root, samples in roots.items() if root in also}
    result = {}
    for root in roots:
        arrays = [
            _scalar(value) if isinstance(value, Const) else samples_of(value)[root]
            for value in plain
        ]
        result[root] = tracer.execute(node, arrays)[0]
    if not result:
        return None
    return Elementwise(live[0].shape, result, node, list(operands))


def _scalar(value: Const) -> np.ndarray:
    number = value.array.reshape(())
    return number if number.dtype == bool else number.astype(np.float64)


def resolve(tracer: Tracer, value: Traced) -> View:
    """The view that ``value`` is, emitting what it needs."""
    match value:
        case View():
            return value
        case Elementwise():
            if value.view is None:
                value.view = _resolve(tracer, value)
            return value.view
        case Grouped():
            if value.view is None:
                value.view = grouped.resolved(
                    tracer, value, lambda function, view: _of(tracer, function, view)
                )
            return value.view
        case Mixture():
            from .on_experts import resolve as resolve_mixture

            return resolve_mixture(tracer, value)
        case Scores():
            return as_view(tracer, value)
        case Gating() if value.node.op_type == "Softmax":
            raise Unfit(
                "it is no softmax of attention scores or of a router",
                "end the model at the logits and apply the softmax to its output",
                value.node,
            )
        case Gating() | Picked():
            raise Unfit(
                "what it decides is used for something else than weighing or picking experts",
                "use the softmax of a gate to weigh experts",
                value.node,
            )
        case Stack():
            return joined(tracer, list(value.parts), value.axis)
    raise Unfit("its input is a constant where an activation is expected")


def _resolve(tracer: Tracer, value: Elementwise) -> View:
    best: tuple[float, str, float, float] | None = None
    best_root: View | Elementwise | None = None
    for root, samples in value.samples.items():
        if samples.dtype == bool:
            raise Unfit(
                "it is true or false where numbers are expected", "turn it into numbers by a Cast",
                value.node,
            )
        affine = affine_of(samples)
        if affine is not None:
            return resolve(tracer, root).affine(*affine)
        found = known(samples)
        if found is not None and (best is None or found[0] < best[0]):
            best, best_root = found, root
    if best is not None and best_root is not None:
        _, kind, a, b = best
        view = _activation(tracer, best_root, kind)
        return view if (a, b) == (1.0, 0.0) else view.affine(a, b)
    if _holds_residual(value):
        return _last_node(tracer, value)
    root = next(iter(value.samples))
    return _activation(tracer, root, text_of(value, root))


def _of(tracer: Tracer, function: View | Elementwise, view: View) -> View:
    """A function of the stand-in variable, of ``view``."""
    samples = grouped.samples(function)
    affine = affine_of(samples)
    if affine is not None or isinstance(function, View):
        return view.affine(*(affine or (1.0, 0.0)))
    found = known(samples)
    if found is None:
        return _activation(tracer, view, text_of(function, grouped.X))
    _, kind, a, b = found
    made = _activation(tracer, view, kind)
    return made if (a, b) == (1.0, 0.0) else made.affine(a, b)


def _grouped(
    tracer: Tracer, node: ir.Node, operands: Sequence[_Operand], least: int = 1
) -> Grouped | None:
    """The functions of the same elements that ``node`` computes, or ``None``."""
    return grouped.grouped(
        node, operands, lambda step, parts: _elementwise(tracer, step, parts), least
    )


def _activation(tracer: Tracer, root: View | Elementwise, kind: str) -> View:
    base = tracer.settler.settle_anywhere(resolve(tracer, root))
    return View(tracer.settler.emit("Activation", base.base, kind=kind), base.index)


#: What makes the residual stream; a sum with anything else and a function of it is a function.
_STREAMS = ("Add", "Tokens", "PatchEmbed", "Experts")


def _holds_residual(value: Elementwise) -> bool:
    """Whether a function is ``x + f(x)`` of the residual stream, scaled and shifted or not."""
    live = [part for part in value.operands if isinstance(part, View | Elementwise)]
    if value.node.op_type not in _BINARY:
        return False
    if len(live) == 1:
        return isinstance(live[0], Elementwise) and _holds_residual(live[0])
    streams = [part for part in live if isinstance(part, View)]
    made = [part.base.producer() for part in streams]
    return value.node.op_type in ("Add", "Sub") and any(
        node is not None and node.op_type in _STREAMS for node in made
    )


def _last_node(tracer: Tracer, value: Elementwise) -> View:
    """The last node of a function as an affine step or a residual addition."""
    x, y = value.operands
    return _arithmetic(tracer, value.node, x, y)


def _arithmetic(tracer: Tracer, node: ir.Node, x: Traced, y: Traced) -> View:
    """Of two views, or of a view and a constant array."""
    x, y = (value if isinstance(value, Const) else tracer.view(value) for value in (x, y))
    if isinstance(x, View) and isinstance(y, View):
        return _residual(tracer, node, x, y)
    return _with_constant(node, x, y)


def _with_constant(node: ir.Node, x: Const | View, y: Const | View) -> View:
    """A view and a constant array."""
    if isinstance(x, View) and isinstance(y, Const):
        array = y.array.astype(np.float64)
        match node.op_type:
            case "Add":
                return x.affine(1.0, array, y.name)
            case "Sub":
                return x.affine(1.0, -array, y.name)
            case "Mul":
                return x.affine(array, 0.0, y.name)
            case "Div" if array.all():
                return x.affine(1.0 / array, 0.0, y.name)
    elif isinstance(y, View) and isinstance(x, Const):
        array = x.array.astype(np.float64)
        match node.op_type:
            case "Add":
                return y.affine(1.0, array, x.name)
            case "Sub":
                return y.affine(-1.0, array, x.name)
            case "Mul":
                return y.affine(array, 0.0, x.name)
    raise Unfit("it is no affine function of its input")


def add_views(tracer: Tracer, x: View, y: View) -> View:
    """Addition of two activations."""
    turns = x.base is y.base and x.mul is not None and y.mul is not None
    if x.shape == y.shape and not turns:
        try:
            first, rows = tracer.settler.settle(x, strict=True)
            second, others = tracer.settler.settle(y, strict=True)
            same = np.array_equal(rows, others) and shape_of(first) == shape_of(second)
        except Unfit:
            same = False
        if same:
            return tracer.settler.view_of_rows(tracer.settler.emit("Add", first, second), rows)
    return combine(tracer, "Add", x, y)


def _residual(tracer: Tracer, node: ir.Node, x: View, y: View) -> View:
    """Addition or subtraction of two activations, or of the bias of a task."""
    if node.op_type == "Mul":
        return multiply(tracer, x, y)
    if node.op_type == "Sub":
        if y.settled is not None:
            # what has become a tensor is not computed again for its sign
            y = tracer.settler.view_of_rows(*y.settled)
        y = y.affine(-1.0, 0.0)
    for activation, chosen in ((x, y), (y, x)):
        if is_selected(chosen):
            return add_selected(tracer, activation, chosen)
    return add_views(tracer, x, y)


#: What stands for zero where the logarithm of a base is taken.
_LEAST_BASE = float(np.float32(1e-6))
_BINARY = ("Add", "Sub", "Mul", "Div")


@handles(*_BINARY)
def binary(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Arithmetic: an affine step, a residual addition or a part of an activation function."""
    x, y = inputs
    if x is None or y is None:
        raise Unfit("it lacks an input")
    for scores, other in ((x, y), (y, x)):
        if isinstance(scores, Scores) and isinstance(other, Const):
            found = scaled(node, scores, other, reverse=scores is y)
            if found is not None:
                return [found]
    x, y = _operand(tracer, x), _operand(tracer, y)
    live = [value for value in (x, y) if not isinstance(value, Const)]
    constants = [value for value in (x, y) if isinstance(value, Const)]
    if all(value.is_scalar and value.array.ndim <= len(live[0].shape) for value in constants):
        found = _elementwise(tracer, node, [x, y])
        if found is not None:
            return [found]
    several = any(isinstance(value, Grouped) for value in live)
    if several or (len(live) == 2 and node.op_type in ("Mul", "Div")):
        # a product may be cheaper than a table for every channel
        together = _grouped(tracer, node, [x, y], 1 if several else 2)
        if together is not None:
            return [together]
    if node.op_type == "Div" and len(live) == 2:
        # one function of y less than a quotient of its value
        inverse = function(tracer, step("Reciprocal", node), [y])[0]
        return [_arithmetic(tracer, step("Mul", node), x, inverse)]
    return [_arithmetic(tracer, node, x, y)]


@handles(
    "Abs", "Acos", "Acosh", "And", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min",
    "Mish", "Mod", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu",
    "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sum", "Swish",
    "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
def function(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A step of a function of one variable."""
    if node.op_type == "Sum" and len(inputs) == 2:
        return binary(tracer, step("Add", node), inputs)
    unbounded = node.op_type == "Clip" and all(value is None for value in inputs[1:])
    if unbounded and inputs[0] is not None:
        return [inputs[0]]
    if node.op_type == "Where":
        chosen = _decided(inputs)
        if chosen is not None:
            return [chosen]
    if None in inputs:
        node, inputs = _complete(node, inputs)
    operands = [_operand(tracer, value) for value in inputs]
    operands = [uniform(value) if isinstance(value, Const) else value for value in operands]
    for value in operands:
        if isinstance(value, View) and is_task(value):
            raise Unfit("it computes with task numbers", "use them to choose weights and biases")
    constants = [value for value in operands if isinstance(value, Const)]
    several = not all(value.is_scalar for value in constants)
    if several or any(isinstance(value, Grouped) for value in operands):
        together = _grouped(tracer, node, operands)
        if together is not None:
            return [together]
        if several:
            raise Unfit("its constant is not one number")
        operands = [v if isinstance(v, Const) else tracer.view(v) for v in operands]
    found = _elementwise(tracer, node, operands)
    if found is None and node.op_type == "Pow":
        return _power(tracer, node, *operands)
    if found is None:
        raise Unfit("it combines two different activations")
    return [found]


def _power(tracer: Tracer, node: ir.Node, base: _Operand, exponent: _Operand) -> list[Traced]:
    """A power of two activations, by the logarithm of the base.

    A base below ``_LEAST_BASE`` counts as that: with exponents from 1 on the power is as exact.
    """
    lowest = least(base)
    if lowest < 0:
        raise Unfit("its base may be negative", "take the power of the base's Relu or Abs")
    if lowest < _LEAST_BASE and least(exponent) < 1:
        raise Unfit(
            "its base may be 0 and its exponent less than 1",
            "keep the base at 1e-6 and more, or the exponent at 1 and more, by a Max",
        )
    positive = function(tracer, step("Max", node), [base, Const(np.array(_LEAST_BASE), "")])[0]
    logarithm = function(tracer, step("Log", node), [positive])[0]
    power = binary(tracer, step("Mul", node), [logarithm, exponent])[0]
    return function(tracer, step("Exp", node), [power])


def _decided(inputs: list[Traced | None]) -> Traced | None:
    """What a ``Where`` gives whose condition is known: one of its values, or masked scores."""
    condition, *values = inputs
    if not isinstance(condition, Const) or None in values:
        return None
    shapes = [value.shape for value in values if value is not None]
    shape = np.broadcast_shapes(condition.shape, *shapes)
    known = (condition.array.all(), not condition.array.any())
    for value, holds in zip(values, known, strict=True):
        if holds and value is not None and value.shape == shape:
            return value
    for value, other, open_ in (
        (values[0], values[1], condition.array), (values[1], values[0], ~condition.array),
    ):  # fmt: skip
        if isinstance(value, Scores) and isinstance(other, Const) and not value.normalised:
            return masked(value, open_, other.array)
    return None


def _complete(
    node: ir.Node, operands: list[Traced | None]
) -> tuple[ir.Node, list[Traced | None]]:
    """A Clip that lacks a bound is a Max or a Min."""
    if node.op_type != "Clip":
        raise Unfit("it lacks an input")
    given = [value for value in operands if value is not None]
    return step("Max" if operands[1] is not None else "Min", node), list(given)


def step(op_type: str, node: ir.Node) -> ir.Node:
    """A node of the ONNX domain that is one step of ``node``; its inputs are given apart."""
    return ir.Node("", op_type, [], num_outputs=1, name=node.name)


def sampled(node: ir.Node, value: Traced | None, kind: str, scale: float = 1.0) -> Elementwise:
    """``kind(scale * x) / scale`` as if a chain of operators had computed it."""
    if not isinstance(value, View | Elementwise):
        raise Unfit("its input is no activation")
    samples = {
        root: UNARY[kind].reference(scale * points) / scale
        for root, points in samples_of(value).items()
    }
    return Elementwise(value.shape, samples, node, [value], kind=(kind, scale))
