"""Products of two activations, and softmax around them."""

from vitrify.codegen.rule import Rule
from vitrify.ops.attention.decompose import negated
from vitrify.ops.operation import Operation

from .assemble import assemble, assemble_shares
from .integer import QProduct
from .lower import lower
from .op import ProductOp
from .plan import plan_product, plan_softmax
from .shares_integer import QShares
from .shares_lower import lower as lower_shares
from .softmax import SharesOp

PRODUCT = Operation(
    decompositions={"Product": negated},
    plans={"Product": plan_product, "Softmax": plan_softmax},
    assembles={ProductOp: assemble, SharesOp: assemble_shares},
    rules={QProduct: Rule(lower), QShares: Rule(lower_shares)},
)
