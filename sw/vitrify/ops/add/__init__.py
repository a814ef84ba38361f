"""Sums: additions to a stream."""

from vitrify.ops.operation import Operation

from .plan import plan_add

ADD = Operation(plans={"Add": plan_add})
