"""Mixtures of experts in the plan: what they make is added to a stream."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.add.plan import OnlyAdded
from vitrify.ops.linear.plan import copy_stream
from vitrify.quant.calibrate import Request
from vitrify.quant.plan import Array, Operand, Plan, PlanOp, Product
from vitrify.quant.planner import Addend, Planner, parameter


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a mixture of experts computes from ``x``.

    ``logits`` is the gate's tensor and ``scores`` the float tensor with the same contents; ``w1``
    to ``b2``, ``k``, ``normalize`` and ``kind`` as in the canonical operation.
    """

    x: Operand
    logits: str
    scores: str
    w1: Array
    b1: Array
    w2: Array
    b2: Array
    k: int
    normalize: bool
    kind: str


@dataclass(frozen=True, kw_only=True)
class ExpertsOp(PlanOp):
    """A stream plus what experts make of a stream: the next version, in a tensor of its own."""

    mixture: Mixture
    residual: str

    def reads(self) -> list[tuple[str, int]]:
        mixture = self.mixture
        return [mixture.x.read, (mixture.logits, 0), (self.residual, self.version - 1)]

    def channels(self, plan: Plan) -> int:
        return self.mixture.w2.shape[1]

    def products(self) -> list[Product]:
        return [Product(self.mixture.x, self.mixture.w1)]

    def requests(self, plan: Plan) -> list[Request]:
        own = [*self.mixture.x.requests(), self.rows_and_scores()]
        used = self.out in plan.outputs.values() and self.value
        return [*own, self.result()] if used else own

    def reading(self, old: tuple[str, int], x: Operand) -> ExpertsOp:
        own = replace(self.mixture.x, tensor=x.tensor, version=x.version)
        return replace(self, mixture=replace(self.mixture, x=own))

    def rows_and_scores(self) -> Request:
        """What the experts read, with the logits of the same rows."""
        return replace(self.mixture.x.requests()[-1], beside=self.mixture.scores)


@dataclass(frozen=True)
class MixtureValue(OnlyAdded):
    """A mixture that is not added to a stream yet."""

    name: str
    mixture: Mixture

    @property
    def reads_old_sum(self) -> bool:
        """Experts read the stream as it was before any addition."""
        return True

    def addends(self, planner: Planner, node: ir.Node) -> list[Addend]:
        return [self]

    def add_to(self, planner: Planner, node: ir.Node, x: Operand, value: str) -> Operand:
        """The next version of the stream lies in a tensor of its own.

        Additions to the stream since the experts' input was made (a dense layer beside them) move
        behind the experts: those must read the stream as it was.
        """
        if planner.groups.get(x.tensor, 1) > 1:
            # The sum of experts has its channels one behind the other.
            x = copy_stream(planner, x)
        assert x.version is not None
        plan, read = planner.plan, self.mixture.x
        out = planner.unique(value or f"{self.name}.sum", "stream")
        late: list[PlanOp] = []
        if read.tensor == x.tensor and read.version is not None:
            late = [
                op for op in plan.ops
                if op.overwrites() and op.out == x.tensor and op.version > read.version
            ]
        version = x.version - len(late) + 1
        for op in late:
            plan.ops.remove(op)
        planner.append(ExpertsOp(
            name=self.name, out=out, value="" if late else value, version=version,
            mixture=self.mixture, residual=x.tensor,
        ))
        for op in late:
            version += 1
            own = value if op is late[-1] else ""
            plan.ops.append(replace(op, out=out, version=version, value=own))
        plan.roots[out] = plan.roots.get(x.tensor, x.tensor)
        planner.versions[out] = version
        return Operand(out, value, version)


def plan_experts(planner: Planner, node: ir.Node) -> MixtureValue:
    """``Experts``: delayed until it is known what they are added to."""
    x = planner.of(node, 0).wide(planner, node)
    logits, scores = planner.of(node, 1).logits(planner, node)
    attributes = attributes_of(node)
    return MixtureValue(node.name or "", Mixture(
        x=x, logits=logits, scores=scores, w1=parameter(node, 2), b1=parameter(node, 3),
        w2=parameter(node, 4), b2=parameter(node, 5), k=attributes["k"],
        normalize=bool(attributes["normalize"]), kind=attributes["kind"],
    ))
