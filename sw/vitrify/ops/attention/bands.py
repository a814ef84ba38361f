"""Attention whose operands do not fit the token memory: some windows or some heads at a time.

Whatever maps row by row in front of windows (layers, norms, permutations) and the layer behind them
are split with them, as the layers around heads are, so that of queries, keys and values only those
of one band are there at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vitrify.arch.config import ArchConfig
from vitrify.ir import Builder, array_of, attributes_of, shape_of
from vitrify.ir.movement import NOTHING
from vitrify.ops.product.bands import HEADS as _HEADS
from vitrify.ops.product.bands import WHOLE as _WHOLE
from vitrify.ops.product.bands import heads_apart, side_by_side
from vitrify.quant.decompose import decompose, inputs

# Parts of the token memory that operands may take, with what they are made of.  The rest is for
# scores, results and whatever is read later; how much that is, only placement knows, and it comes
# after quantisation.  So these are guesses, with which Hiera, SwinV2 and the ViT of DINOv2 fit.
#: A band of windows: more bands cost little, and leave room for other things in one piece.
_BAND = 5 / 8

#: What a table of bytes leaves as it is.
_AS_BYTES = "y = Identity(x)"


def banded(model: ir.Model, arch: ArchConfig) -> ir.Model:
    """A copy of a canonical model whose attentions and products fit ``arch``, where bands help."""
    model = decompose(model, {
        "Attention": functools.partial(_heads_apart, arch=arch),
        "Add": functools.partial(_sum, arch=arch),
        "CrossAttention": functools.partial(_windows_apart, arch=arch),
        "Linear": functools.partial(_with_layer, arch=arch),
        "Product": functools.partial(heads_apart, arch=arch),
    })
    RemoveUnusedNodesPass()(model)
    return model


def _heads_apart(builder: Builder, node: ir.Node, arch: ArchConfig) -> ir.Value | None:
    """The fewest bands of heads that fit, side by side."""
    heads = attributes_of(node)["heads"]
    # The results of all are there beside a band of heads.
    most = int(_HEADS * arch.token_bytes) - _bytes(node.outputs[0], arch, heads)
    count = _fewest(node, arch, heads, most)
    return None if count is None else side_by_side(builder, node, count)


def _sum(builder: Builder, node: ir.Node, arch: ArchConfig) -> ir.Value | None:
    """A sum behind bands of heads, or one of two norms that are too large as they are."""
    return _head_by_head(builder, node) or _of_norms(builder, node, arch)


def _of_norms(builder: Builder, node: ir.Node, arch: ArchConfig) -> ir.Value | None:
    """A sum of two norms by the bytes of the second: otherwise what both are made of is there
    beside the sum, three tensors of 16 bits.
    """
    x, y = inputs(node)
    own = y
    while (moved := _maker(own, "Rows")) is not None and _private(own):
        own = inputs(moved)[0]
    norms = [_maker(value, "LayerNorm") for value in (x, own)]
    if None in norms or not _private(y) or 3 * 2 * _bytes(x, arch) <= arch.token_bytes:
        return None
    return builder.emit("Add", x, builder.emit("Activation", y, kind=_AS_BYTES))


def _head_by_head(builder: Builder, node: ir.Node) -> ir.Value | None:
    """A layer behind bands of heads that is added to something: band by band."""
    for x, y in (inputs(node), inputs(node)[::-1]):
        layer = _maker(y, "Linear")
        if layer is None or not _private(y):
            continue
        parts = _beside(inputs(layer)[0])
        if len(parts) == 1 or any(_maker(part, "Attention") is None for part in parts):
            continue
        weight, bias = (array_of(value) for value in inputs(layer)[1:])
        ends = np.cumsum([int(shape_of(part)[2]) for part in parts])
        for part, own in zip(parts, np.split(weight, ends[:-1], axis=1), strict=True):
            x = builder.emit("Add", x, builder.emit("Linear", part, own, bias))
            bias = np.zeros_like(bias)
        return x
    return None


def _fewest(node: ir.Node, arch: ArchConfig, parts: int, most: int) -> int | None:
    """The fewest bands of so many parts whose operands take ``most`` bytes; ``None``: no bands."""
    if _need(node, arch, parts, 1) <= _WHOLE * arch.token_bytes:
        return None
    return next((n for n in range(2, parts + 1) if _need(node, arch, parts, n) <= most), None)


def _windows_apart(builder: Builder, node: ir.Node, arch: ArchConfig) -> ir.Value | None:
    """Bands of windows, one behind the other."""
    if _layer_behind(node) is not None:
        return None
    bands = list(_bands(builder, node, arch))
    if not bands:
        return None
    return functools.reduce(lambda x, y: builder.emit("ConcatRows", x, y), bands)


def _with_layer(builder: Builder, node: ir.Node, arch: ArchConfig) -> ir.Value | None:
    """A layer behind windows: what it makes of each band is put to its place at once.

    So there are never results of two bands before the layer.
    """
    x, *parameters = inputs(node)
    attention = _maker(x, "CrossAttention")
    if attention is None or _layer_behind(attention) is not node:
        return None
    weight, bias = map(array_of, parameters)
    made, first, total = None, 0, _rows(x)
    for band in _bands(builder, attention, arch):
        index = np.full(total, NOTHING)
        index[first : first + _rows(band)] = np.arange(_rows(band))
        first += _rows(band)
        part = builder.emit("Linear", band, weight, np.zeros(len(weight)))
        part = builder.emit("Rows", part, index=index.tolist())
        made = part if made is None else builder.emit("Add", made, part)
        if first == _rows(band):
            made = builder.emit("Affine", made, np.ones((1, 1)), bias[None])
    return made


def _layer_behind(attention: ir.Node) -> ir.Node | None:
    """The layer that alone reads the result."""
    made = attention.outputs[0]
    users = [user for user, _ in made.uses()]
    private = _private(made) and users[0].op_type == "Linear"
    return users[0] if private else None


def _bands(builder: Builder, node: ir.Node, arch: ArchConfig) -> Iterator[ir.Value]:
    """Attention in the fewest bands of windows that fit; nothing if that is one."""
    attributes, (*operands, bias) = attributes_of(node), inputs(node)
    groups = attributes["groups"]
    count = _fewest(node, arch, groups, int(_BAND * arch.token_bytes))
    if count is None or attributes["kind"] != "softmax":
        return
    every = array_of(bias)
    for band in np.array_split(np.arange(groups), count):
        rows = [np.arange(_rows(x)).reshape(groups, -1)[band].reshape(-1) for x in operands]
        parts = [_some(builder, x, index) for x, index in zip(operands, rows, strict=True)]
        own = every[band] if len(every) > 1 else every
        yield builder.emit("CrossAttention", *parts, own, **{**attributes, "groups": len(band)})


def _beside(value: ir.Value) -> list[ir.Value]:
    """What was put side by side for one reader."""
    node = _maker(value, "ConcatChannels")
    if node is None or not _private(value):
        return [value]
    return [part for x in inputs(node) for part in _beside(x)]


def _maker(value: ir.Value, *op_types: str) -> ir.Node | None:
    node = value.producer()
    return node if node is not None and node.op_type in op_types else None


def _private(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _by_row(value: ir.Value) -> ir.Node | None:
    """What makes ``value`` row by row, and nothing else reads."""
    node = _maker(value, "Rows", "Linear", "LayerNorm", "RMSNorm", "Activation")
    if node is None or not _private(value):
        return None
    return None if attributes_of(node).get("axis", "channels") != "channels" else node


def _some(builder: Builder, value: ir.Value, index: np.ndarray) -> ir.Value:
    """Some rows of ``value``, made of no other rows than necessary."""
    node = _by_row(value)
    if node is None:
        return builder.emit("Rows", value, index=index.tolist())
    x, *parameters = inputs(node)
    if node.op_type == "Rows":
        chosen = np.asarray(attributes_of(node)["index"])[index]
        if (chosen < 0).any():
            return builder.emit("Rows", value, index=index.tolist())
        return _some(builder, x, chosen)
    return builder.emit(node.op_type, _some(builder, x, index), *parameters, **attributes_of(node))


def _need(node: ir.Node, arch: ArchConfig, parts: int, bands: int) -> int:
    """Bytes of the operands of the largest band of ``parts``, and of what all are made of."""
    operands, attributes = inputs(node)[:3], attributes_of(node)
    made = sum(_bytes(x, arch, attributes["heads"]) for x in operands)
    sources: dict[ir.Value, int] = {}
    for x in operands:
        while (maker := _by_row(x)) is not None:
            if attributes_of(maker).get("groups", 1) > 1:
                # a product with factors of a part of a row
                made += 2 * _bytes(x, arch)
            x = inputs(maker)[0]
        if x not in operands:
            # a residual stream, 16 bits
            sources[x] = 2 * _bytes(x, arch)
    return made * -(-parts // bands) // parts + sum(sources.values())


def _rows(value: ir.Value) -> int:
    return int(shape_of(value)[1])


def _bytes(value: ir.Value, arch: ArchConfig, heads: int = 1) -> int:
    """Of an int8 tensor in the token memory."""
    width = int(shape_of(value)[2]) // heads
    return _rows(value) * heads * -(-width // arch.depth) * arch.depth
