"""Sizes that a model leaves open, given when it is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from vitrify.arch.errors import InputError
from vitrify.ir import shape_of
from vitrify.ir.layout import channels_last

from .inputs import inputs_of, is_image

#: Of the image, or of inputs by their names.
Sizes = Sequence[int] | Mapping[str, Sequence[int]]


def set_shape(model: ir.Model, value: ir.Value, shape: Sequence[int | str]) -> None:
    """Give an input a shape, in place; those of the tensors behind it are to be found anew."""
    value.shape = ir.Shape(shape)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for result in node.outputs:
            result.shape = None


def set_sizes(model: ir.Model, sizes: Sizes) -> None:
    """Fix sizes that a model leaves open, in place: those of its image, or of inputs by name.

    Raises
    ------
    InputError
        If the model fixes another one, has no such input, or there are more or fewer of them.
    """
    inputs = {value.name or "": value for value in inputs_of(model) if value.shape is not None}
    if not isinstance(sizes, Mapping):
        images = [name for name, value in inputs.items() if is_image(value)]
        if len(images) != 1 and len(inputs) > 1:
            raise InputError(
                f"--input-shape {_text(sizes)} must say which of {', '.join(map(repr, inputs))} it "
                "is of: NAME=SIZES"
            )
        sizes = dict.fromkeys(images or inputs, sizes)
    for name, size in sizes.items():
        if name not in inputs:
            raise InputError(
                f"--input-shape {name}={_text(size)}: the model has no input {name!r}; it has "
                f"{', '.join(map(repr, inputs))}"
            )
        _set_size(model, inputs[name], size)


def _set_size(model: ir.Model, value: ir.Value, size: Sequence[int]) -> None:
    """Fix the sizes of one input; those of an image are channels, height and width."""
    batch, *sizes = shape_of(value)
    image = is_image(value)
    last = image and channels_last(value)
    sizes = [sizes[-1], *sizes[:-1]] if last else sizes
    if len(size) != len(sizes) or min(size) < 1:
        such = "3,224,224: channels, height, width" if image else f"those of {value.shape}"
        raise InputError(f"the size {_text(size)} of input {value.name!r} is none such as {such}")
    for old, new in zip(sizes, size, strict=True):
        if isinstance(old, int) and old != new:
            raise InputError(
                f"--input-shape {_text(size)} does not fit input {value.name!r} "
                f"{value.shape}: a size that is fixed cannot be changed; export the model again"
            )
    size = [*size[1:], size[0]] if last else size
    set_shape(model, value, [batch, *size])


def _text(size: Sequence[int]) -> str:
    return ",".join(map(str, size))
