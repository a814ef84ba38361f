"""ONNX to program: :func:`compile_model`, or :func:`compile_application` with parts on the host.

Integer graph to program: :func:`compile_graph`.
"""

from .application import compile_application
from .compile import compile_graph
from .driver import compile_model

__all__ = ["compile_application", "compile_graph", "compile_model"]
