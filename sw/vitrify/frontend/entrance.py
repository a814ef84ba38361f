"""Inputs as people have them: images with their channels last, a type that NumPy lacks."""

from __future__ import annotations

import onnx_ir as ir

from vitrify.ir import shape_of
from vitrify.ir.layout import TO_FIRST, TO_LAST, channels_last

from .inputs import is_image

#: Metadata of an image input whose channels the user gives last.
_LAYOUT, _LAST = "vitrify.layout", "NHWC"


def is_channels_last(image: ir.Value) -> bool:
    """Whether what :func:`normalise` made of an image input was ``[N, H, W, C]``."""
    return image.metadata_props.get(_LAYOUT) == _LAST


def normalise(model: ir.Model, image: ir.Value) -> None:
    """Make an input float32 where it is bfloat16, and ``[N, C, H, W]`` if it is an image, in place.

    What turns it into the one that the model had becomes the model's first nodes.
    """
    nodes: list[ir.Node] = []
    readers, given = list(image.uses()), image
    if is_image(image) and channels_last(image):
        image.shape = ir.Shape([shape_of(image)[axis] for axis in TO_FIRST])
        image.metadata_props[_LAYOUT] = _LAST
        nodes.append(ir.node("Transpose", [given], {"perm": TO_LAST}))
        given = nodes[-1].outputs[0]
    if image.dtype == ir.DataType.BFLOAT16:
        image.dtype = ir.DataType.FLOAT
        nodes.append(ir.node("Cast", [given], {"to": ir.DataType.BFLOAT16.value}))
        given = nodes[-1].outputs[0]
    for number, node in enumerate(nodes):
        node.name = node.outputs[0].name = f"{image.name}.given.{number}"
    for use in readers if nodes else ():
        use.node.replace_input_with(use.idx, given)
    if nodes:
        model.graph.insert_before(model.graph[0], nodes)
