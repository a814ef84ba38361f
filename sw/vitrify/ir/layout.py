"""Where the channels of an image are: first, as they are behind the front end, or last."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from .build import shape_of

#: Operators that take images with the channels first.
OF_IMAGES = (
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
#: Behind these the channels are where they were.
ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Relu", "Gelu", "Erf", "Sigmoid", "Tanh", "Clip", "HardSwish",
    "Identity", "Cast", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip
#: Axes of ``[N, C, H, W]`` and ``[N, H, W, C]`` in each other.
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
#: Channels of pictures: grey, colours, colours and a mask.
_CHANNELS = (1, 3, 4)


def channels_last(image: ir.Value) -> bool:
    """Whether an input of four axes is ``[N, H, W, C]``.

    What reads it says so, behind operators that work on every element alone: the transposition that
    an exporter puts there, or a convolution.  Otherwise the sizes say it: as many channels as
    pictures have, and not so many where they would be first.
    """
    left, seen = [image], set[ir.Value]()
    while left:
        value = left.pop()
        # in the model's order, so that the same model is always read in the same way
        readers = dict.fromkeys(use.node for use in value.uses())
        for node in readers if value not in seen else ():
            if node.op_type == "Transpose" and "perm" in node.attributes:
                return tuple(node.attributes["perm"].as_ints()) == TO_FIRST
            if node.op_type in OF_IMAGES:
                return False
            left += node.outputs if node.op_type in ELEMENTWISE else ()
        seen.add(value)
    sizes = shape_of(image)
    return sizes[3] in _CHANNELS and sizes[1] not in _CHANNELS


def is_channels_last_in(proto: onnx.ModelProto, name: str) -> bool:
    """:func:`channels_last` of an input of a model, by its name."""
    graph = ir.from_proto(proto).graph
    return any(channels_last(value) for value in graph.inputs if value.name == name)
