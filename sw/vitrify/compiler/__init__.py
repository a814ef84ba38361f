"""ONNX to program: :func:`compile_model`; integer graph to program: :func:`compile_graph`."""

from .compile import compile_graph
from .driver import compile_model

__all__ = ["compile_graph", "compile_model"]
