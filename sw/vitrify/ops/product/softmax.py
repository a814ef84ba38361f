"""Softmax that is no attention's: a factor of products, or a tensor of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from vitrify.ir import attributes_of, shape_of
from vitrify.ops.channelwise import ChannelwiseOp
from vitrify.ops.linear.plan import Affine, LinearValue, Stored, int8_in_groups
from vitrify.ops.transpose.plan import TransposeOp, transposed
from vitrify.quant.calibrate import Request
from vitrify.quant.plan import ByteNeeds, Operand, Plan, unsupported
from vitrify.quant.planner import Planner, result_of
from vitrify.quant.tensors import Rows

from .op import ProductOp
from .values import ProductValue, multiplications


@dataclass(frozen=True, kw_only=True)
class SharesOp(ChannelwiseOp):
    """Softmax in each of ``heads`` groups of channels of the int8 tensor ``x``, int8 again."""

    heads: int

    def requests(self, plan: Plan) -> list[Request]:
        """Shares of one need none."""
        return []

    def needs(self, tensor: str) -> ByteNeeds:
        return replace(super().needs(tensor), whole=True)


@dataclass(frozen=True)
class SoftmaxValue(LinearValue):
    """The result of a ``Softmax``, not computed yet: what it weighs divides by its sums."""

    node: ir.Node

    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        return Stored(self.int8(planner, node)).affine(planner, node)

    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        name, attributes = result_of(self.node), attributes_of(self.node)
        key = ("int8", name, None)
        if key not in planner.made:
            if attributes["axis"] == "tokens":
                self._over_tokens(planner, name, attributes["groups"])
            else:
                heads = planner.groups[name] = attributes["groups"]
                planner.append(SharesOp(
                    name=self.node.name or name, out=name, value=name,
                    x=int8_in_groups(planner, self.node, 0, heads), heads=heads,
                ))
            planner.made[key] = Operand(name, name)
        return planner.made[key]

    def _over_tokens(self, planner: Planner, name: str, groups: int) -> None:
        """Softmax over the tokens of each of ``groups`` runs: that of transposed rows, and back."""
        source, shares = self.node.inputs[0], planner.unique(f"{name}.shares")
        assert source is not None
        planner.append(SharesOp(
            name=shares, out=shares, value="", heads=1,
            x=transposed(planner, self.node, 0, groups, "shares"),
        ))
        channels = int(shape_of(source)[-1])
        planner.append(TransposeOp(
            name=self.node.name or name, out=name, value=name, x=shares, tokens=channels,
            groups=groups,
        ))

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> LinearValue:
        return Stored(self.int8(planner, node)).pick(planner, node, rows)

    def product(self, planner: Planner, node: ir.Node, index: int) -> LinearValue | None:
        """The product ``node``, whose operand ``index`` this is; ``None`` if it does not fit.

        Logits stream, and the sum of their weights divides what comes out.  Where softmax is the
        right factor, transposed, the product is made transposed.
        """
        attributes, softmax = attributes_of(node), attributes_of(self.node)
        layout, heads, groups = (attributes[key] for key in ("layout", "heads", "groups"))
        over = softmax["axis"] == "tokens"
        if index == 0 and layout == "tn" and over and softmax["groups"] == groups:
            logits = transposed(planner, self.node, 0, groups, "logits")
            return self._weighed(planner, node, logits, 1, rows_y=False)
        of = planner.of(self.node, 0)
        if over or not isinstance(of, ProductValue):
            return None
        fits = of.heads == softmax["groups"] == heads
        if not fits or attributes_of(of.node)["groups"] != groups:
            return None
        if index == 0 and layout != "tn":
            return self._weighed(planner, node, of.scores(planner), 1, rows_y=layout == "nt")
        if index == 1 and layout == "nt":
            return self._weighed(planner, node, of.scores(planner), 0, rows_y=True)
        return None

    def _weighed(
        self, planner: Planner, node: ir.Node, logits: str, other: int, *, rows_y: bool
    ) -> Stored:
        """Softmax of ``logits`` times the operand ``other`` of ``node``, or that transposed."""
        attributes, name = attributes_of(node), result_of(node)
        heads, groups = attributes["heads"], attributes["groups"]
        if attributes["scale"] != 1.0:
            raise unsupported(node, "it scales what a softmax weighs")
        y = int8_in_groups(planner, node, other, heads)
        _, rows, width = shape_of(node.outputs[0])
        turned = planner.unique(f"{name}.turned") if other == 0 else name
        planner.append(ProductOp(
            name=node.name or name, out=turned, value="" if other == 0 else name, x=logits,
            y=y, heads=heads, groups=groups, scales=(1.0,) * heads, rows_y=rows_y,
            stacked=frozenset((logits, turned) if other == 0 else (logits,)),
            width=int(rows) // groups if other == 0 else int(width), macs=multiplications(node),
            softmax=True,
        ), "product")
        if other == 0:
            planner.append(TransposeOp(
                name=f"{name}.back", out=name, value=name, x=turned, tokens=int(width),
                groups=groups,
            ))
        else:
            planner.groups[name] = heads
        return Stored(Operand(name, name))
