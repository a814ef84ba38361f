"""Executing the parts of an application that stay on the host."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import BackendError, ModelError
from vitrify.arch.quantised import is_quantised
from vitrify.program import HostPart
from vitrify.program.application import in_batches
from vitrify.program.onnx_graph import operators

from . import numpy_ops

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

#: The provider of ONNX Runtime that is always there.
CPU = ("CPUExecutionProvider",)
#: ONNX Runtime's severity levels: 4 prints what makes it end only; errors are raised all the same.
_FATAL_ONLY = 4
#: What NumPy raises about a node that contradicts itself.
_OBJECTIONS = (
    ValueError, TypeError, IndexError, KeyError, AssertionError, MemoryError, ArithmeticError,
    AttributeError,
)  # fmt: skip


class HostRunner:
    """One part, by ONNX Runtime where that is installed, and by NumPy otherwise.

    Quantised operators are executed as written (:mod:`vitrify.arch.quantised`).

    Parameters
    ----------
    library : ``onnxruntime`` or ``numpy``, to have that one; by default what is there
    providers : those of ONNX Runtime

    Raises
    ------
    BackendError
        If there is no ONNX Runtime and NumPy alone cannot execute the part.
    ModelError
        If ONNX Runtime refuses the part.
    """

    def __init__(
        self, part: HostPart, library: str | None = None, providers: Sequence[str] = CPU
    ) -> None:
        self.part, self._providers = part, providers
        self._run: Callable[[Arrays], list[Array]] = self._by_numpy
        if library != "numpy":
            try:
                import onnxruntime
            except ImportError:
                if library is not None:
                    raise
            else:
                self._run = self._by_onnx_runtime(onnxruntime)
                return
        lacking = numpy_ops.missing(part.graph.nodes)
        if lacking:
            raise BackendError(
                f"a part of the host has the operators {', '.join(lacking)}, which need ONNX "
                f"Runtime: install it with `pip install onnxruntime`"
            )

    def run(self, tensors: Arrays) -> dict[str, Array]:
        """What the part makes of ``tensors``, the batch along the first axis of each."""
        part = self.part
        # a part before may make one without axes, whatever it says of it
        given = {name: np.atleast_1d(tensors[name]) for name in part.reads}
        made = in_batches(self._run, given, part.batch)
        return dict(zip((value.name for value in part.graph.outputs), made, strict=True))

    def _by_onnx_runtime(self, library: Any) -> Callable[[Arrays], list[Array]]:
        options = library.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        if is_quantised(operators(self.part.graph)):
            options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = library.InferenceSession(
                self.part.model, options, providers=list(self._providers)
            )
        # ONNX Runtime's exceptions share no base of their own.
        except Exception as error:
            raise ModelError(
                f"ONNX Runtime cannot load a part of the host: {first_line(error)}"
            ) from error
        kinds = {value.name: value.dtype for value in self.part.graph.inputs}

        def run(arrays: Arrays) -> list[Array]:
            try:
                return session.run(None, {
                    name: np.ascontiguousarray(array, kinds[name]) for name, array in arrays.items()
                })  # fmt: skip
            except Exception as error:
                raise BackendError(f"a part of the host failed: {first_line(error)}") from error

        return run

    def _by_numpy(self, arrays: Arrays) -> list[Array]:
        graph = self.part.graph
        kinds = {value.name: value.dtype for value in graph.inputs}
        known: dict[str, Array] = {
            **graph.constants,
            **{name: np.asarray(array, kinds[name]) for name, array in arrays.items()},
        }
        for node in graph.nodes:
            given = [known[name] if name else None for name in node.inputs]
            try:
                made = numpy_ops.execute(node, graph.opset, given)
            except _OBJECTIONS as error:
                raise BackendError(
                    f"node {node.name!r} ({node.op_type}) of a part of the host failed: "
                    f"{first_line(error)}"
                ) from error
            if any(node.outputs[len(made) :]):
                raise BackendError(
                    f"node {node.name!r} ({node.op_type}) of a part of the host has more results "
                    f"than NumPy makes: install ONNX Runtime with `pip install onnxruntime`"
                )
            known.update(zip(node.outputs, made, strict=False))
        return [known[value.name] for value in graph.outputs]


def first_line(error: Exception) -> str:
    """First line of a message, without ONNX Runtime's prefix."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
