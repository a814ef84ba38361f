"""The largest or the average of each window of a map."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .decompose import decompose_pool
from .integer import QLargest
from .lower import lower
from .plan import LargestOp, plan_pool

MAP_POOL = Operation(
    decompositions={"Pool": decompose_pool}, plans={"Pool": plan_pool},
    assembles={LargestOp: assemble}, rules={QLargest: Rule(lower)},
)
