"""Residual streams in a basis in which no channel stands out.

Every layer that adds to a stream is linear, and so is every layer behind a normalisation: with an
orthogonal matrix behind the first and its transpose in front of the others nothing changes but the
numbers between (QuaRot, Ashkboos et al. 2024).  LayerNorm commutes with a matrix that leaves the
mean of all channels as it is; its gamma and beta go into the weights behind it.  Channels that are
random mixtures of the old ones have like ranges, and weights without outliers, which is what steps
as coarse as those of four bits want.

So are the values of a head, whose sums over keys are linear, too: a matrix behind the layer that
makes them, its transpose in front of the layer that reads what attention makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vitrify.ir import array_of, attributes_of, shape_of
from vitrify.ir.movement import NOTHING

from .tensors import Float

#: Places of weight and bias by which a node reads its first input, and by which it writes.
_READ = {"Linear": (1, 2), "TaskLinear": (1, 2), "Experts": (2, 3)}
_WRITE = {"Linear": (1, 2), "TaskLinear": (1, 2), "Experts": (4, 5), "PatchEmbed": (1, 2)}
#: Nodes that move, add or average rows, and places of those that are constants.
_MOVE = {"Add": (), "Tokens": (1, 2), "SelectToken": (), "MeanPool": (), "Rows": ()}


@dataclass
class _Stream:
    """Values in one basis, and who touches them; ``whole`` unless somebody cannot be rotated.

    ``norms`` has what reads each normalisation's result.
    """

    values: list[ir.Value] = field(default_factory=list)
    writers: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    constants: list[ir.Value] = field(default_factory=list)
    norms: list[tuple[ir.Node, list[ir.Node]]] = field(default_factory=list)
    whole: bool = True


def rotated(model: ir.Model, seed: int = 0) -> ir.Model | None:
    """A copy of a canonical model with the same results, residual streams in another basis.

    And values of heads.  What something else reads or makes, as an activation does, stays as it is;
    ``None`` if all do.  ``seed`` chooses the basis.
    """
    model, count = model.clone(), 0
    seen: set[ir.Value] = set()
    for node in model.graph:
        x = node.inputs[0] if node.inputs else None
        if node.op_type != "LayerNorm" or x is None or x in seen:
            continue
        stream = _stream(x, set(model.graph.outputs))
        seen.update(stream.values)
        if stream.whole:
            _rotate(stream, _matrix(int(shape_of(x)[-1]), seed))
            count += 1
    for number, (heads, writer, readers) in enumerate(_values_of_heads(model)):
        _rotate_heads(heads, writer, readers, np.random.default_rng((seed, number)))
        count += 1
    return model if count else None


def _values_of_heads(model: ir.Model) -> Iterator[tuple[int, ir.Node, list[ir.Node]]]:
    """Number of heads, layer of values, layers behind, of every attention between such."""
    outputs = set(model.graph.outputs)
    for node in model.graph:
        if node.op_type != "Attention":
            continue
        values, made = node.inputs[2], node.outputs[0]
        assert values is not None
        writer, users = values.producer(), list(made.uses())
        alone = len(list(values.uses())) == 1 and not {values, made} & outputs
        read = users and all(user.op_type == "Linear" and place == 0 for user, place in users)
        if alone and read and writer is not None and writer.op_type == "Linear":
            yield attributes_of(node)["heads"], writer, [user for user, _ in users]


def _rotate_heads(
    heads: int, writer: ir.Node, readers: list[ir.Node], rng: np.random.Generator
) -> None:
    weight, bias = _parameters(writer, _WRITE["Linear"])
    dim = int(shape_of(weight)[0]) // heads
    matrices = [np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(heads)]

    def turned(rows: Float) -> Float:
        parts = rows.reshape(heads, dim, -1)
        return np.stack([matrix @ part for matrix, part in zip(matrices, parts, strict=True)]
                        ).reshape(rows.shape)

    _change(weight, turned)
    _change(bias, turned)
    for node in readers:
        _change(_parameters(node, _READ["Linear"])[0], lambda w: turned(w.T).T)


def _stream(start: ir.Value, outputs: set[ir.Value]) -> _Stream:
    """Everything in the basis of ``start``."""
    stream = _Stream()
    stream.values.append(start)
    for value in stream.values:  # which grows
        node = value.producer()
        nodes = [user for user, _ in value.uses()]
        if node is None or value in outputs:
            stream.whole = False
        elif node.op_type in _WRITE:
            stream.writers.append(node)
        else:
            nodes.append(node)
        for each in nodes:
            if each.op_type in _MOVE:
                constants = [each.inputs[place] for place in _MOVE[each.op_type]]
                for other in (*each.inputs, *each.outputs):
                    known = stream.constants if other in constants else stream.values
                    if other is not None and other not in known:
                        known.append(other)
            elif each.op_type == "LayerNorm" and each is not node:
                readers = _behind(each, outputs)
                stream.norms.append((each, readers))
                stream.readers += readers
                stream.whole &= bool(readers)
            elif each.op_type in _READ and each.inputs.index(value) == 0:
                stream.readers.append(each)
            else:
                stream.whole = False
    return stream


def _behind(norm: ir.Node, outputs: set[ir.Value]) -> list[ir.Node]:
    """The linear layers that read a normalisation's result; none if anything else does.

    Nor if rows of zeros come between: beta, which they are without, could not go into the layers.
    """
    values, readers = [norm.outputs[0]], []
    for value in values:  # which grows
        if value in outputs:
            return []
        for node, place in value.uses():
            padded = node.op_type == "Rows" and NOTHING in attributes_of(node)["index"]
            if node.op_type in ("SelectToken", "MeanPool", "Rows") and not padded:
                values.append(node.outputs[0])
            elif node.op_type in _READ and place == 0:
                readers.append(node)
            else:
                return []
    return readers


def _matrix(dim: int, seed: int) -> Float:
    """A random orthogonal matrix ``[dim, dim]`` to which a row of ones is an eigenvector."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(dim, dim))
    basis[:, 0] = 1
    basis, _ = np.linalg.qr(basis)
    turn = np.eye(dim)
    turn[1:, 1:], _ = np.linalg.qr(rng.normal(size=(dim - 1, dim - 1)))
    return basis @ turn @ basis.T


def _rotate(stream: _Stream, matrix: Float) -> None:
    for norm, readers in stream.norms:
        gamma, beta = (array_of(value).astype(np.float64) for value in _parameters(norm, (1, 2)))
        for node in readers:
            weight, bias = _parameters(node, _READ[node.op_type])
            shift = array_of(weight).astype(np.float64) @ beta
            _change(bias, lambda b, shift=shift: b + shift)
            _change(weight, lambda w, gamma=gamma: w * gamma)
        for value, rest in zip(_parameters(norm, (1, 2)), (1.0, 0.0), strict=True):
            _change(value, lambda old, rest=rest: np.full_like(old, rest))
    for node in stream.readers:
        _change(_parameters(node, _READ[node.op_type])[0], lambda w: w @ matrix.T)
    for node in stream.writers:
        weight, bias = _parameters(node, _WRITE[node.op_type])
        _change(weight, lambda w: matrix @ w)
        _change(bias, lambda b: b @ matrix.T)
    for value in stream.constants:
        _change(value, lambda rows: rows @ matrix.T)


def _parameters(node: ir.Node, places: tuple[int, int]) -> list[ir.Value]:
    values = [node.inputs[place] for place in places]
    return [value for value in values if value is not None]


def _change(value: ir.Value, function: Callable[[Float], Float]) -> None:
    """Give a parameter, which its node has for itself, other numbers."""
    new = function(array_of(value).astype(np.float64)).astype(np.float32)
    value.const_value = ir.Tensor(np.ascontiguousarray(new), name=value.name)
