"""Products of two tensors, element by element: the operand of what reads them."""

from vitrify.ops.operation import Operation

from .decompose import decompose_multiply
from .plan import plan_multiply

MULTIPLY = Operation(
    decompositions={"Multiply": decompose_multiply}, plans={"Multiply": plan_multiply}
)
