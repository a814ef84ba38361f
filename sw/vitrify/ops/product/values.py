"""Products of two activations that are not computed yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of, shape_of
from vitrify.ops.linear.plan import Affine, LinearValue, Stored, int8_in_groups
from vitrify.ops.transpose.plan import OverTokens, transposed
from vitrify.quant.plan import Array, Operand
from vitrify.quant.planner import Planner
from vitrify.quant.tensors import Rows

from .op import ProductOp


@dataclass(frozen=True)
class ProductValue(LinearValue):
    """``scales[head]`` times a product of two activations, not computed yet.

    Or that plus ``shift``, or a function of it, its ``kind``: what attention computes on the way.
    ``before`` is what that is made of, for all other readers.
    """

    node: ir.Node
    scales: tuple[float, ...]
    value: str
    shift: float = 0.0
    kind: str | None = None
    before: ProductValue | None = None

    @property
    def heads(self) -> int:
        """Matrices side by side."""
        return len(self.scales)

    @property
    def argument(self) -> str | None:
        """The float tensor that it is a function of; ``None`` where attention needs more."""
        if len(set(self.scales)) > 1 or (self.shift and not self.kind):
            return None
        return self.before.value if self.kind and self.before else self.value

    def transformed(self, scale: Array, shift: Array, value: str) -> ProductValue | None:
        """``scale`` times it plus ``shift``, each one a channel, as ``value``.

        ``None`` unless there is one positive scale for each head and one shift for all.
        """
        width = int(shape_of(self.node.outputs[0])[-1])
        each = np.broadcast_to(scale, width).reshape(self.heads, -1)
        uneven = np.ptp(each, axis=1).any() or np.ptp(shift)
        if self.before is not None or uneven or not (each > 0).all():
            return None
        scales = tuple(float(old * new) for old, new in zip(self.scales, each[:, 0], strict=True))
        made = replace(self, scales=scales, value=value)
        return replace(made, shift=float(shift[0]), before=self) if shift.any() else made

    def function(self, kind: str, value: str) -> ProductValue | None:
        """A function of it, as ``value``; ``None`` if it is one already."""
        return None if self.kind else replace(self, kind=kind, value=value, before=self)

    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        if self.before is None or self.kind:
            return Stored(self.int8(planner, node)).affine(planner, node)
        x = self.before.affine(planner, node)
        ratio = np.divide(self.scales, self.before.scales).repeat(len(x.bias) // self.heads)
        return replace(
            x, weight=ratio[:, None] * x.weight, bias=ratio * x.bias + self.shift, value=self.value
        )

    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        if self.before is not None:
            x = (self.before if self.kind else self).affine(planner, node)
            return x.activated(planner, self.value, self.kind)
        key = ("int8", self.value, None)
        if key not in planner.made:
            out = planner.unique(self.value, "int8")
            self.emit(planner, out)
            planner.made[key] = Operand(out, self.value)
        return planner.made[key]

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> LinearValue:
        return Stored(self.int8(planner, node)).pick(planner, node, rows)

    def logits(self, planner: Planner, node: ir.Node) -> tuple[str, str]:
        return self.affine(planner, node).logits(planner, node)

    def scores(self, planner: Planner) -> str:
        """Logits for a softmax in each head, one head below the other."""
        key = ("scores", self.value, None)
        if key not in planner.made:
            out = planner.unique(f"{self.value}.scores")
            self.emit(planner, out, logits=True)
            planner.made[key] = Operand(out, "")
        return planner.made[key].tensor

    def emit(self, planner: Planner, out: str, *, logits: bool = False) -> None:
        """Compute it to the int8 tensor ``out``."""
        node, attributes = self.node, attributes_of(self.node)
        heads, groups = attributes["heads"], attributes["groups"]
        over = attributes["layout"] == "tn"
        rows_y, stacked = attributes["layout"] == "nt", set[str]()
        if over:
            stacked |= {transposed(planner, node, 0, groups)}
            x = next(iter(stacked))
        else:
            x = int8_in_groups(planner, node, 0, heads)
        if over and isinstance(planner.of(node, 1), OverTokens):
            y, rows_y = transposed(planner, node, 1, groups), True
            stacked.add(y)
        else:
            y = int8_in_groups(planner, node, 1, heads)
        width = int(shape_of(node.outputs[0])[-1])
        if logits:
            stacked.add(out)
            width //= heads
        else:
            planner.groups[out] = heads
        planner.append(ProductOp(
            name=node.name or out, out=out, value="" if logits else self.value, x=x, y=y,
            heads=heads, groups=groups,
            scales=tuple(scale * factor for scale, factor in zip(
                self.scales, self._factors(planner), strict=True)),
            rows_y=rows_y, stacked=frozenset(stacked), width=width, macs=multiplications(node),
            logits=logits,
        ), "scores" if logits else "product")

    def _factors(self, planner: Planner) -> list[float]:
        """Of normalisations of the operands, for each head."""
        factors = [
            value.factor if isinstance(value := planner.of(self.node, i), OverTokens) else 1.0
            for i in range(2)
        ]
        return [float(np.prod(factors))] * self.heads


def multiplications(node: ir.Node) -> int:
    """Of a product, for an image."""
    x, attributes = node.inputs[0], attributes_of(node)
    assert x is not None
    (_, rows, width), z = shape_of(x), shape_of(node.outputs[0])
    over = attributes["layout"] == "tn"
    depth = int(rows) // attributes["groups"] if over else int(width) // attributes["heads"]
    return int(z[1]) * int(z[2]) * depth
