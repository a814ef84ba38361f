"""Mixtures of experts."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .integer import QExperts
from .lower import lower
from .plan import ExpertsOp, plan_experts

EXPERTS = Operation(
    plans={"Experts": plan_experts},
    assembles={ExpertsOp: assemble},
    rules={QExperts: Rule(lower)},
)
