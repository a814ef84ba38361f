"""Products of two int8 tensors in the plan."""

from __future__ import annotations

from dataclasses import dataclass

from vitrify.quant.calibrate import Request
from vitrify.quant.plan import ByteNeeds, Plan, PlanOp


@dataclass(frozen=True, kw_only=True)
class ProductOp(PlanOp):
    """``scales[head] * X @ Y`` of int8 tensors, to an int8 tensor.

    ``rows_y`` and ``stacked`` as in :class:`~vitrify.ops.product.integer.QProduct`; ``width`` is
    the number of columns of the result.
    """

    x: str
    y: str
    heads: int
    groups: int
    scales: tuple[float, ...]
    rows_y: bool
    stacked: frozenset[str]
    width: int
    macs: int
    #: Softmax reads the result: logits to base 2.
    logits: bool = False
    #: x has logits: their softmax times y.
    softmax: bool = False

    def reads(self) -> list[tuple[str, int]]:
        return [(self.x, 0), (self.y, 0)]

    def channels(self, plan: Plan) -> int:
        return self.width

    def requests(self, plan: Plan) -> list[Request]:
        return [] if self.logits or self.softmax else [self.result()]

    def needs(self, tensor: str) -> ByteNeeds:
        """One multiplier for every product, and sums of nothing but the values.

        Tokens that softmax weighs pass on their steps, and a constant: the weights add up to one.
        """
        absorbed = self.passes_on(tensor)
        return ByteNeeds(one_step=not absorbed, zero=not absorbed, symmetric=True)

    def passes_on(self, tensor: str) -> bool:
        return self.softmax and tensor == self.y and not self.rows_y
