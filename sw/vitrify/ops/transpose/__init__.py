"""Channels as rows, normalised or not."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .integer import QTranspose
from .lower import lower
from .plan import TransposeOp

TRANSPOSE = Operation(
    assembles={TransposeOp: assemble}, rules={QTranspose: Rule(lower)}
)
