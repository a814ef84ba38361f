"""Linear layers: every product of activations and constant weights."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .decompose import decompose_deep
from .embed import takes_image
from .integer import QLinear
from .lower import lower
from .plan import LinearOp, plan_linear, plan_task_linear

LINEAR = Operation(
    decompositions={"Linear": decompose_deep},
    plans={"Linear": plan_linear, "TaskLinear": plan_task_linear},
    assembles={LinearOp: assemble},
    rules={QLinear: Rule(lower, takes_image)},
)
