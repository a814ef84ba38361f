"""Mean over tokens."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .integer import QPool
from .lower import constants, lower
from .plan import PoolOp, plan_mean_pool

POOL = Operation(
    plans={"MeanPool": plan_mean_pool},
    assembles={PoolOp: assemble},
    rules={QPool: Rule(lower, constants=constants)},
)
