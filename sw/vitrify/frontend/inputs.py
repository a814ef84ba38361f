"""What a model takes: one image and numbers of tasks, or any tensors of fixed sizes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import ModelError
from vitrify.arch.formats import INPUT_TYPES
from vitrify.ir import shape_of

#: Rank of an image batch: [N, C, H, W].
IMAGE_RANK = 4
#: Numbers in the largest input accepted; it keeps a damaged size from exhausting memory.
LARGEST_INPUT = 1 << 26
#: Types of inputs that are no images; what is bfloat16 is given as float32.
_TYPES = {ir.DataType.BFLOAT16, *(ir.DataType.from_numpy(np.dtype(name)) for name in INPUT_TYPES)}


class ModelInputError(ModelError):
    """The model does not take exactly one image of a fixed size."""


def inputs_of(model: ir.Model) -> list[ir.Value]:
    """The graph inputs that are no weights."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def task_inputs(model: ir.Model) -> list[ir.Value]:
    """The graph inputs that are task numbers: int64, one for each picture or one for all."""
    return [
        value
        for value in inputs_of(model)
        if value.dtype == ir.DataType.INT64 and value.shape is not None and len(value.shape) <= 1
    ]


def image_input(model: ir.Model) -> ir.Value:
    """The one graph input that is no task, checked to be an image batch of fixed size.

    Raises
    ------
    ModelInputError
        There is no such input, there are others, or its size is not fixed.
    """
    tasks = task_inputs(model)
    inputs = [value for value in inputs_of(model) if value not in tasks]
    listed = ", ".join(f"'{value.name}' {value.shape}" for value in inputs) or "none"
    if len(inputs) != 1:
        raise ModelInputError(
            f"The model has {len(inputs)} inputs ({listed}), but one image [N, C, H, W] is needed; "
            "export it with the image, and int64 task numbers [N] if it has any, as inputs."
        )
    image = inputs[0]
    if image.shape is None or len(image.shape) != IMAGE_RANK:
        raise ModelInputError(
            f"The model has no image input (only {listed}); "
            "export a vision transformer that takes [N, C, H, W]."
        )
    if image.dtype is not None and not (
        image.dtype.is_floating_point() or image.dtype == ir.DataType.UINT8
    ):
        raise ModelInputError(
            f"Input '{image.name}' is of the type {image.dtype.name}, but an image of floats or of "
            "uint8 is needed; export the model with such an input."
        )
    _check_sizes(
        image, "give --input-shape C,H,W, or export the model with a fixed image size"
    )
    batch = image.shape[0]
    for task in tasks:
        assert task.shape is not None, "task_inputs looked"
        if any(isinstance(size, int) and size not in (1, batch) for size in task.shape):
            raise ModelInputError(
                f"Task input '{task.name}' has the shape {task.shape}, but one number for each of "
                f"the {batch} pictures or one for all is needed; export the model again."
            )
    return image


def takes_image(model: ir.Model) -> bool:
    """Whether a model takes one image, whatever its size, and nothing else but tasks."""
    tasks = task_inputs(model)
    inputs = [value for value in inputs_of(model) if value not in tasks]
    return len(inputs) == 1 and is_image(inputs[0])


def is_image(value: ir.Value) -> bool:
    """Whether an input is a batch of images of floats or of pixels."""
    number = value.dtype is None or value.dtype.is_floating_point()
    pixels = value.dtype == ir.DataType.UINT8
    return (number or pixels) and value.shape is not None and len(value.shape) == IMAGE_RANK


def model_inputs(model: ir.Model) -> list[ir.Value]:
    """The graph inputs of any kind, each checked to be a batch of tensors of a fixed size.

    Raises
    ------
    ModelInputError
        Names the first that is none.
    """
    inputs = inputs_of(model)
    if not inputs:
        raise ModelInputError("The model has no input; export it with one.")
    for value in inputs:
        if value.dtype is not None and value.dtype not in _TYPES:
            raise ModelInputError(
                f"Input '{value.name}' is of the type {value.dtype.name}, but numbers or booleans "
                "are needed; export the model with such an input."
            )
        if value.shape is None or not len(value.shape):
            raise ModelInputError(
                f"Input '{value.name}' has no batch: its shape is {value.shape}, and the first "
                "axis of every input has to count the samples; export the model so."
            )
        _check_sizes(value, "give --input-shape NAME=SIZES without the batch, or export the model "
                     "with fixed sizes")  # fmt: skip
    batches = {value.name: shape_of(value)[0] for value in inputs}
    fixed = {size if isinstance(size, int) else None for size in batches.values()}
    if len(fixed) > 1:
        listed = ", ".join(f"'{name}' {size}" for name, size in batches.items())
        raise ModelInputError(
            f"The first axes of the inputs differ ({listed}), but each has to count the samples; "
            "export the model so."
        )
    return inputs


def _check_sizes(value: ir.Value, way_out: str) -> None:
    """Refuse sizes that are not fixed, empty or huge."""
    assert value.shape is not None, "the caller looked"
    dynamic = [str(size) for size in value.shape[1:] if not isinstance(size, int)]
    if dynamic:
        raise ModelInputError(
            f"Input '{value.name}' has the dynamic size {', '.join(dynamic)} in {value.shape}; "
            f"only the batch may be dynamic: {way_out}."
        )
    if any(int(size) < 1 for size in value.shape if isinstance(size, int)):
        raise ModelInputError(
            f"Input '{value.name}' has the empty shape {value.shape}; export the model again."
        )
    if np.prod([float(size) for size in value.shape if isinstance(size, int)]) > LARGEST_INPUT:
        raise ModelInputError(
            f"Input '{value.name}' has the shape {value.shape}, more than {LARGEST_INPUT} numbers; "
            "export the model for smaller ones."
        )
