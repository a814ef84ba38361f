"""Products of two activations, and softmax around them."""

from vitrify.codegen.rule import Rule
from vitrify.ops.operation import Operation

from .assemble import assemble
from .integer import QProduct
from .lower import lower
from .op import ProductOp
from .plan import plan_product, plan_softmax

PRODUCT = Operation(
    plans={"Product": plan_product, "Softmax": plan_softmax},
    assembles={ProductOp: assemble},
    rules={QProduct: Rule(lower)},
)
