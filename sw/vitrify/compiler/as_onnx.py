"""The integer graph as standard ONNX for other tools: integers between (de)quantisers.

The canonical graph gets the core's formats: int8 and int16 tensors and weights.  What ONNX has no
operators for stays float: statistics of normalisations, scores and softmax, tables between their
256 points, weights of experts and those that a task chooses.  So it is close to golden and not
equal; :func:`closeness` says how.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as passes

from vitrify.arch.config import ArchConfig
from vitrify.arch.formats import INT8
from vitrify.frontend import image_input
from vitrify.frontend.edit import constant_of
from vitrify.ir import Evaluator as FloatEvaluator
from vitrify.ir import shape_of
from vitrify.ops.linear.integer import QLinear
from vitrify.quant.calibrate import feeds
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import LayerScales, QuantGraph

#: The first operator set whose quantisers have 16 bits.
_OPSET = 21
#: Images that are compared, and those that show how large an output's numbers are.
_IMAGES, _RANGE_IMAGES = 4, 16

Array = npt.NDArray[Any]


def as_onnx(canonical: ir.Model, graph: QuantGraph) -> ir.Model:
    """A model of ONNX's own operators with the integers of ``graph``; inputs and outputs stay.

    Parameters
    ----------
    canonical : the model that ``graph`` was made of
    """
    model = canonical.clone()
    writer = _Writer(model)
    values = {value.name: value for node in model.graph for value in node.outputs}
    nodes = {node.name: node for node in model.graph}
    for op in graph.ops:
        node, scales = nodes.get(op.name), graph.scales.get(op.name)
        if isinstance(op, QLinear) and scales is not None and node is not None:
            writer.layer(node, op, graph)
    done: set[str] = set()
    for op in graph.ops:
        value, tensor = values.get(graph.values.get(op.name, "")), graph.tensors[op.out]
        if value is None or value.name in done:
            continue
        done.add(value.name or "")
        # units that are split reach further with the same step
        bits = tensor.bits if not tensor.copies else 2 * INT8.bits
        count = tensor.channels - len(tensor.copies)
        scale = np.asarray(tensor.scale, np.float64)
        scale = scale[:count] if scale.ndim else scale
        offset = np.asarray(tensor.offset, np.float64)
        offset = offset[:count] if offset.ndim and not tensor.copies else np.zeros(())
        writer.quantised(value, scale, offset, tensor.zero_point, bits)
    image = image_input(model)
    multiplier = graph.input.multiplier
    shift = (graph.input.offset + 128) / multiplier
    writer.quantised(image, 1 / multiplier, -shift, 0, 0, axis=1)
    passes.InlinePass()(model)
    passes.RemoveUnusedNodesPass()(model)
    model.graph.opset_imports.clear()
    model.graph.opset_imports[""] = _OPSET
    passes.NameFixPass()(model)
    return model


def closeness(
    model: ir.Model, graph: QuantGraph, arch: ArchConfig, images: npt.NDArray[np.float32]
) -> dict[str, float]:
    """How far ONNX Runtime is from the integer graph, by output: root mean square in steps.

    A step is what 8 bits would resolve: the largest number of the output by 127.

    Parameters
    ----------
    model : of :func:`as_onnx`, run as it is written
    images : float32 ``[N, C, H, W]``, of which a few are taken
    """
    some = images[:_RANGE_IMAGES]
    tasks = {name: np.arange(len(some)) % count for name, count in graph.tasks.items()}
    names = [name for name in graph.outputs if graph.forms[name].shape is None]
    exact = Evaluator(graph, arch).outputs(some, tasks)
    compared = {name: task[:_IMAGES] for name, task in tasks.items()}
    found = FloatEvaluator(model, names).run(feeds(model, some[:_IMAGES], compared))
    result = {}
    for name in names:
        step = max(float(np.abs(exact[name]).max()), 1e-30) / INT8.max
        wanted = exact[name][: len(found[name])].reshape(found[name].shape)
        result[name] = float(np.sqrt(np.mean((found[name] - wanted) ** 2))) / step
    return result


class _Writer:
    """Puts quantisers into a canonical graph."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._count = 0
        self._read: dict[tuple[str, bytes], ir.Value] = {}

    def layer(self, node: ir.Node, op: QLinear, graph: QuantGraph) -> None:
        """Integers for the weights of ``node``, and the formats around them."""
        scales = graph.scales[op.name]
        x, weight, bias = node.inputs[:3]
        assert x is not None
        old, old_bias = constant_of(weight), constant_of(bias)
        units = len(scales.weight)
        inputs = len(scales.operand)
        if old is None or old_bias is None or old.size != units * inputs:
            return
        integers = op.weight[:units, :inputs]
        step, each = scales.weight, 1 / scales.operand
        stored = self._op(
            node, "DequantizeLinear", self._constant(integers, "int8"), self._constant(step),
            axis=0,
        )
        made = self._op(node, "Mul", stored, self._constant(each))
        if old.ndim > 2:
            made = self._op(node, "Reshape", made, self._constant(np.array(old.shape), "int64"))
        made.shape, made.type = ir.Shape(old.shape), ir.TensorType(ir.DataType.FLOAT)
        node.replace_input_with(1, made)
        node.replace_input_with(2, self._constant(scales.bias.reshape(old_bias.shape)))
        if scales.narrowed:
            node.replace_input_with(0, self._operand(node, x, scales))
        if scales.result is not None:
            table_step, centre = scales.result
            bits = INT8.bits if not graph.tensors[op.out].copies else 2 * INT8.bits
            self.quantised(node.outputs[0], np.asarray(table_step), centre, 0, bits)

    def _operand(self, node: ir.Node, x: ir.Value, scales: LayerScales) -> ir.Value:
        """``x`` as bytes, once for all layers that read it in the same format."""
        scale, offset = np.abs(scales.operand), scales.offset
        key = x.name or "", scale.tobytes() + offset.tobytes()
        if key not in self._read:
            self._read[key] = self._pair(node, x, scale, offset, 0, INT8.bits, -1)
        return self._read[key]

    def quantised(
        self, value: ir.Value, scale: Array, offset: Array, zero: int, bits: int, axis: int = -1
    ) -> None:
        """``value`` in a format, for everything that reads it; ``bits`` 0: uint8."""
        uses = list(value.uses())
        size = shape_of(value)[axis]
        output = value.is_graph_output()
        if any(a.ndim and a.size not in (1, size) for a in (scale, offset)) or not (uses or output):
            return
        if output:
            first = None
        else:
            order = {node: place for place, node in enumerate(self._graph)}
            first = min((node for node, _ in uses), key=order.__getitem__)
        made = self._pair(first, value, scale, offset, zero, bits, axis)
        for node, place in uses:
            node.replace_input_with(place, made)
        if output:
            place = list(self._graph.outputs).index(value)
            name, value.name = value.name, f"{value.name}.float"
            made.name, made.type, made.shape = name, value.type, value.shape
            self._graph.outputs[place] = made

    def _pair(
        self, before: ir.Node | None, x: ir.Value, scale: Array, offset: Array, zero: int,
        bits: int, axis: int,
    ) -> ir.Value:
        kind = {0: "uint8", 8: "int8", 16: "int16"}[bits]
        rank = len(shape_of(x))
        form = [1] * rank
        form[axis] = -1
        shift = None if not np.any(offset) else self._constant(np.reshape(offset, form))
        scale = scale if scale.ndim == 0 or scale.size > 1 else scale.reshape(())
        parts = self._constant(scale), self._constant(np.full(scale.shape, zero), kind)
        where = {"axis": axis} if scale.ndim else {}
        shifted = x if shift is None else self._op(before, "Sub", x, shift)
        code = self._op(before, "QuantizeLinear", shifted, *parts, **where)
        real = self._op(before, "DequantizeLinear", code, *parts, **where)
        made = real if shift is None else self._op(before, "Add", real, shift)
        made.shape, made.type = x.shape, x.type
        return made

    def _op(
        self, before: ir.Node | None, op_type: str, *inputs: ir.Value, **attributes: Any
    ) -> ir.Value:
        self._count += 1
        node = ir.node(op_type, inputs, attributes, name=f"{op_type}.{self._count}")
        node.outputs[0].name = f"{op_type}.{self._count}.out"
        if before is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(before, node)
        return node.outputs[0]

    def _constant(self, array: Array, kind: str = "float32") -> ir.Value:
        self._count += 1
        name = f"format.{self._count}"
        data = np.asarray(array, kind)
        value = ir.Value(
            name=name, shape=ir.Shape(data.shape), const_value=ir.tensor(data, name=name),
            type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
        )
        self._graph.register_initializer(value)
        return value
