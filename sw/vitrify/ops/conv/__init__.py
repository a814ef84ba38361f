"""Convolutions of maps: linear maps of windows."""

from vitrify.ops.operation import Operation

from .plan import plan_conv, plan_fold

CONV = Operation(plans={"Conv": plan_conv, "Fold": plan_fold})
