"""Executing a model with ONNX Runtime, any tensor of it on request.

ONNX Runtime is the judge of every stage, so what it answers must not depend on the processor.
Its optimiser fuses quantised operators into integer kernels, and those for u8 x s8 products add
pairs in 16 bits that saturate where the processor has no VNNI: the same file gives other numbers
there.  Executed as written, operator by operator, it gives the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from vitrify.arch.quantised import is_quantised

#: ONNX Runtime's severity levels: 4 prints what makes it end only; errors are raised all the same.
_FATAL_ONLY = 4


def session_options(op_types: Iterable[str], *, threads: int | None = None) -> ort.SessionOptions:
    """How ONNX Runtime has to execute a model with these operators to be a reference.

    Parameters
    ----------
    op_types:
        Operators of the main graph and of what is inside it.
    threads:
        Threads of the session; ONNX Runtime's choice when ``None``.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # Threads that wait for the next operator would keep a core busy for nothing: a third of what
    # a calibration takes of the processor.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its arena keeps the most that was ever needed, beside what the caller holds of the results.
    options.enable_cpu_mem_arena = False
    if is_quantised(op_types):
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def operators(proto: onnx.ModelProto) -> set[str]:
    """Operators of a model, those of its functions and of the graphs inside nodes included."""
    found: set[str] = set()
    left: list[Iterable[onnx.NodeProto]] = [proto.graph.node]
    left += [function.node for function in proto.functions]
    while left:
        for node in left.pop():
            found.add(node.op_type)
            for attribute in node.attribute:
                left += [graph.node for graph in (attribute.g, *attribute.graphs)]
    return found


def with_weights_inside(model: ir.Model) -> ir.Model:
    """``model``, or a copy of it in whose file no weight lies elsewhere.

    ONNX Runtime does not find such weights when it gets a model as bytes.
    """
    tensors = (value.const_value for value in model.graph.initializers.values())
    if not any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        return model
    return ir.external_data.load_to_model(model.clone())


class Evaluator:
    """A session that yields chosen tensors of a model.

    Parameters
    ----------
    outputs:
        Names of graph outputs or inner tensors, in the order wanted; all tensors that nodes of the
        main graph produce when ``None``.
    threads:
        Threads of the session; ONNX Runtime's choice when ``None``.
    """

    def __init__(
        self, model: ir.Model, outputs: Sequence[str] | None = None, *, threads: int | None = None
    ) -> None:
        produced = {
            value.name: value for node in model.graph for value in node.outputs if value.name
        }
        self.outputs = list(produced) if outputs is None else list(outputs)
        unknown = [name for name in self.outputs if name not in produced]
        if unknown:
            raise ValueError(f"the model has no tensor named {unknown[0]!r}")
        proto = ir.to_proto(with_weights_inside(model))
        declared = {value.name for value in proto.graph.output}
        for name in self.outputs:
            if name not in declared:
                dtype = produced[name].dtype or ir.DataType.FLOAT
                info = onnx.helper.make_tensor_value_info(name, dtype.value, None)
                proto.graph.output.append(info)
        options = session_options(operators(proto), threads=threads)
        data = proto.SerializeToString()
        del proto  # the session makes two more copies of the weights
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._types = {
            value.name: value.dtype.numpy()
            for value in model.graph.inputs
            if value.dtype is not None and value.dtype != ir.DataType.BFLOAT16
        }

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, np.ndarray]:
        """Run once; ``feeds`` maps graph input names to arrays, which get the inputs' types."""
        if not self.outputs:
            return {}  # to ONNX Runtime an empty list means all
        arrays = self._session.run(
            self.outputs,
            {name: np.asarray(array, self._types.get(name)) for name, array in feeds.items()},
        )
        return {name: np.asarray(array) for name, array in zip(self.outputs, arrays, strict=True)}


def evaluate(
    model: ir.Model, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Run ``model`` once and return the named tensors, all of them when ``outputs`` is ``None``."""
    return Evaluator(model, outputs).run(feeds)
