"""Operators of ONNX in NumPy: those that follow or precede the core in most applications.

A board that has no ONNX Runtime executes parts of the host with them.  Each takes its node, the
operator set and its arrays (``None`` for an absent one).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.program.onnx_graph import TYPES, Node

from .numpy_resize import check_size, resize

Array = npt.NDArray[Any]
Arrays = Sequence[Array | None]
Operator = Callable[[Node, int, Any], Any]

#: From this operator set on a softmax runs over one axis.
_ONE_AXIS = 13


def _plain(function: Callable[..., Any]) -> Operator:
    """An operator without attributes."""
    return lambda _node, _opset, arrays: function(*arrays)


def _folded(function: Callable[[Any, Any], Any]) -> Operator:
    """An operator of any number of arrays."""

    def apply(_node: Node, _opset: int, arrays: list[Array]) -> Array:
        result = arrays[0]
        for other in arrays[1:]:
            result = function(result, other)
        return result

    return apply


def _divide(x: Array, y: Array) -> Array:
    """As C does for integers."""
    if x.dtype.kind in "iu":
        return (np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype)
    return x / y


def _axes(node: Node, arrays: Arrays, place: int) -> tuple[int, ...] | None:
    """Axes from an attribute, or from an input as newer operator sets have it."""
    given = node.attributes.get("axes")
    if given is None and len(arrays) > place and arrays[place] is not None:
        given = np.ravel(arrays[place]).tolist()  # type: ignore[arg-type]  (looked at above)
    return None if given is None else tuple(int(axis) for axis in given)


def _reduced(function: Callable[..., Any]) -> Operator:
    def apply(node: Node, _opset: int, arrays: list[Array]) -> Array:
        axes = _axes(node, arrays, 1)
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            return arrays[0]
        keep = bool(node.attributes.get("keepdims", 1))
        made = function(arrays[0], axis=axes or None, keepdims=keep)
        return np.asarray(made).astype(arrays[0].dtype)

    return apply


def _l2(x: Array, **how: Any) -> Array:
    return np.sqrt(np.sum(np.square(x), **how))


def _log_sum(x: Array, axis: Any, keepdims: bool) -> Array:
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    made = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return made if keepdims else np.squeeze(made, axis)


def _extreme(function: Callable[..., Any]) -> Operator:
    def apply(node: Node, _opset: int, arrays: list[Array]) -> Array:
        axis, x = node.attributes.get("axis", 0), arrays[0]
        if node.attributes.get("select_last_index", 0):
            made = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
        else:
            made = function(x, axis=axis)
        made = np.asarray(made, np.int64)
        return np.expand_dims(made, axis) if node.attributes.get("keepdims", 1) else made

    return apply


def _softmax(node: Node, opset: int, arrays: list[Array]) -> Array:
    x, axis = arrays[0], node.attributes.get("axis", -1 if opset >= _ONE_AXIS else 1)
    shape = x.shape
    if opset < _ONE_AXIS:
        # over all axes from this one on
        x, axis = x.reshape(math.prod(shape[: axis % len(shape)]), -1), -1
    x = x - x.max(axis=axis, keepdims=True)
    if node.op_type == "LogSoftmax":
        return (x - np.log(np.exp(x).sum(axis=axis, keepdims=True))).reshape(shape)
    powers = np.exp(x)
    return (powers / powers.sum(axis=axis, keepdims=True)).reshape(shape)


def _top_k(node: Node, _opset: int, arrays: list[Array]) -> tuple[Array, Array]:
    x, k = arrays[0], int(arrays[1].reshape(-1)[0])
    axis = node.attributes.get("axis", -1)
    keys = x
    if node.attributes.get("largest", 1):
        # of integers, the complement: the least has no opposite
        keys = ~x if x.dtype.kind in "iu" else -x
    # a stable order gives equal values in that of their places, as ONNX wants it
    order = np.take(np.argsort(keys, axis=axis, kind="stable"), np.arange(k), axis=axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _normalised(node: Node, _opset: int, arrays: list[Array]) -> Array:
    x, axis = arrays[0], node.attributes.get("axis", -1)
    first = node.attributes.get("p", 2) == 1
    norm = (np.abs(x).sum if first else lambda **how: _l2(x, **how))(axis=axis, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm != 0)


def _layer_norm(node: Node, _opset: int, arrays: list[Array]) -> Array:
    x, axis = arrays[0].astype(np.float32), node.attributes.get("axis", -1)
    axes = tuple(range(axis % x.ndim, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    made = centred / np.sqrt(variance + node.attributes.get("epsilon", 1e-5)) * arrays[1]
    if len(arrays) > 2 and arrays[2] is not None:
        made = made + arrays[2]
    return made.astype(arrays[0].dtype)


def _gemm(node: Node, _opset: int, arrays: list[Array]) -> Array:
    a, b = (
        x.T if node.attributes.get(name, 0) else x
        for x, name in zip(arrays, ("transA", "transB"), strict=False)
    )
    made = node.attributes.get("alpha", 1.0) * (a @ b)
    if len(arrays) > 2 and arrays[2] is not None:
        made = made + node.attributes.get("beta", 1.0) * arrays[2]
    return made.astype(arrays[0].dtype)


def _clip(node: Node, _opset: int, arrays: list[Array | None]) -> Array:
    x, *bounds = arrays
    low, high = [*bounds, None, None][:2]
    low = node.attributes.get("min") if low is None else low
    high = node.attributes.get("max") if high is None else high
    assert x is not None
    return x if low is None and high is None else np.clip(x, low, high).astype(x.dtype)


# Movement ----------------------------------------------------------------------------------
def _reshape(node: Node, _opset: int, arrays: list[Array]) -> Array:
    x, form = arrays[0], arrays[1].tolist()
    if not node.attributes.get("allowzero", 0):
        form = [x.shape[place] if size == 0 else size for place, size in enumerate(form)]
    return x.reshape(form)


def _slice(_node: Node, _opset: int, arrays: list[Array | None]) -> Array:
    x, starts, stops, axes, steps = [*arrays, None, None][:5]
    assert x is not None
    assert starts is not None
    assert stops is not None
    where = [slice(None)] * x.ndim
    for place, start in enumerate(starts.tolist()):
        axis = place if axes is None else int(axes[place])
        step = 1 if steps is None else int(steps[place])
        stop: int | None = int(stops[place])
        start = max(start, -x.shape[axis]) if step < 0 else start
        # in front of the first element, which NumPy can only say so
        stop = None if step < 0 and stop is not None and stop < -x.shape[axis] else stop
        where[axis] = slice(start, stop, step)
    return x[tuple(where)]


def _split(node: Node, _opset: int, arrays: list[Array | None]) -> list[Array]:
    x, axis, parts = arrays[0], node.attributes.get("axis", 0), node.attributes.get("split")
    assert x is not None
    if len(arrays) > 1 and arrays[1] is not None:
        parts = arrays[1].tolist()
    if parts is None:
        size = -(-x.shape[axis] // len(node.outputs))
        return np.split(x, range(size, x.shape[axis], size), axis)
    return np.split(x, np.cumsum(parts)[:-1].tolist(), axis)


def _squeeze(node: Node, _opset: int, arrays: list[Array]) -> Array:
    return np.squeeze(arrays[0], _axes(node, arrays, 1))


def _unsqueeze(node: Node, _opset: int, arrays: list[Array]) -> Array:
    return np.expand_dims(arrays[0], _axes(node, arrays, 1) or ())


def _flatten(node: Node, _opset: int, arrays: list[Array]) -> Array:
    axis, x = node.attributes.get("axis", 1), arrays[0]
    return x.reshape(math.prod(x.shape[: axis % x.ndim if axis != x.ndim else axis]), -1)


def _transpose(node: Node, _opset: int, arrays: list[Array]) -> Array:
    return np.transpose(arrays[0], node.attributes.get("perm"))


def _gather(node: Node, _opset: int, arrays: list[Array]) -> Array:
    return np.take(arrays[0], arrays[1], axis=node.attributes.get("axis", 0))


def _expand(_node: Node, _opset: int, arrays: list[Array]) -> Array:
    form = np.broadcast_shapes(arrays[0].shape, tuple(arrays[1].tolist()))
    return np.broadcast_to(arrays[0], form)


def _depth_to_space(node: Node, _opset: int, arrays: list[Array]) -> Array:
    n, c, h, w = arrays[0].shape
    b = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "DCR":
        x = arrays[0].reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = arrays[0].reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(node: Node, _opset: int, arrays: list[Array]) -> Array:
    n, c, h, w = arrays[0].shape
    b = node.attributes["blocksize"]
    x = arrays[0].reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * b * b, h // b, w // b)


def _concat(node: Node, _opset: int, arrays: list[Array]) -> Array:
    return np.concatenate(arrays, node.attributes["axis"])


def _cast(node: Node, _opset: int, arrays: list[Array]) -> Array:
    return arrays[0].astype(TYPES[node.attributes["to"]])


def _constant(node: Node, _opset: int, _arrays: list[Array]) -> Array:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
             "value_ints": np.int64}  # fmt: skip
    (name, value), = node.attributes.items()
    return np.asarray(value, kinds.get(name))


def _shape(node: Node, _opset: int, arrays: list[Array]) -> Array:
    some = slice(node.attributes.get("start", 0), node.attributes.get("end"))
    return np.array(arrays[0].shape[some], np.int64)


def _pool(_node: Node, _opset: int, arrays: list[Array]) -> Array:
    x = arrays[0]
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True).astype(x.dtype)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-x))).astype(x.dtype)


#: Every operator there is, of ONNX's own domain.
OPERATORS: dict[str, Operator] = {
    "Add": _plain(np.add), "Sub": _plain(np.subtract), "Mul": _plain(np.multiply),
    "Div": _plain(_divide), "Pow": _plain(lambda x, y: np.power(x, y).astype(x.dtype)),
    "Neg": _plain(np.negative), "Abs": _plain(np.abs), "Sqrt": _plain(np.sqrt),
    "Exp": _plain(np.exp), "Log": _plain(np.log), "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil), "Round": _plain(np.rint), "Sign": _plain(np.sign),
    "Reciprocal": _plain(np.reciprocal), "Tanh": _plain(np.tanh), "Sigmoid": _plain(_sigmoid),
    "Relu": _plain(lambda x: np.maximum(x, 0)), "Identity": _plain(lambda x: x),
    "Max": _folded(np.maximum), "Min": _folded(np.minimum), "Sum": _folded(np.add),
    "Where": _plain(np.where), "Equal": _plain(np.equal), "Not": _plain(np.logical_not),
    "Greater": _plain(np.greater), "GreaterOrEqual": _plain(np.greater_equal),
    "Less": _plain(np.less), "LessOrEqual": _plain(np.less_equal),
    "And": _plain(np.logical_and), "Or": _plain(np.logical_or), "Clip": _clip, "Cast": _cast,
    "MatMul": _plain(np.matmul), "Gemm": _gemm, "LayerNormalization": _layer_norm,
    "ReduceMean": _reduced(np.mean), "ReduceSum": _reduced(np.sum), "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min), "ReduceProd": _reduced(np.prod), "ReduceL2": _reduced(_l2),
    "ReduceL1": _reduced(lambda x, **how: np.sum(np.abs(x), **how)),
    "ReduceSumSquare": _reduced(lambda x, **how: np.sum(np.square(x), **how)),
    "ReduceLogSumExp": _reduced(_log_sum), "GlobalAveragePool": _pool,
    "Softmax": _softmax, "LogSoftmax": _softmax, "LpNormalization": _normalised,
    "ArgMax": _extreme(np.argmax), "ArgMin": _extreme(np.argmin), "TopK": _top_k,
    "Reshape": _reshape, "Transpose": _transpose, "Flatten": _flatten, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Concat": _concat, "Slice": _slice, "Split": _split,
    "Gather": _gather, "Expand": _expand, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Resize": resize, "Constant": _constant,
    "Shape": _shape,
}  # fmt: skip


def missing(nodes: Sequence[Node]) -> list[str]:
    """Operators among ``nodes`` that are not there."""
    kinds = {
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for node in nodes
    }
    return sorted(kinds - OPERATORS.keys())


def _result_shape(node: Node, given: Sequence[Array]) -> Sequence[int]:
    """The shape of a result that may be larger than what is given; that of a broadcast otherwise.

    Those of ``Resize`` are its own to check.
    """
    shapes = [x.shape for x in given]
    match node.op_type:
        case "Expand":
            shapes = [shapes[0], tuple(given[1].tolist())]
        case "Gather":
            axis = node.attributes.get("axis", 0) % len(shapes[0])
            return [*shapes[0][:axis], *shapes[1], *shapes[0][axis + 1 :]]
        case "Concat":
            return [sum(x.size for x in given)]
        case "Gemm":
            turned = [bool(node.attributes.get(name, 0)) for name in ("transA", "transB")]
            return [shapes[0][turned[0]], shapes[1][not turned[1]]]
        case "MatMul" if len(shapes[0]) > 1 and len(shapes[1]) > 1:
            lead = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
            return [*lead, shapes[0][-2], shapes[1][-1]]
    return np.broadcast_shapes(*shapes)


def execute(node: Node, opset: int, arrays: Arrays) -> Sequence[Array]:
    """The outputs of a node.

    Raises
    ------
    BackendError
        If its result has more than :data:`~vitrify.runtime.numpy_resize.MOST_ELEMENTS`.
    """
    # what does not fit is the operator's to say
    with contextlib.suppress(ValueError, IndexError, TypeError):
        check_size(node, _result_shape(node, [x for x in arrays if x is not None]))
    with np.errstate(all="ignore"):
        made = OPERATORS[node.op_type](node, opset, list(arrays))
    return [np.asarray(x) for x in made] if isinstance(made, tuple | list) else [np.asarray(made)]
