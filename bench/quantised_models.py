"""The project's models as other tools quantise them: static quantisation of ONNX Runtime, QONNX."""

from __future__ import annotations

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
    """A way to quantise: types of activations and weights, granularity of weights, form of file."""

    name: str
    activations: QuantType
    weights: QuantType = QuantType.QInt8
    per_channel: bool = True
    form: QuantFormat = QuantFormat.QDQ
    qonnx: bool = False


VARIANTS = (
    Variant("u8s8 tensor", QuantType.QUInt8, per_channel=False),
    Variant("u8s8 channel", QuantType.QUInt8),
    Variant("s8s8 tensor", QuantType.QInt8, per_channel=False),
    Variant("s8s8 channel", QuantType.QInt8),
    Variant("u16s8 channel", QuantType.QUInt16),
    Variant("u8s8 tensor, QOperator", QuantType.QUInt8, per_channel=False,
            form=QuantFormat.QOperator),
    Variant("u8s8 channel, QOperator", QuantType.QUInt8, form=QuantFormat.QOperator),
    Variant("u8s8 tensor, QONNX", QuantType.QUInt8, per_channel=False, qonnx=True),
)


class _Reader(CalibrationDataReader):
    """Batches of images, the tasks in turn."""

    def __init__(self, images: npt.NDArray[np.float32], inputs: Sequence[str], tasks: int) -> None:
        self._left = self._batches(images, inputs, tasks)

    @staticmethod
    def _batches(
        images: npt.NDArray[np.float32], inputs: Sequence[str], tasks: int
    ) -> Iterator[dict[str, np.ndarray]]:
        image, *others = inputs
        for task in range(tasks):
            for at in range(0, len(images), _BATCH):
                some = images[at : at + _BATCH]
                yield {image: some, **{name: np.full(len(some), task) for name in others}}

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]  # None: the end
        return next(self._left, None)


def quantise_file(
    source: Path, target: Path, variant: Variant, images: npt.NDArray[np.float32], tasks: int = 1
) -> None:
    """Write ``source`` to ``target``, quantised as ``variant`` says, ranges from ``images``."""
    inputs = [value.name for value in onnx.load(source).graph.input]
    quantize_static(
        source, target, _Reader(images, inputs, tasks), quant_format=variant.form,
        per_channel=variant.per_channel, activation_type=variant.activations,
        weight_type=variant.weights,
    )
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
