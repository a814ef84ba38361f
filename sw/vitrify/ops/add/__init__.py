"""Sums: additions to a stream."""

from vitrify.ops.operation import Operation

from .decompose import decompose_maximum
from .plan import plan_add

ADD = Operation(decompositions={"Maximum": decompose_maximum}, plans={"Add": plan_add})
