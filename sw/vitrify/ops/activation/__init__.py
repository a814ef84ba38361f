"""Functions of one variable: a table behind a linear map."""

from vitrify.ops.operation import Operation

from .plan import plan_activation

ACTIVATION = Operation(plans={"Activation": plan_activation})
