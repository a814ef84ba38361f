"""Products of two tensors, element by element: the operand of what reads them."""

from vitrify.ops.operation import Operation

from .plan import plan_multiply

MULTIPLY = Operation(plans={"Multiply": plan_multiply})
