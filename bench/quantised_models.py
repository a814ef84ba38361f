"""Models as other tools quantise them: static quantisation of ONNX Runtime, QONNX."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

_QONNX = "qonnx.custom_op.general"
#: Images of one run of the calibration.
_BATCH = 32


@dataclass(frozen=True)
class Variant:
    """A way to quantise: type of activations, granularity of weights (int8), form of file."""

    name: str
    activations: QuantType
    per_channel: bool = True
    form: QuantFormat = QuantFormat.QDQ
    qonnx: bool = False


S8_CHANNEL = Variant("s8s8 channel", QuantType.QInt8)
VARIANTS = (
    Variant("u8s8 tensor", QuantType.QUInt8, per_channel=False),
    Variant("u8s8 channel", QuantType.QUInt8),
    Variant("s8s8 tensor", QuantType.QInt8, per_channel=False),
    S8_CHANNEL,
    Variant("u16s8 channel", QuantType.QUInt16),
    Variant("u8s8 tensor, QOperator", QuantType.QUInt8, per_channel=False,
            form=QuantFormat.QOperator),
    Variant("u8s8 channel, QOperator", QuantType.QUInt8, form=QuantFormat.QOperator),
    Variant("u8s8 tensor, QONNX", QuantType.QUInt8, per_channel=False, qonnx=True),
)


class _Reader(CalibrationDataReader):
    """What it iterates over, for ONNX Runtime."""

    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
        self._left = feeds

    def get_next(self) -> dict[str, np.ndarray]:
        """The next feed; an empty one ends the calibration."""
        return next(self._left, {})


def _feeds(
    images: npt.NDArray[np.float32], inputs: Sequence[onnx.ValueInfoProto], tasks: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of images, the tasks in turn; one by one where the batch is fixed."""
    image, *others = inputs
    batch = _BATCH if image.type.tensor_type.shape.dim[0].dim_param else 1
    for task in range(tasks):
        for at in range(0, len(images), batch):
            some = images[at : at + batch]
            yield {image.name: some, **{one.name: np.full(len(some), task) for one in others}}


def quantise_file(
    source: Path, target: Path, variant: Variant, images: npt.NDArray[np.float32], tasks: int = 1
) -> None:
    """Write ``source`` to ``target``, quantised as ``variant`` says, ranges from ``images``."""
    inputs = onnx.load(source).graph.input
    logging.disable(logging.WARNING)  # advice to prepare models, and what has no axis to quantise
    try:
        quantize_static(
            source, target, _Reader(_feeds(images, inputs, tasks)), quant_format=variant.form,
            per_channel=variant.per_channel, activation_type=variant.activations,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    if variant.qonnx:
        onnx.save(as_qonnx(onnx.load(target)), target)


def as_qonnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """Pairs of a quantiser and its dequantiser as QONNX spells them: one ``Quant`` on floats."""
    graph = model.graph
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    ranks = {name: array.ndim for name, array in stored.items()}
    makers = {name: node for node in graph.node for name in node.output}
    kept: dict[int, onnx.NodeProto] = {}
    gone: set[str] = set()
    for place, node in enumerate(graph.node):
        kept[place] = node
        if node.op_type != "DequantizeLinear":
            continue
        code, scale, zero = node.input
        shift, step = stored[zero], stored[scale]
        if step.ndim:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            form = [-1 if i == axis % ranks[code] else 1 for i in range(ranks[code])]
            shift, step = shift.reshape(form), step.reshape(form)
        new = {"scale": step, "zero": shift.astype(np.float32),
               "bits": np.array(8 * shift.dtype.itemsize, np.float32)}
        if code in makers:
            source = makers[code].input[0]
            gone.add(code)
        else:
            source = f"{node.name}.weight"
            new["weight"] = ((stored[code].astype(np.float64) - shift) * step).astype(np.float32)
        for name, value in new.items():
            graph.initializer.append(onnx.numpy_helper.from_array(value, f"{node.name}.{name}"))
        kept[place] = onnx.helper.make_node(
            "Quant", [source, *(f"{node.name}.{name}" for name in ("scale", "zero", "bits"))],
            node.output, node.name, domain=_QONNX, signed=int(shift.dtype.kind == "i"), narrow=0,
            rounding_mode="ROUND",
        )
    nodes = [node for node in kept.values() if not set(node.output) & gone]
    used = {name for node in nodes for name in node.input}
    left = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(left)
    model.opset_import.append(onnx.helper.make_opsetid(_QONNX, 1))
    return model
