"""Sizes that a model leaves open, given when it is compiled."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vitrify.arch.errors import InputError
from vitrify.ir import shape_of
from vitrify.ir.layout import channels_last


def set_image_shape(model: ir.Model, image: ir.Value, shape: Sequence[int | str]) -> None:
    """Give the image a shape, in place; those of the tensors behind it are to be found anew."""
    image.shape = ir.Shape(shape)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            value.shape = None


def set_image_size(model: ir.Model, image: ir.Value, size: Sequence[int]) -> None:
    """Fix channels, height and width of the image, in place.

    Raises
    ------
    InputError
        If the model fixes another one, or they are not three sizes.
    """
    batch, *sizes = shape_of(image)
    last = channels_last(image)
    sizes = [sizes[-1], *sizes[:-1]] if last else sizes
    if len(size) != len(sizes) or min(size) < 1:
        raise InputError(
            f"the size {','.join(map(str, size))} of input {image.name!r} is none such as "
            "3,224,224: channels, height, width"
        )
    for old, new in zip(sizes, size, strict=True):
        if isinstance(old, int) and old != new:
            raise InputError(
                f"--input-shape {','.join(map(str, size))} does not fit input {image.name!r} "
                f"{image.shape}: a size that is fixed cannot be changed; export the model again"
            )
    size = [*size[1:], size[0]] if last else size
    set_image_shape(model, image, [batch, *size])
