"""Products of two int8 tensors in the plan."""

from __future__ import annotations

from dataclasses import dataclass

from vitrify.quant.calibrate import Request
from vitrify.quant.plan import ByteNeeds, Plan, PlanOp


@dataclass(frozen=True)
class Divides:
    """What a product makes sums of rows for: a product of the same x with the tensor ``y``.

    ``sums`` and ``result`` name float tensors: the sums, and what comes of the division.
    """

    y: str
    sums: str
    result: str

    def request(self) -> Request:
        """The result, and the sums beside it."""
        return Request(self.result, beside=self.sums)


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
    #: The result, one column for each head, is int16 and divides the rows of another product.
    divides: Divides | None = None
    #: The tensor of such sums.
    divisor: str | None = None

    def reads(self) -> list[tuple[str, int]]:
        more = [self.divisor] if self.divisor else []
        if self.divides is not None:
            more.append(self.divides.y)
        return [(name, 0) for name in (self.x, self.y, *more)]

    def channels(self, plan: Plan) -> int:
        return self.width

    def requests(self, plan: Plan) -> list[Request]:
        if self.divides is not None:
            return [self.divides.request()]
        return [] if self.logits or self.softmax or self.divisor else [self.result()]

    def needs(self, tensor: str) -> ByteNeeds:
        """One multiplier for every product, and sums of nothing but the values.

        Tokens that softmax weighs pass on their steps, and a constant: the weights add up to one.
        """
        absorbed = self.passes_on(tensor)
        return ByteNeeds(one_step=not absorbed, zero=not absorbed, symmetric=True)

    def passes_on(self, tensor: str) -> bool:
        return self.softmax and tensor == self.y and not self.rows_y
