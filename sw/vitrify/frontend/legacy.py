"""Spellings of older operator sets, and sequences, rewritten as what they mean today."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from .edit import Editor, constant_of, rewrite
from .reference import ONE_AXIS, SOFTMAXES


def _flattening_softmax(edit: Editor) -> list[ir.Value | None]:
    x = edit.inputs[0]
    axis, op_type = int(edit.attribute("axis", 1)), edit.node.op_type
    rank = None if x is None or x.shape is None else len(x.shape)
    if rank is not None and axis % rank == rank - 1:
        return [edit.op(op_type, x, axis=-1)]
    # two axes mean the same in every operator set
    flat = edit.op(op_type, edit.op("Flatten", x, axis=axis), axis=1)
    return [edit.op("Reshape", flat, edit.op("Shape", x))]


def _element(edit: Editor) -> list[ir.Value | None] | None:
    """An element of what a tensor was split into, or of what was put into a sequence."""
    sequence, place = edit.inputs[0], constant_of(edit.inputs[1])
    maker = None if sequence is None else sequence.producer()
    if maker is None or place is None or place.size != 1:
        return None
    index = int(place.reshape(()))
    if maker.op_type == "SequenceConstruct" and -len(maker.inputs) <= index < len(maker.inputs):
        return [edit.op("Identity", maker.inputs[index])]
    if maker.op_type != "SplitToSequence":
        return None
    x = maker.inputs[0]
    axis = maker.attributes["axis"].as_int() if "axis" in maker.attributes else 0
    keep = maker.attributes["keepdims"].as_int() if "keepdims" in maker.attributes else 1
    given = len(maker.inputs) > 1 and maker.inputs[1] is not None
    sizes = constant_of(maker.inputs[1]) if given else np.array(1)
    if sizes is None or x is None:
        return None
    if sizes.ndim == 0:
        size = None if x.shape is None else x.shape[axis]
        if not isinstance(size, int):
            if index < 0:
                return None
            size = (index + 1) * int(sizes)  # a slice ends where the tensor does
        sizes = np.full(-(-size // int(sizes)), int(sizes))
    if not -len(sizes) <= index < len(sizes):
        return None
    ends = np.cumsum(sizes)
    end = int(ends[index])
    bounds = [np.array([number], np.int64) for number in (end - int(sizes[index]), end, axis)]
    part = edit.op("Slice", x, *(edit.constant(bound) for bound in bounds))
    if given or keep:
        return [part]
    if edit.graph.opset_imports.get("", 1) >= ONE_AXIS:
        return [edit.op("Squeeze", part, edit.constant(np.array([axis], np.int64)))]
    return [edit.op("Squeeze", part, axes=[axis])]


def modernise(model: ir.Model) -> None:
    """Rewrite ``model`` in place; what nothing uses any more stays in it."""
    old = model.opset_imports.get("", 1) < ONE_AXIS
    op_types = {node.op_type for node in model.graph if node.domain == ""}
    if old and op_types & set(SOFTMAXES):
        ShapeInferencePass()(model)
        rewrite(model, {("", op_type): _flattening_softmax for op_type in SOFTMAXES})
    if "SequenceAt" in op_types:
        if "SplitToSequence" in op_types:
            ShapeInferencePass()(model)
        rewrite(model, {("", "SequenceAt"): _element})
