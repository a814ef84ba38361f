"""Executing a model with ONNX Runtime, any tensor of it on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

#: ONNX Runtime's severity levels: 3 prints errors only.
_ERRORS_ONLY = 3


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
        proto = ir.to_proto(model)
        declared = {value.name for value in proto.graph.output}
        for name in self.outputs:
            if name not in declared:
                dtype = produced[name].dtype or ir.DataType.FLOAT
                info = onnx.helper.make_tensor_value_info(name, dtype.value, None)
                proto.graph.output.append(info)
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; ``feeds`` maps graph input names to arrays."""
        arrays = self._session.run(self.outputs, dict(feeds))
        return {name: np.asarray(array) for name, array in zip(self.outputs, arrays, strict=True)}


def evaluate(
    model: ir.Model, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Run ``model`` once and return the named tensors, all of them when ``outputs`` is ``None``."""
    return Evaluator(model, outputs).run(feeds)
