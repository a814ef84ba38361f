"""Convolutions of maps: linear maps of windows."""

from vitrify.ops.linear.decompose import decompose_deep
from vitrify.ops.operation import Operation

from .plan import plan_conv, plan_fold

CONV = Operation(
    decompositions={"Conv": decompose_deep}, plans={"Conv": plan_conv, "Fold": plan_fold}
)
