"""Transposed int8 tensors in the plan: channels as rows, for what contracts over tokens.

They stand for no tensor of the float graph.  A normalisation over tokens is one of their rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from vitrify.ir import shape_of
from vitrify.ops.linear.plan import Affine, LinearValue
from vitrify.quant.calibrate import Request
from vitrify.quant.normaliser import Normaliser
from vitrify.quant.plan import ByteNeeds, Operand, Plan, PlanOp, unsupported
from vitrify.quant.planner import Planner, Value, result_of
from vitrify.quant.tensors import Rows


@dataclass(frozen=True, kw_only=True)
class TransposeOp(PlanOp):
    """The int8 tensor ``x`` with ``tokens`` rows in each of ``groups`` runs, transposed.

    With ``logits`` a softmax reads the result, and with ``shares`` one that makes a tensor; with
    ``over`` its rows are normalised.
    """

    x: str
    tokens: int
    groups: int = 1
    over: OverTokens | None = None
    logits: bool = False
    shares: bool = False

    def reads(self) -> list[tuple[str, int]]:
        return [(self.x, 0)]

    def channels(self, plan: Plan) -> int:
        return self.tokens

    def requests(self, plan: Plan) -> list[Request]:
        return [self.over.made] if self.over is not None else []

    def needs(self, tensor: str) -> ByteNeeds:
        """Rows of the result have one step, unless they are normalised by themselves.

        Softmax does not see a constant in all of a row.
        """
        one = self.over is None or self.over.epsilon > 0
        return ByteNeeds(
            one_step=one, zero=not self.logits, symmetric=True, whole=self.logits or self.shares,
        )


@dataclass(frozen=True)
class OverTokens(LinearValue):
    """Channels normalised over the rows of each of ``groups`` runs, not computed yet.

    ``x`` is the value before, and ``node`` the normalisation: ``normaliser``, then ``factor``,
    which is positive.
    """

    x: Value
    node: ir.Node
    groups: int
    normaliser: Normaliser
    epsilon: float
    factor: float

    @property
    def made(self) -> Request:
        """The float tensor that it stands for."""
        return Request(result_of(self.node))

    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        raise unsupported(
            node, f"it reads channels that {self.node.name!r} normalises over tokens, and only a "
            f"product of two activations over the tokens can do that"
        )

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> LinearValue:
        return self.affine(planner, node)


def transposed(
    planner: Planner, node: ir.Node, index: int, groups: int,
    form: Literal["transposed", "logits", "shares"] = "transposed",
) -> str:
    """An input of ``node`` as a transposed int8 tensor."""
    value, source = planner.of(node, index), node.inputs[index]
    assert source is not None
    tokens = int(shape_of(source)[1]) // groups
    over = value if isinstance(value, OverTokens) else None
    assert over is None or over.groups == groups
    key = (f"{form}{groups}", source.name or "", None)
    if key not in planner.made:
        x = (value if over is None else over.x).int8(planner, node).tensor
        name = planner.unique(f"{source.name}.{form}")
        planner.append(TransposeOp(
            name=name, out=name, value="", x=x, tokens=tokens, groups=groups,
            over=over, logits=form == "logits", shares=form == "shares",
        ))
        planner.made[key] = Operand(name, "")
    return planner.made[key].tensor
