"""Derivatives of canonical models, backwards from results to what linear layers make.

For the operations that plain transformers are made of.  All arrays are float32, ``[N, T, D]`` or
``[N, D]``, and each rule is a pair: forwards it gives the result and what it wants to keep,
backwards, from the gradient by its result, those by its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.ir import UNARY, array_of, attributes_of
from vitrify.ir.movement import NOTHING

Array = npt.NDArray[np.float32]
Attributes = Mapping[str, Any]
#: Activations are straight lines between so many points for each 1 of their input; the lines at
#: both ends go on.
_POINTS, _REACH = 64, 32


@dataclass(frozen=True)
class _Rule:
    """``forward(attributes, inputs)``; ``backward(attributes, inputs, kept, gradient)``."""

    forward: Callable[[Attributes, list[Array]], tuple[Array, Any]]
    backward: Callable[[Attributes, list[Array], Any, Array], list[Array]]


@dataclass(frozen=True)
class _Step:
    """A node: ``reads`` and ``makes`` are names of values."""

    kind: str
    name: str
    reads: list[str]
    makes: str
    attributes: Attributes


def differentiable(model: ir.Model) -> bool:
    """Whether there is a rule for every node, and nothing but an image goes in."""
    return len(model.graph.inputs) == 1 and all(_has_rule(node) for node in model.graph)


def _has_rule(node: ir.Node) -> bool:
    attributes = attributes_of(node)
    if node.op_type == "Activation":
        return _curve(attributes["kind"]) is not None
    return node.op_type in _RULES and not (
        node.op_type == "Rows" and NOTHING in attributes["index"]
    )


class Differentiable:
    """A :func:`differentiable` canonical model."""

    def __init__(self, model: ir.Model) -> None:
        (image,) = model.graph.inputs
        self._image = image.name or ""
        self._steps = [
            _Step(
                node.op_type, node.name or "", [each.name or "" for each in node.inputs if each],
                node.outputs[0].name or "", attributes_of(node),
            )
            for node in model.graph
        ]
        self._constants = {
            value.name or "": np.asarray(array_of(value), np.float32)
            for node in model.graph for value in node.inputs
            if value is not None and value.is_initializer()
        }

    def forward(self, images: Array) -> Pass:
        """All values, of ``images [N, C, H, W]``."""
        values, kept = {self._image: images}, []
        for step in self._steps:
            read = [values[i] if i in values else self._constants[i] for i in step.reads]
            values[step.makes], keep = _RULES[step.kind].forward(step.attributes, read)
            kept.append((read, keep))
        return Pass(self._steps, values, kept)


class Pass:
    """What a forward pass left.

    Members
    -------
    values : by name
    """

    def __init__(
        self, steps: list[_Step], values: dict[str, Array], kept: list[tuple[list[Array], Any]]
    ) -> None:
        self.values = values
        self._steps, self._kept = steps, kept

    def backward(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Gradients by the results of all linear layers, by the layers' names.

        Parameters
        ----------
        gradients : those by some of the values, from which everything in front follows
        """
        pending = dict(gradients)
        found: dict[str, Array] = {}
        for step, (read, keep) in zip(reversed(self._steps), reversed(self._kept), strict=True):
            gradient = pending.pop(step.makes, None)
            if gradient is None:
                continue
            if step.kind == "Linear":
                found[step.name] = gradient
            parts = _RULES[step.kind].backward(step.attributes, read, keep, gradient)
            # what comes behind are parameters
            for name, part in zip(step.reads, parts, strict=False):
                pending[name] = pending[name] + part if name in pending else part
        return found


# Rules -------------------------------------------------------------------------------------
def _patches(attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    image, weight, bias = read
    high, wide = attributes["patch"]
    count, channels, height, width = image.shape
    parts = image.reshape(count, channels, height // high, high, width // wide, wide)
    rows = parts.transpose(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * high * wide)
    return rows @ weight.T + bias, None


def _tokens(_attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    x, prefix, position = read
    lead = np.broadcast_to(prefix, (len(x), *prefix.shape))
    return np.concatenate([lead, x], axis=1) + position, len(prefix)


def _normalise(attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    x, gamma, beta = read
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(variance + np.float32(attributes["epsilon"]))
    centred *= scale
    return centred * gamma + beta, (centred, scale)


def _normalise_back(
    _attributes: Attributes, read: list[Array], keep: Any, gradient: Array
) -> list[Array]:
    xhat, scale = keep
    inner = gradient * read[1]
    along = (inner * xhat).mean(axis=-1, keepdims=True)
    return [(inner - inner.mean(axis=-1, keepdims=True) - xhat * along) * scale]


def _linear(_attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    x, weight, bias = read
    return (x.reshape(-1, x.shape[-1]) @ weight.T + bias).reshape(*x.shape[:-1], -1), None


def _linear_back(
    _attributes: Attributes, read: list[Array], _keep: Any, gradient: Array
) -> list[Array]:
    flat = gradient.reshape(-1, gradient.shape[-1]) @ read[1]
    return [flat.reshape(read[0].shape)]


def _heads(x: Array, heads: int) -> Array:
    count, tokens, dim = x.shape
    return np.ascontiguousarray(x.reshape(count, tokens, heads, dim // heads).swapaxes(1, 2))


def _whole(x: Array) -> Array:
    count, _, tokens, _ = x.shape
    return x.swapaxes(1, 2).reshape(count, tokens, -1)


def _attend(attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    q, k, v = (_heads(x, attributes["heads"]) for x in read)
    share = (q * np.float32(attributes["scale"])) @ k.swapaxes(2, 3)
    share -= share.max(axis=-1, keepdims=True)
    np.exp(share, out=share)
    share /= share.sum(axis=-1, keepdims=True)
    return _whole(share @ v), (q, k, v, share)


def _attend_back(
    attributes: Attributes, _read: list[Array], keep: Any, gradient: Array
) -> list[Array]:
    q, k, v, share = keep
    g = _heads(gradient, attributes["heads"])
    scores = g @ v.swapaxes(2, 3)
    scores -= (scores * share).sum(axis=-1, keepdims=True)
    scores *= share
    scores *= np.float32(attributes["scale"])
    return [
        _whole(scores @ k), _whole(scores.swapaxes(2, 3) @ q), _whole(share.swapaxes(2, 3) @ g)
    ]


@cache
def _curve(kind: str) -> tuple[Array, Array] | None:
    """Values of an activation and slopes of the lines behind them; ``None`` if some are none."""
    with np.errstate(all="ignore"):
        x = np.arange(-_REACH * _POINTS, _REACH * _POINTS + 1) / _POINTS
        y = np.asarray(UNARY[kind].reference(x), np.float64)
    if not np.isfinite(y).all():
        return None
    return y[:-1].astype(np.float32), (np.diff(y) * _POINTS).astype(np.float32)


def _activate(attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    curve = _curve(attributes["kind"])
    assert curve is not None, "differentiable() looked"
    value, slope = curve
    place = read[0] * np.float32(_POINTS)
    place += np.float32(_REACH * _POINTS)
    index = np.clip(place, 0, len(value) - 1).astype(np.int32)
    place -= index
    place *= np.float32(1 / _POINTS)
    steep = slope[index]
    place *= steep
    place += value[index]
    return place, steep


def _select(attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    return read[0][:, attributes["index"]], None


def _select_back(
    attributes: Attributes, read: list[Array], _keep: Any, gradient: Array
) -> list[Array]:
    result = np.zeros_like(read[0])
    result[:, attributes["index"]] = gradient
    return [result]


def _pool(attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    return read[0][:, attributes["start"] : attributes["end"]].mean(axis=1), None


def _pool_back(
    attributes: Attributes, read: list[Array], _keep: Any, gradient: Array
) -> list[Array]:
    start, end = attributes["start"], attributes["end"]
    result = np.zeros_like(read[0])
    result[:, start:end] = gradient[:, None] / np.float32(end - start)
    return [result]


def _rows(attributes: Attributes, read: list[Array]) -> tuple[Array, Any]:
    return read[0][:, list(attributes["index"])], None


def _rows_back(
    attributes: Attributes, read: list[Array], _keep: Any, gradient: Array
) -> list[Array]:
    result = np.zeros_like(read[0])
    index = np.array(attributes["index"])
    np.add.at(result.swapaxes(0, 1), index, gradient.swapaxes(0, 1))
    return [result]


_RULES = {
    # nobody asks for gradients by pixels
    "PatchEmbed": _Rule(_patches, lambda _a, _r, _k, _g: []),
    "Tokens": _Rule(_tokens, lambda _a, _r, count, g: [g[:, count:]]),
    "LayerNorm": _Rule(_normalise, _normalise_back),
    "Linear": _Rule(_linear, _linear_back),
    "Attention": _Rule(_attend, _attend_back),
    "Add": _Rule(lambda _a, read: (read[0] + read[1], None), lambda _a, _r, _k, g: [g, g]),
    "Activation": _Rule(_activate, lambda _a, _r, steep, g: [g * steep]),
    "SelectToken": _Rule(_select, _select_back),
    "MeanPool": _Rule(_pool, _pool_back),
    "Rows": _Rule(_rows, _rows_back),
}
