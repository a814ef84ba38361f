"""Folding a choice of channels, a scale and a shift into the operation that made a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, array_of, attributes_of, shape_of, source_of

from .values import Unfit


def _pick(array: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    return array if columns is None else array[columns]


def hints_of(value: ir.Value) -> tuple[str, ...]:
    """Names that a canonical tensor may be called after, best first."""
    return value.meta.get("hints", ())


def emit(
    builder: Builder, op: str, *inputs: ir.Value | np.ndarray, source: str | None,
    hints: tuple[str, ...] = (), **attributes: Any,
) -> ir.Value:  # fmt: skip
    """Append a canonical node and note what it may be called after."""
    value = builder.emit(op, *inputs, source=source, **attributes)
    value.meta["hints"] = tuple(hint for hint in hints if hint)
    return value


def fold(
    builder: Builder,
    value: ir.Value,
    columns: np.ndarray | None = None,
    mul: np.ndarray | None = None,
    add: np.ndarray | None = None,
    hints: tuple[str, ...] = (),
) -> ir.Value:
    """A tensor equal to ``value[..., columns] * mul + add``.

    The operation that made ``value`` is emitted again with other weights; the old one disappears
    when nothing else uses it.

    Parameters
    ----------
    columns:
        Channels to keep, in order; all when ``None``.
    mul, add:
        One number per kept channel; one and zero when ``None``.

    Raises
    ------
    Unfit
        The producer has no weights that could take it.
    """
    width = int(shape_of(value)[-1])
    if columns is not None and np.array_equal(columns, np.arange(width)):
        columns = None
    mul = None if mul is None or (mul == 1.0).all() else mul
    add = None if add is None or not add.any() else add
    if columns is None and mul is None and add is None:
        if hints:
            value.meta["hints"] = (*hints_of(value), *hints)
        return value
    # two uses of one tensor with the same bias must meet the same node again
    done: dict[tuple[bytes | None, ...], ir.Value] = value.meta.setdefault("folds", {})
    parts = ((columns, np.int64), (mul, np.float64), (add, np.float64))
    key = tuple(None if part is None else part.astype(kind).tobytes() for part, kind in parts)
    if key not in done:
        node = value.producer()
        again = node is not None and node.op_type in _ONCE and columns is None
        first = next(iter(done.items()), None) if again else None
        if first is None:
            done[key] = _refold(builder, value, columns, mul, add, hints)
        else:
            done[key] = _from_folded(builder, *first, width, mul, add)
    return done[key]


#: What is worth more than an addition for every element is computed once, whatever its scales.
_ONCE = ("Conv", "ImageConv", "GroupNorm", "HeadNorm", "RMSNorm")


def _from_folded(
    builder: Builder, key: tuple[bytes | None, ...], folded: ir.Value, width: int,
    mul: np.ndarray | None, add: np.ndarray | None,
) -> ir.Value:  # fmt: skip
    """``value * mul + add`` from what the same value was folded to before."""
    old_mul, old_add = (
        np.full(width, neutral) if part is None else np.frombuffer(part)
        for part, neutral in zip(key[1:], (1.0, 0.0), strict=True)
    )
    if key[0] is not None or not old_mul.all():
        raise Unfit("it scales a tensor that has been scaled otherwise")
    scale = (np.ones(width) if mul is None else mul) / old_mul
    shift = (np.zeros(width) if add is None else add) - scale * old_add
    parts = [part[:1] if np.ptp(part) <= 1e-12 else part for part in (scale, shift)]
    return emit(builder, "Affine", folded, parts[0][None], parts[1][None], source=None)


def is_cheap(value: ir.Value) -> bool:
    """Whether :func:`fold` of a scale and a shift repeats one layer only."""
    node = value.producer()
    operands = [] if node is None else [x for x in node.inputs if x is not None]
    match node.op_type if node is not None else "":
        case "Linear" | "TaskLinear" | "LayerNorm":
            return True
        case "SelectToken" | "MeanPool":
            return is_cheap(operands[0])
        case "Add":
            return all(is_cheap(operand) for operand in operands)
    return False


def _refold(
    builder: Builder,
    value: ir.Value,
    columns: np.ndarray | None,
    mul: np.ndarray | None,
    add: np.ndarray | None,
    hints: tuple[str, ...],
) -> ir.Value:
    """Emit the producer of ``value`` again, with what :func:`fold` wants in its weights."""
    node = value.producer()
    width = int(shape_of(value)[-1])
    if node is None:
        raise Unfit("it scales, shifts or picks channels of the image")
    size = width if columns is None else len(columns)
    scale = np.ones(size) if mul is None else mul
    shift = np.zeros(size) if add is None else add
    names = (*hints_of(value), *hints)
    source = source_of(node)
    inputs = [operand for operand in node.inputs if operand is not None]
    attributes = attributes_of(node)

    def again(*operands: ir.Value | np.ndarray) -> ir.Value:
        return emit(builder, node.op_type, *operands, source=source, hints=names, **attributes)

    match node.op_type:
        case "Linear" | "PatchEmbed":
            weight = _pick(array_of(inputs[1]), columns) * scale[:, None]
            bias = _pick(array_of(inputs[2]), columns) * scale + shift
            return again(inputs[0], weight, bias)
        case "Conv" | "ImageConv" | "RMSNorm" | "HeadNorm" | "GroupNorm" if value.uses():
            # what reads it already would have it computed once more
            pass
        case "LayerNorm" | "HeadNorm" | "GroupNorm" if columns is None:
            gamma, beta = array_of(inputs[1]) * scale, array_of(inputs[2]) * scale + shift
            return again(inputs[0], gamma, beta)
        case "Conv" | "ImageConv" if columns is None or attributes.get("groups", 1) == 1:
            weight = _pick(array_of(inputs[1]), columns) * scale[:, None, None, None]
            return again(inputs[0], weight, _pick(array_of(inputs[2]), columns) * scale + shift)
        case "RMSNorm" if columns is None and add is None:
            return again(inputs[0], array_of(inputs[1]) * scale)
        case "ConstantRows":
            return again(inputs[0], _pick(array_of(inputs[1]).T, columns).T * scale + shift)
        case "Channels" if mul is None and add is None:
            index = np.asarray(attributes["index"])[columns]
            attributes["index"] = [int(place) for place in index]
            return again(inputs[0])
        case "Affine" if columns is None:
            factor, offset = (array_of(value) * scale for value in inputs[1:])
            return again(inputs[0], factor, offset + shift)
        case "TaskLinear":
            weight = _pick(array_of(inputs[1]).swapaxes(0, 1), columns) * scale[:, None, None]
            bias = _pick(array_of(inputs[2]).T, columns).T * scale + shift
            return again(inputs[0], weight.swapaxes(0, 1), bias, inputs[3])
        case "Experts" if add is None:
            w2 = _pick(array_of(inputs[4]).swapaxes(0, 1), columns) * scale[:, None, None]
            b2 = _pick(array_of(inputs[5]).T, columns).T * scale
            w1, b1 = (array_of(value) for value in inputs[2:4])
            return again(*inputs[:2], w1, b1, w2.swapaxes(0, 1), b2)
        case "Activation" if mul is None and add is None:
            return again(fold(builder, inputs[0], columns))
        case "Add" if mul is not None and value.uses():
            # a stream that something reads already would be computed once more, all of it
            pass
        case "Add":
            first = fold(builder, inputs[0], columns, mul, add)
            return again(first, fold(builder, inputs[1], columns, mul))
        case "SelectToken" | "MeanPool":
            return again(fold(builder, inputs[0], columns, mul, add))
        case "Tokens":
            prefix = _pick(array_of(inputs[1]).T, columns).T * scale
            position = _pick(array_of(inputs[2]).T, columns).T * scale + shift
            return again(fold(builder, inputs[0], columns, mul), prefix, position)
        case "RoutedHeads" | "BalancedHeads" if columns is None and add is None:
            return again(*inputs[:2], fold(builder, inputs[2], None, mul), *inputs[3:])
        case "Attention" if columns is None:
            # every row of softmax weights sums to one, so a shift of v is a shift of the result
            return again(inputs[0], inputs[1], fold(builder, inputs[2], None, mul, add))
    what = "picks channels of" if columns is not None else "scales or shifts"
    raise Unfit(f"it {what} the result of a {node.op_type}, which has no weights to take that")
