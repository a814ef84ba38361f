"""The canonical graph: an ONNX model of fused vision-transformer operations.

The operation table is :mod:`vitrify.ir.ops`; :func:`verify` checks a graph against it,
:class:`Builder` makes graphs, :func:`evaluate` runs them with ONNX Runtime.
"""

from onnx_ir import load, save

from .build import BATCH, Builder, array_of, shape_of, tensor
from .ops import DOMAIN, OPS, UNARY, Op, attach_functions, attributes_of
from .run import Evaluator, evaluate
from .verify import VerifyError, verify

__all__ = [
    "BATCH",
    "DOMAIN",
    "OPS",
    "UNARY",
    "Builder",
    "Evaluator",
    "Op",
    "VerifyError",
    "array_of",
    "attach_functions",
    "attributes_of",
    "evaluate",
    "load",
    "save",
    "shape_of",
    "tensor",
    "verify",
]
