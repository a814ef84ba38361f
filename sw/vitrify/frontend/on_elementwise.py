"""Elementwise operators: affine steps, residual additions, and functions told by their values.

A chain of elementwise operators is run on a grid of sample points and compared with the table of
known functions, so that every spelling of GELU, SiLU and the others is recognised alike.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY

from .mixed import Gating, Mixture, Picked, Stack
from .task import add_selected, is_selected
from .trace import Tracer, attribute, handles
from .values import Const, Elementwise, Scores, Traced, Unfit, View

#: Where functions are sampled; it covers every bend of the known ones.
GRID = np.linspace(-10.0, 10.0, 2001)
#: Largest deviation of a recognised function: constants may have been rounded to float16.
TOLERANCE = 1.5e-4
#: Deviation of scale and shift that rounding of constants explains.
SNAP = 1e-5

_REFERENCES = {kind: row.reference(GRID) for kind, row in UNARY.items()}


def _fit(samples: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Least squares ``samples = a * reference + b``: (a, b, largest deviation)."""
    columns = np.stack([reference, np.ones_like(reference)], axis=1)
    (a, b), *_ = np.linalg.lstsq(columns, samples, rcond=None)
    a = 1.0 if abs(a - 1.0) < SNAP else float(a)
    b = 0.0 if abs(b) < SNAP else float(b)
    return a, b, float(np.abs(a * reference + b - samples).max())


def _affine(samples: np.ndarray) -> tuple[float, float] | None:
    """Scale and shift of an affine function; those of float32 are kept to the last bit."""
    zero = GRID.size // 2
    b = float(samples[zero])
    a = float((samples[-1] - samples[0]) / (GRID[-1] - GRID[0]))
    error = np.abs(a * GRID + b - samples).max()
    return (a, b) if error <= SNAP * max(1.0, abs(a), abs(b)) * GRID[-1] else None


def _functions_of(value: View | Elementwise) -> dict[View | Elementwise, np.ndarray]:
    own: dict[View | Elementwise, np.ndarray] = {value: GRID}
    return {**value.samples, **own} if isinstance(value, Elementwise) else own


def _elementwise(tracer: Tracer, node: ir.Node, operands: list[Traced]) -> Elementwise | None:
    """The function of one view that ``node`` computes, or ``None``."""
    live = [value for value in operands if isinstance(value, View | Elementwise)]
    roots = _functions_of(live[0])
    for value in live[1:]:
        also = _functions_of(value)
        roots = {root: samples for root, samples in roots.items() if root in also}
    result = {}
    for root in roots:
        arrays = [
            value.array.reshape(()).astype(np.float64)
            if isinstance(value, Const)
            else _functions_of(value)[root]  # type: ignore[index]
            for value in operands
        ]
        result[root] = tracer.execute(node, arrays)[0]
    if not result:
        return None
    return Elementwise(live[0].shape, result, node, operands)


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
    best: tuple[float, str, View | Elementwise, float, float] | None = None
    for root, samples in value.samples.items():
        if not np.isfinite(samples).all():
            continue
        affine = _affine(samples)
        if affine is not None:
            return resolve(tracer, root).affine(*affine)
        for kind, reference in _REFERENCES.items():
            a, b, error = _fit(samples, reference)
            if error <= TOLERANCE * max(1.0, abs(a)) and (best is None or error < best[0]):
                best = error, kind, root, a, b
    if best is None:
        return _unknown(tracer, value)
    _, kind, root, a, b = best
    base = tracer.settler.settle_anywhere(resolve(tracer, root))
    view = View(tracer.settler.emit("Activation", base.base, kind=kind), base.index)
    return view if (a, b) == (1.0, 0.0) else view.affine(a, b)


def _unknown(tracer: Tracer, value: Elementwise) -> View:
    """The last node of an unknown function may still be an affine step or a residual addition."""
    node = value.node
    live = [part for part in value.operands if isinstance(part, View | Elementwise)]
    inner = [part for part in live if isinstance(part, Elementwise)]
    gated = len(live) == 2 and node.op_type in ("Mul", "Div")
    if node.op_type in _BINARY and inner and not gated:
        parts = [tracer.view(part) if part in inner else part for part in value.operands]  # type: ignore[operator]
        if len(live) == 2:
            return _residual(tracer, node, *parts)  # type: ignore[arg-type]
        return _with_constant(node, *parts)
    known = ", ".join(UNARY)
    raise Unfit(
        f"it is the last node of an activation function that is none of {known}",
        "use one of these",
        node,
    )


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
    if all(value.is_scalar and np.ndim(value.array) <= 1 for value in constants):
        found = _elementwise(tracer, node, [x, y])
        if found is not None:
            return [found]
    views = [value if isinstance(value, Const) else tracer.view(value) for value in (x, y)]
    if len(live) == 2:
        return [_residual(tracer, node, *views)]  # type: ignore[arg-type]
    return [_with_constant(node, *views)]


@handles(
    "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Log", "Max", "Min", "Mish", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid",
    "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
)  # fmt: skip
def function(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A step of an activation function."""
    operands = [value for value in inputs if value is not None]
    for value in operands:
        if isinstance(value, Scores):
            resolve(tracer, value)
        if isinstance(value, Const) and not value.is_scalar:
            raise Unfit("its constant is not one number")
    found = _elementwise(tracer, node, operands)
    if found is None:
        raise Unfit("it combines two different activations")
    return [found]


def sampled(node: ir.Node, value: Traced | None, kind: str, scale: float = 1.0) -> Elementwise:
    """``kind(scale * x) / scale`` as if a chain of operators had computed it."""
    if not isinstance(value, View | Elementwise):
        raise Unfit("its input is no activation")
    samples = {
        root: UNARY[kind].reference(scale * points) / scale
        for root, points in _functions_of(value).items()
    }
    return Elementwise(value.shape, samples, node, [value])


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
