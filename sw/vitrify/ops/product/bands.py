"""Products over tokens whose operands do not fit the token memory: some heads at a time."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.ir import Builder, array_of, attributes_of, shape_of
from vitrify.quant.decompose import inputs

# Parts of the token memory that operands may take, with what they are made of: guesses of what
# others leave (:mod:`vitrify.ops.attention.bands`).
#: All heads at once.
WHOLE = 7 / 8
#: A band of them: nothing smaller is left to try.
HEADS = 15 / 16


def heads_apart(builder: Builder, node: ir.Node, arch: ArchConfig) -> ir.Value | None:
    """``Product`` of columns (``X.T @ Y``) in the fewest bands of heads that fit, side by side."""
    attributes = attributes_of(node)
    if attributes["layout"] != "tn" or _need(node, arch, 1) <= WHOLE * arch.token_bytes:
        return None
    most = HEADS * arch.token_bytes
    count = next(
        (n for n in range(2, attributes["heads"] + 1) if _need(node, arch, n) <= most), None
    )
    return None if count is None else side_by_side(builder, node, count)


def side_by_side(builder: Builder, node: ir.Node, count: int) -> ir.Value:
    """The results of ``node`` in ``count`` bands of its heads, as one value."""
    attributes, operands = attributes_of(node), inputs(node)
    heads, made = attributes["heads"], None
    for band in np.array_split(np.arange(heads), count):
        parts = [
            some_channels(builder, x, np.arange(int(shape_of(x)[2])).reshape(heads, -1)[band])
            for x in operands
        ]
        part = builder.emit(node.op_type, *parts, **{**attributes, "heads": len(band)})
        made = part if made is None else builder.emit("ConcatChannels", made, part)
    assert made is not None, "there is a head"
    return made


def some_channels(builder: Builder, value: ir.Value, index: np.ndarray) -> ir.Value:
    """Some channels of ``value``, made without the others where nothing else reads them."""
    node, chosen = value.producer(), index.reshape(-1)
    private = len(value.uses()) == 1 and not value.is_graph_output()
    if node is None or not private:
        return builder.emit("Channels", value, index=chosen.tolist())
    x, *parameters = inputs(node)
    if node.op_type == "Linear":
        weight, bias = map(array_of, parameters)
        return builder.emit("Linear", x, weight[chosen], bias[chosen])
    if node.op_type == "Softmax" and attributes_of(node)["axis"] == "tokens":
        return builder.emit("Softmax", some_channels(builder, x, index), **attributes_of(node))
    return builder.emit("Channels", value, index=chosen.tolist())


def _need(node: ir.Node, arch: ArchConfig, bands: int) -> int:
    """Bytes of the operands of the largest band of heads, and of what they are made of."""
    (x, y), heads = inputs(node), attributes_of(node)["heads"]
    most = -(-heads // bands)
    tokens, width = (int(side) for side in shape_of(y)[1:])
    turned = int(shape_of(x)[2]) // heads * most * _padded(tokens, arch)
    values = tokens * most * _padded(width // heads, arch)
    # Residual streams of 16 bits.
    sources = {_source(value) for value in (x, y)}
    return turned + values + sum(
        2 * tokens * _padded(int(shape_of(source)[2]), arch) for source in sources
    )


def _source(value: ir.Value) -> ir.Value:
    """What a value is made of row by row, or column by column."""
    node = value.producer()
    while node is not None and node.op_type in ("Linear", "LayerNorm", "RMSNorm", "Softmax"):
        value = inputs(node)[0]
        node = value.producer()
    return value


def _padded(channels: int, arch: ArchConfig) -> int:
    return -(-channels // arch.depth) * arch.depth
