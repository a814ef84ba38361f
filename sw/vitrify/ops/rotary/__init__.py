"""Rotary position embedding: a product with constants, and a sum of pairs of channels."""

from vitrify.ops.operation import Operation

from .assemble import assemble_angles, assemble_both
from .plan import AnglesOp, BothOp, plan_rotary

ROTARY = Operation(
    plans={"Rotary": plan_rotary},
    assembles={BothOp: assemble_both, AnglesOp: assemble_angles},
)
