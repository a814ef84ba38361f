"""Attention, heads that a router gates included."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .decompose import decompose_cross_attention, negated
from .integer import QAttention
from .lower import ahead, lower
from .plan import (
    AttentionOp,
    plan_attention,
    plan_cross_attention,
    plan_relative_attention,
)

_OF_TOKENS = ("Attention", "RoutedHeads", "BalancedHeads")
ATTENTION = Operation(
    decompositions={
        **dict.fromkeys((*_OF_TOKENS, "RelativeAttention"), negated),
        "CrossAttention": decompose_cross_attention,
    },
    plans={
        **dict.fromkeys(_OF_TOKENS, plan_attention),
        "CrossAttention": plan_cross_attention,
        "RelativeAttention": plan_relative_attention,
    },
    assembles={AttentionOp: assemble},
    rules={QAttention: Rule(lower, ahead=ahead)},
)
