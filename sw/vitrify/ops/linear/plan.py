"""Linear layers in the plan.

Every change of a tensor's format is a linear map, too: the one that changes nothing.  So the values
here stand behind those of all other operations.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vitrify.quant.calibrate import Request
from vitrify.quant.plan import Array, ByteNeeds, Operand, Plan, PlanOp, Product, unsupported
from vitrify.quant.planner import Addend, Planner, Value, parameter, result_of
from vitrify.quant.tensors import Rows
from vitrify.quant.windows import Window


@dataclass(frozen=True, kw_only=True)
class LinearOp(PlanOp):
    """A linear map, with its activation, to one of several kinds of result.

    ``role`` is ``int8``, ``stream`` (new int16 tensor that others read), ``add``, ``output`` or
    ``gate`` (logits for the router).  ``before`` names the float tensor before the activation.
    With ``task``, the input that chooses among them, ``weight`` is ``[S, out, in]``, ``bias``
    ``[S, out]``.  With ``window`` it is a convolution of the int8 map ``x``.
    """

    x: Operand
    weight: Array
    bias: Array
    role: str
    kind: str | None = None
    before: str = ""
    #: Not in the model: a copy into another format, which counts no multiplications.
    identity: bool = False
    task: str | None = None
    #: Rows of the tensor ``before`` (``value`` without an activation) that this makes.
    rows: Rows | None = None
    window: Window | None = None

    def reads(self) -> list[tuple[str, int]]:
        return self.x.reads

    def channels(self, plan: Plan) -> int:
        return self.weight.shape[-2]

    def products(self) -> list[Product]:
        if self.window is not None:
            return [Product(self.x, self.window.pixelwise(self.weight))]
        return [Product(self.x, self.weight)]

    def needs(self, tensor: str) -> ByteNeeds:
        """Nothing: steps and copies go into the weights, offset and zero point into the bias.

        But what a window has outside its map are zeros, and the step of a product is that of its
        factors, multiplied; nothing else is as simple.
        """
        exact = self.window is not None or self.x.times is not None
        return ByteNeeds(zero=exact, symmetric=exact)

    def reading(self, old: tuple[str, int], x: Operand) -> LinearOp:
        return replace(self, x=replace(self.x, tensor=x.tensor, version=x.version))

    def overwrites(self) -> tuple[str, int] | None:
        return (self.out, self.version - 1) if self.role == "add" else None

    def result(self) -> Request:
        return Request(self.value, self.covered)

    def hidden(self) -> Request:
        """What the linear map gives, before its activation if there is one."""
        return Request(self.before if self.kind else self.value, self.rows)

    @property
    def covered(self) -> Rows | None:
        """Rows of the tensor ``value`` that this makes."""
        return None if self.kind else self.rows

    def requests(self, plan: Plan) -> list[Request]:
        used = self.role not in ("add", "gate") or self.out in plan.outputs.values()
        wanted = [self.hidden()] if used and (self.kind or self.value) else []
        if self.window is not None and self.window.groups == 1:
            wanted.append(Request(self.x.value, window=self.window))
        return [*self.x.requests(), *wanted]


class LinearValue(Value):
    """A value that is, or can be made, the result of a linear map."""

    @abstractmethod
    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        """As a linear map that is not computed yet."""

    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        return self.affine(planner, node).int8(planner, node)

    def stream(self, planner: Planner, node: ir.Node) -> Operand:
        return self.affine(planner, node).stream(planner, node)

    def operand(self, planner: Planner, node: ir.Node) -> Operand:
        return self.int8(planner, node)

    def logits(self, planner: Planner, node: ir.Node) -> tuple[str, str]:
        return self.affine(planner, node).logits(planner, node)

    def addends(self, planner: Planner, node: ir.Node) -> list[Addend]:
        return [self.affine(planner, node)]

    def output(self, planner: Planner, name: str) -> str:
        return self.affine(planner, ir.node("", [], name=name)).output(planner, name)

    def own_int8(
        self, planner: Planner, node: ir.Node, form: str, rows: Rows | None = None
    ) -> Operand:
        """As an int8 tensor of a ``form`` of its own, of some rows."""
        made = self.affine(planner, node)
        made = made if rows is None else made.at_rows(planner, node, rows)
        return made.activated(planner, made.value, None, form)


@dataclass(frozen=True)
class Affine(LinearValue):
    """``weight @ x + bias``, not computed yet."""

    x: Operand
    weight: Array
    bias: Array
    name: str
    value: str
    identity: bool = False
    #: The input that chooses among weights ``[S, out, in]``.
    task: str | None = None
    #: Rows of the tensor ``value`` that this is.
    rows: Rows | None = None
    #: Of a convolution: what it reads of the int8 map ``x``.
    window: Window | None = None
    #: Additions may come in any order.
    reads_old_sum: bool = False

    @property
    def scales_only(self) -> bool:
        """Whether it is a tensor that is there, channel by channel scaled and shifted."""
        if not self.identity or self.task is not None or self.window is not None:
            return False
        count, dim = self.weight.shape
        return count == dim and np.count_nonzero(self.weight) == np.count_nonzero(
            np.diag(self.weight)
        )

    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        return self

    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        return self.activated(planner, self.value, None)

    def at_rows(self, planner: Planner, node: ir.Node, rows: Rows) -> Affine:
        """Some rows of it."""
        if self.window is not None:
            return Stored(self.int8(planner, node)).affine(planner, node).at_rows(
                planner, node, rows
            )
        chosen = self.rows.then(rows) if self.rows else rows
        return replace(self, x=picked(self.x, rows), rows=chosen)

    def activated(
        self, planner: Planner, value: str, kind: str | None, form: str = "int8"
    ) -> Operand:
        """The int8 tensor ``value`` behind an activation of this ``kind``; one of each ``form``.

        Without a ``value`` the float graph has no such tensor.
        """
        key = (form, value, self.x.rows)
        if key not in planner.made:
            out = planner.unique(value or form, form)
            self._emit(planner, out=out, value=value, role="int8", kind=kind)
            planner.made[key] = Operand(out, value)
        return planner.made[key]

    def stream(self, planner: Planner, node: ir.Node) -> Operand:
        key = ("stream", self.value, self.x.rows)
        if key not in planner.made:
            planner.made[key] = self.new_stream(planner)
        return planner.made[key]

    def new_stream(self, planner: Planner) -> Operand:
        """An int16 tensor that nobody else reads or adds to."""
        name = planner.unique(self.value or f"{self.name}.sum", "stream")
        planner.versions[name] = 0
        self._emit(planner, out=name, value=self.value, role="stream")
        return Operand(name, self.value, 0)

    def logits(self, planner: Planner, node: ir.Node) -> tuple[str, str]:
        out = planner.unique(self.value, "logits")
        self._emit(planner, out=out, value=self.value, role="gate")
        return out, self.value

    def add_to(self, planner: Planner, node: ir.Node, x: Operand, value: str) -> Operand:
        assert x.version is not None
        part = self
        if self.x.tensor == x.tensor:
            # The sum is written while later output columns still read the stream: from a copy.
            part = replace(self, x=Stored(self.x).int8(planner, node))
        version = planner.versions[x.tensor] = x.version + 1
        part._emit(planner, out=x.tensor, value=value, role="add", version=version)
        return Operand(x.tensor, value, version)

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> LinearValue:
        if self.window is not None:
            return Stored(self.int8(planner, node)).pick(planner, node, rows)
        return replace(self, x=picked(self.x, rows), value=result_of(node), rows=None)

    def output(self, planner: Planner, name: str) -> str:
        out = planner.unique(name, "output")
        self._emit(planner, out=out, value=name, role="output")
        return out

    def _emit(
        self, planner: Planner, *, out: str, value: str, role: str, version: int = 0,
        kind: str | None = None,
    ) -> None:
        planner.append(LinearOp(
            name=self.name, out=out, value=value, version=version,
            x=self.x, weight=self.weight, bias=self.bias, role=role, kind=kind,
            before=self.value, identity=self.identity, task=self.task, rows=self.rows,
            window=self.window,
        ), role)


@dataclass(frozen=True)
class Stored(LinearValue):
    """A tensor that is there, or some rows of it, or normalised when it is read."""

    x: Operand

    @property
    def is_stream(self) -> bool:
        return self.x.version is not None and self.x.norm is None

    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        """A copy that passes the matrix unit."""
        x = self.x
        dim = planner.plan.channels(x.tensor) if x.norm is None else len(x.norm.gamma)
        value, rows = x.made or (x.value, x.rows)
        name = planner.unique(f"{value}.copy")
        return Affine(x, np.eye(dim), np.zeros(dim), name, value, identity=True, rows=rows)

    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        x = self.x
        whole = x.version is None and x.rows is None and x.times is None
        return x if whole else super().int8(planner, node)

    def stream(self, planner: Planner, node: ir.Node) -> Operand:
        return self.x if self.is_stream else super().stream(planner, node)

    def operand(self, planner: Planner, node: ir.Node) -> Operand:
        return self.x

    def wide(self, planner: Planner, node: ir.Node) -> Operand:
        whole = self.x.version is not None and self.x.rows is None
        return self.x if whole else self.stream(planner, node)

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> Stored:
        return Stored(picked(self.x, rows, result_of(node)))

    def output(self, planner: Planner, name: str) -> str:
        latest = self.is_stream and self.x.version == planner.versions[self.x.tensor]
        # Channels that each head begins at a word with are not stored one behind the other.
        apart = planner.groups.get(self.x.tensor, 1) > 1
        if not latest or apart or self.x.rows is not None:
            return super().output(planner, name)
        return self.x.tensor


def picked(x: Operand, rows: Rows, made: str = "") -> Operand:
    """Some rows of an operand; ``made`` names the float tensor with them, if there is one."""
    value, before = x.made or (x.value, x.rows)
    return replace(
        x, rows=x.rows.then(rows) if x.rows else rows,
        made=(made, None) if made else (value, before.then(rows) if before else rows),
    )


def copy_stream(planner: Planner, x: Operand) -> Operand:
    """A copy of an int16 tensor, as an int16 tensor of its own (the operand has 8 bits)."""
    return Stored(x).affine(planner, ir.node("", [], name=x.value)).new_stream(planner)


def affine_of(planner: Planner, node: ir.Node, index: int) -> Affine:
    """An input of ``node`` as a linear map that is not computed yet."""
    value = planner.of(node, index)
    if isinstance(value, LinearValue):
        return value.affine(planner, node)
    return Stored(value.stream(planner, node)).affine(planner, node)


def made_once(planner: Planner, node: ir.Node, made: Affine) -> LinearValue:
    """A linear map that costs more than a copy: as a stream if ``node`` has several readers.

    Whatever form each of them wants is then made of that.
    """
    weight = made.weight
    cheap = weight.size <= weight.shape[-2] ** 2
    shared = len(node.outputs[0].uses()) > 1
    return Stored(made.stream(planner, node)) if shared and not cheap else made


def int8_in_groups(planner: Planner, node: ir.Node, index: int, groups: int) -> str:
    """An input of ``node`` as an int8 tensor whose channels are used in ``groups`` equal parts.

    Its layout follows: a tensor that is used in another number of parts is copied.
    """
    x = planner.of(node, index).int8(planner, node)
    if planner.groups.setdefault(x.tensor, groups) != groups:
        copy = Stored(x).affine(planner, node)
        x = copy.activated(planner, copy.value, None, f"groups{groups}")
        planner.groups[x.tensor] = groups
    return x.tensor


# Nodes -------------------------------------------------------------------------------------
def plan_linear(planner: Planner, node: ir.Node) -> Affine:
    """``Linear``: delayed; scales and shifts of its input's channels are part of it."""
    x, weight, bias = planner.of(node, 0), parameter(node, 1), parameter(node, 2)
    if isinstance(x, Affine) and x.scales_only:
        operand, bias = x.x, bias + weight @ x.bias
        weight = weight * np.diag(x.weight)
    else:
        operand = x.operand(planner, node)
    return Affine(operand, weight, bias, node.name or "", result_of(node))


def plan_task_linear(planner: Planner, node: ir.Node) -> Affine:
    """``TaskLinear``: delayed, with a set of weights for each task."""
    weight, task = parameter(node, 1), node.inputs[3]
    assert task is not None
    assert task.name
    count = planner.plan.tasks.setdefault(task.name, len(weight))
    if count != len(weight):
        raise unsupported(
            node, f"it knows {len(weight)} tasks, and others know {count} of {task.name!r}"
        )
    return replace(plan_linear(planner, node), task=task.name)
