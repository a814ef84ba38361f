"""The canonical graph: an ONNX model of fused vision-transformer operations.

The operation table is :mod:`vitrify.ir.ops`; :func:`verify` checks a graph against it,
:class:`Builder` makes graphs, :func:`evaluate` runs them with ONNX Runtime.
"""

from onnx_ir import load, save

from .build import BATCH, Builder, array_of, shape_of, source_of, tensor
from .op import DOMAIN, DTYPE, Op, ShapeError, attributes_of
from .ops import OPS, attach_functions
from .outputs import ARRANGE, steps_of
from .run import Evaluator, evaluate, operators, session_options
from .unary import UNARY
from .verify import VerifyError, verify

__all__ = [
    "ARRANGE",
    "BATCH",
    "DOMAIN",
    "DTYPE",
    "OPS",
    "UNARY",
    "Builder",
    "Evaluator",
    "Op",
    "ShapeError",
    "VerifyError",
    "array_of",
    "attach_functions",
    "attributes_of",
    "evaluate",
    "load",
    "operators",
    "save",
    "session_options",
    "shape_of",
    "source_of",
    "steps_of",
    "tensor",
    "verify",
]
