"""Constant matrices over tokens."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .integer import QMix
from .lower import lower
from .plan import MixOp, plan_mix

MIX = Operation(
    plans={"Mix": plan_mix},
    assembles={MixOp: assemble},
    rules={QMix: Rule(lower)},
)
