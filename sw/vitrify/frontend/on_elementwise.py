"""Elementwise operators: affine steps, residual additions, steps of functions of one variable."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY

from .functions import affine_of, known, samples_of, text_of
from .mixed import Gating, Mixture, Picked, Stack
from .task import add_selected, is_selected, is_task
from .trace import Tracer, attribute, handles
from .values import Const, Elementwise, Scores, Traced, Unfit, View


def uniform(value: Const) -> Const:
    """The one number that all of a constant are, or the constant itself."""
    array = value.array
    if array.size > 1 and (array == array.flat[0]).all():
        return Const(array.ravel()[:1].reshape(()), value.name)
    return value


def _elementwise(tracer: Tracer, node: ir.Node, operands: list[Traced]) -> Elementwise | None:
    """The function of one view that ``node`` computes, or ``None``."""
    live = [value for value in operands if isinstance(value, View | Elementwise)]
    roots = samples_of(live[0])
    for value in live[1:]:
        also = samples_of(value)
        roots = {root: samples for root, samples in roots.items() if root in also}
    result = {}
    for root in roots:
        arrays = [
            _scalar(value) if isinstance(value, Const) else samples_of(value)[root]  # type: ignore[index]
            for value in operands
        ]
        result[root] = tracer.execute(node, arrays)[0]
    if not result:
        return None
    return Elementwise(live[0].shape, result, node, operands)


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
        case Mixture():
            from .on_experts import resolve as resolve_mixture

            return resolve_mixture(tracer, value)
        case Scores():
            raise Unfit(
                "it uses attention scores for something else than softmax and values",
                "export plain scaled-dot-product attention",
            )
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
            raise Unfit("it joins two different tensors", node=value.node)
    raise Unfit("its input is a constant where an activation is expected")


def _resolve(tracer: Tracer, value: Elementwise) -> View:
    best: tuple[float, str, float, float] | None = None
    best_root: View | Elementwise | None = None
    for root, samples in value.samples.items():
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
    node, operands = value.node, value.operands
    parts = [part if isinstance(part, Const) else tracer.view(part) for part in operands]
    if any(isinstance(part, Const) for part in parts):
        return _with_constant(node, *parts)
    return _residual(tracer, node, *parts)  # type: ignore[arg-type]


def _with_constant(node: ir.Node, x: Traced, y: Traced) -> View:
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
    first, rows = tracer.settler.settle(x)
    second, others = tracer.settler.settle(y)
    if not np.array_equal(rows, others):
        raise Unfit("it adds tokens that stand at different places")
    return tracer.settler.view_of_rows(tracer.settler.emit("Add", first, second), rows)


def _residual(tracer: Tracer, node: ir.Node, x: View, y: View) -> View:
    """Addition or subtraction of two activations, or of the bias of a task."""
    if node.op_type not in ("Add", "Sub"):
        raise Unfit(
            "it combines two activations by something else than an addition (a gated unit?)",
            "use a plain MLP and plain residual additions",
        )
    if node.op_type == "Sub":
        y = y.affine(-1.0, 0.0)
    for activation, chosen in ((x, y), (y, x)):
        if is_selected(chosen):
            return add_selected(tracer, activation, chosen)
    return add_views(tracer, x, y)


def _scores(node: ir.Node, scores: Scores, other: Const, reverse: bool) -> Scores:
    """Scaling of attention scores, and masks that mask nothing."""
    array = other.array
    if not array.any() and (node.op_type == "Add" or (node.op_type == "Sub" and not reverse)):
        return scores
    if array.size == 1 and not scores.normalised:
        number = float(array.reshape(()))
        if node.op_type == "Mul" or (node.op_type == "Div" and not reverse and number):
            factor = number if node.op_type == "Mul" else 1.0 / number
            return Scores(scores.q, scores.k, scores.shape, scores.scale * factor)
    raise Unfit(
        "it adds a mask or a position bias to attention scores, or scales them unevenly",
        "export a model with plain attention and absolute positions",
    )


_BINARY = ("Add", "Sub", "Mul", "Div")


@handles(*_BINARY)
def binary(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Arithmetic: an affine step, a residual addition or a part of an activation function."""
    x, y = inputs
    if x is None or y is None:
        raise Unfit("it lacks an input")
    for scores, other in ((x, y), (y, x)):
        if isinstance(scores, Scores):
            if not isinstance(other, Const):
                raise Unfit("it adds something computed from the image to attention scores")
            return [_scores(node, scores, other, reverse=scores is y)]
    live = [value for value in (x, y) if isinstance(value, View | Elementwise)]
    constants = [value for value in (x, y) if isinstance(value, Const)]
    rank = len(live[0].shape) if live else 0
    if all(value.is_scalar and value.array.ndim <= rank for value in constants):
        found = _elementwise(tracer, node, [x, y])
        if found is not None:
            return [found]
    views = [value if isinstance(value, Const) else tracer.view(value) for value in (x, y)]
    if len(live) == 2:
        return [_residual(tracer, node, *views)]  # type: ignore[arg-type]
    return [_with_constant(node, *views)]


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
    if len(inputs) > 1 and all(value is None for value in inputs[1:]) and node.op_type == "Clip":
        return [inputs[0]]  # type: ignore[list-item]
    operands = [uniform(value) if isinstance(value, Const) else value for value in inputs]
    for value in operands:
        if isinstance(value, View) and is_task(value):
            raise Unfit("it computes with task numbers", "use them to choose weights and biases")
        if isinstance(value, Scores):
            resolve(tracer, value)
        if isinstance(value, Const) and not value.is_scalar:
            raise Unfit("its constant is not one number")
    if None in operands:
        node, operands = _complete(node, operands)
    found = _elementwise(tracer, node, operands)  # type: ignore[arg-type]
    if found is None:
        raise Unfit("it combines two different activations")
    return [found]


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


@handles("BatchNormalization")
def batch_norm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """At inference a scale and a shift per channel, the second axis."""
    view = tracer.view(inputs[0])
    arrays = [value.array.astype(np.float64) for value in inputs[1:] if isinstance(value, Const)]
    if len(arrays) != 4 or attribute(node, "training_mode", 0):
        raise Unfit("its parameters are no constants")
    gamma, beta, mean, variance = arrays
    mul = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    form = (-1, *(1,) * (len(view.shape) - 2))
    return [view.affine(mul.reshape(form), (beta - mean * mul).reshape(form))]
