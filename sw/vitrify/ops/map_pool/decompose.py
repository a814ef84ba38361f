"""Averages over fewer pixels at the border of a map, by those over all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, attributes_of, shape_of
from vitrify.quant.decompose import inputs


def decompose_pool(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``Pool`` whose average leaves out what is outside: zeros count, and each pixel is scaled."""
    attributes, (x,) = attributes_of(node), inputs(node)
    pads = attributes["pads"]
    if attributes["kind"] != "average" or attributes["count_include_pad"] or not any(pads):
        return None
    places = []
    for axis in (0, 1):
        size, kernel, stride = (attributes[name][axis] for name in ("map", "kernel", "strides"))
        first = np.arange(-pads[axis], size + pads[axis + 2] - kernel + 1, stride)
        places.append(kernel / (np.minimum(first + kernel, size) - np.maximum(first, 0)))
    scale = np.outer(*places).reshape(-1, 1)
    attributes["count_include_pad"] = 1
    made = builder.emit("Pool", x, **attributes)
    maps = int(shape_of(made)[1]) // len(scale)
    return builder.emit("Affine", made, np.tile(scale, (maps, 1)), np.zeros((1, 1)))
