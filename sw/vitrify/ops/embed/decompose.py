"""Several convolutions of the image: all with kernels that cover the same pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, array_of, attributes_of, shape_of
from vitrify.quant.decompose import inputs

_KINDS = ("PatchEmbed", "ImageConv")


@dataclass(frozen=True)
class _Reach:
    """Strides, number of places and pixels under a kernel, down and across.

    ``first`` and ``stop`` are counted from the first pixel of the stride.
    """

    strides: tuple[int, ...]
    places: tuple[int, ...]
    first: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node) -> _Reach:
        attributes = attributes_of(node)
        if node.op_type == "PatchEmbed":
            kernel = strides = attributes["patch"]
            pads = (0, 0, 0, 0)
        else:
            kernel = array_of(inputs(node)[1]).shape[2:]
            strides, pads = attributes["strides"], attributes["pads"]
        size = [int(side) for side in shape_of(inputs(node)[0])[2:]]
        return cls(
            tuple(strides),
            tuple((size[i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in (0, 1)),
            tuple(-pads[i] for i in (0, 1)), tuple(kernel[i] - pads[i] for i in (0, 1)),
        )


def decompose_embedding(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``PatchEmbed`` or ``ImageConv`` beside others: zeros around its kernel.

    Those with other strides or places stay as they are.
    """
    image, weight, bias = inputs(node)
    users = [user for user, _ in image.uses() if user.op_type in _KINDS]
    own, reaches = _Reach.of(node), [_Reach.of(user) for user in users]
    if len(users) == 1 or any(
        (each.strides, each.places) != (own.strides, own.places) for each in reaches
    ):
        return None
    first = [min(each.first[i] for each in reaches) for i in (0, 1)]
    stop = [max(each.stop[i] for each in reaches) for i in (0, 1)]
    size = [int(side) for side in shape_of(image)[2:]]
    kernel = [own.stop[i] - own.first[i] for i in (0, 1)]
    matrix = array_of(weight).reshape(-1, int(shape_of(image)[1]), *kernel)
    around = [(own.first[i] - first[i], stop[i] - own.stop[i]) for i in (0, 1)]
    behind = [
        max(0, (own.places[i] - 1) * own.strides[i] + stop[i] - size[i]) for i in (0, 1)
    ]
    pads = [-first[0], -first[1], *behind]
    if node.op_type == "ImageConv" and not np.any(around) and (
        list(attributes_of(node)["pads"]) == pads
    ):
        return None
    return builder.emit(
        "ImageConv", image, np.pad(matrix, [(0, 0), (0, 0), *around]), array_of(bias),
        strides=list(own.strides), pads=pads,
    )
