"""Heads, experts and branches left out, by a list: a study of pruning is one command.

``python -m vitrify.compiler.prune MODEL.onnx LIST -o PRUNED.onnx`` writes the canonical graph of a
model without what the list names, for ``vitrify compile``.  A line of the list is one of ::

    blocks.0.attn.attention heads 0,2      # these heads
    blocks.1.moe experts 3                 # these experts: the gate chooses among the others
    blocks.2.mlp.add branch                # x + f(x) becomes x

with nodes as ``vitrify compile --keep-intermediates`` writes them to the canonical graph.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vitrify.arch.errors import InputError, VitrifyError
from vitrify.frontend import canonicalise, load
from vitrify.ir import Builder, array_of, attributes_of, shape_of
from vitrify.ir.run import with_weights_inside
from vitrify.program.files import check_writable, write_atomic
from vitrify.quant.decompose import decompose, inputs

#: Kinds of lines, and the operation that each is about.
_KINDS = {"heads": "Attention", "experts": "Experts", "branch": "Add"}


def prune(canonical: ir.Model, lines: Iterable[str]) -> ir.Model:
    """A copy of a canonical graph without what the lines name.

    Raises
    ------
    InputError
        If a line is none, names no node of its kind, a node that another line names, or no part
        of it, or leaves nothing; or if neither operand of an addition is made from the other.
    """
    nodes = {node.name or "": node for node in canonical.graph}
    chosen: dict[str, list[int]] = {}
    for line in lines:
        if words := line.partition("#")[0].split():
            name, gone = _parsed(words, nodes)
            if name in chosen:
                raise InputError(f"{name!r} is in the pruning list twice; put it in one line")
            chosen[name] = gone

    def rule(builder: Builder, node: ir.Node) -> ir.Value | None:
        if node.name not in chosen:
            return None
        gone = chosen.pop(node.name)
        return {"Attention": _heads, "Experts": _experts, "Add": _branch}[node.op_type](
            builder, node, gone
        )

    model = decompose(canonical, {**dict.fromkeys(_KINDS.values(), rule), "Linear": _behind})
    RemoveUnusedNodesPass()(model)
    return model


def _parsed(words: Sequence[str], nodes: Mapping[str, ir.Node]) -> tuple[str, list[int]]:
    """The node of a line, and the numbers that go."""
    name, kind = words[0], words[1] if len(words) > 1 else ""
    if kind not in _KINDS or len(words) != (2 if kind == "branch" else 3):
        raise InputError(
            f"{' '.join(words)!r} is no line of a pruning list: NODE heads 0,2 or NODE experts "
            f"3 or NODE branch"
        )
    node = nodes.get(name)
    if node is None or node.op_type != _KINDS[kind]:
        others = ", ".join(n for n, each in nodes.items() if each.op_type == _KINDS[kind])
        raise InputError(
            f"{name!r} is no {_KINDS[kind]} of the canonical graph; there are: {others or 'none'}"
        )
    if kind == "branch":
        return name, []
    count = attributes_of(node)["heads"] if kind == "heads" else len(array_of(inputs(node)[2]))
    gone = sorted({int(n) if n.isdecimal() else -1 for n in words[2].split(",")})
    if gone[0] < 0 or gone[-1] >= count or len(gone) == count:
        raise InputError(
            f"{words[2]!r} of {name!r}: the {kind} are numbered 0 to {count - 1}, and one must stay"
        )
    return name, gone


def _channels(builder: Builder, value: ir.Value, kept: np.ndarray) -> ir.Value:
    """Some channels of a tensor, by fewer rows of the layer that makes it."""
    node = value.producer()
    if node is None or node.op_type != "Linear":
        return builder.emit("Channels", value, index=kept.tolist())
    x, weight, bias = inputs(node)
    return builder.emit("Linear", x, array_of(weight)[kept], array_of(bias)[kept])


def _heads(builder: Builder, node: ir.Node, gone: Sequence[int]) -> ir.Value:
    """Attention of fewer heads, behind and before layers of fewer channels."""
    heads, scale = (attributes_of(node)[key] for key in ("heads", "scale"))
    (old,), stay = node.outputs, np.setdiff1d(np.arange(heads), gone)

    def kept(value: ir.Value) -> np.ndarray:
        width = int(shape_of(value)[-1]) // heads
        return (stay[:, None] * width + np.arange(width)).ravel()

    parts = [_channels(builder, value, kept(value)) for value in inputs(node)]
    made = builder.emit("Attention", *parts, heads=len(stay), scale=scale)
    # zeros in the places of the others, which the layers behind read past
    wide = np.zeros((int(shape_of(old)[-1]), len(kept(old))), np.float32)
    wide[kept(old), np.arange(wide.shape[1])] = 1.0
    return builder.emit("Linear", made, wide, np.zeros(len(wide), np.float32))


def _behind(builder: Builder, node: ir.Node) -> ir.Value | None:
    """A layer that reads channels in their places among zeros, reading them where they were."""
    x, weight, bias = inputs(node)
    placed = x.producer()
    if placed is None or placed.op_type != "Linear":
        return None
    of, matrix, shift = inputs(placed)
    places = array_of(matrix)
    single = (places.sum(0) == 1).all() and (np.count_nonzero(places, axis=1) <= 1).all()
    if array_of(shift).any() or not single or np.count_nonzero(places) != places.shape[1]:
        return None
    return builder.emit("Linear", of, array_of(weight) @ places, array_of(bias))


def _experts(builder: Builder, node: ir.Node, gone: Sequence[int]) -> ir.Value:
    """Fewer experts, and as many logits."""
    (x, logits, *weights), attributes = inputs(node), attributes_of(node)
    arrays = [array_of(weight) for weight in weights]
    stay = np.setdiff1d(np.arange(len(arrays[0])), gone)
    attributes = {**attributes, "k": min(attributes["k"], len(stay))}
    return builder.emit(
        "Experts", x, _channels(builder, logits, stay), *(a[stay] for a in arrays), **attributes
    )


def _branch(builder: Builder, node: ir.Node, _gone: Sequence[int]) -> ir.Value:
    """The stream that the branch was added to."""
    x, y = inputs(node)
    # of parallel branches, x + f(x) + g(x), it is what has been added up so far
    is_stream = [
        not _behind_adds(stream).isdisjoint(_made_from(other)) for stream, other in ((x, y), (y, x))
    ]
    if is_stream[0] == is_stream[1]:
        raise InputError(
            f"{node.name!r} adds {x.name!r} and {y.name!r}, neither of which is made from the "
            f"other: which of them is the branch is not known"
        )
    stream = x if is_stream[0] else y
    width = int(shape_of(stream)[-1])
    return builder.emit("Affine", stream, np.ones((1, width)), np.zeros((1, width)))


def _behind_adds(value: ir.Value) -> set[ir.Value]:
    """``value``, and what was added up to it."""
    # of an addition whose branch has gone, an Affine is left
    return _reached(value, lambda node: node.op_type in ("Add", "Affine"))


def _made_from(value: ir.Value) -> set[ir.Value]:
    """``value``, and all that it is computed from."""
    return _reached(value, lambda _: True)


def _reached(value: ir.Value, passes: Callable[[ir.Node], bool]) -> set[ir.Value]:
    found, left = set[ir.Value](), [value]
    while left:
        each = left.pop()
        node = each.producer()
        if each not in found and node is not None and passes(node):
            left += inputs(node)
        found.add(each)
    return found


def main() -> None:
    """Prune a file by a list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("list", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        check_writable(options.output, [options.model, options.list])
        pruned = prune(canonicalise(load(options.model)), _lines(options.list))
        write_atomic(options.output, ir.to_proto(with_weights_inside(pruned)).SerializeToString())
    except VitrifyError as error:
        print(f"vitrify: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the pruning list {str(path)!r}: {error}") from error


if __name__ == "__main__":
    main()
