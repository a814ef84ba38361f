"""Ops of the plan with one multiplier for all channels of what they read."""

from __future__ import annotations

from dataclasses import dataclass

from vitrify.quant.calibrate import Request
from vitrify.quant.plan import ByteNeeds, Plan, PlanOp


@dataclass(frozen=True, kw_only=True)
class ChannelwiseOp(PlanOp):
    """An op whose result has the channels of the int8 tensor ``x``, and one multiplier for all."""

    x: str

    def reads(self) -> list[tuple[str, int]]:
        return [(self.x, 0)]

    def channels(self, plan: Plan) -> int:
        return plan.channels(self.x)

    def requests(self, plan: Plan) -> list[Request]:
        return [self.result()]

    def needs(self, tensor: str) -> ByteNeeds:
        """One multiplier for all channels, and no bias of a channel."""
        return ByteNeeds(one_step=True, zero=True, symmetric=True)
