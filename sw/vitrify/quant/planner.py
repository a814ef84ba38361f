"""From the canonical float graph to a plan: which matrix product of the core does what.

Walks the canonical nodes and delays every value (a normalised stream, a linear map, an activation)
until a consumer says in which form it is needed: int8 tensor, addition to the residual stream, new
int16 tensor.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import UnsupportedOpError
from vitrify.ir import array_of, attributes_of, shape_of

from .delayed import Affine, Patch, Sum, Unary, Value, is_stream, pick
from .experts import Mixture, mix
from .heads import weighings
from .plan import (
    Array,
    AttentionOp,
    ExpertsOp,
    LayerNorm,
    LinearOp,
    Operand,
    PatchOp,
    Plan,
    PlanOp,
    PoolOp,
    ordered,
    unsupported,
)

_IMAGE_RANK = 4


class _Planner:
    def __init__(self, model: ir.Model) -> None:
        self.plan = Plan(model.graph.name or "model", image_of(model).name or "")
        self.values: dict[str, Value] = {}
        #: int8 form of a value, made at most once.
        self.bytes: dict[str, str] = {}
        #: int16 form of a value that is no stream by itself.
        self.streams: dict[str, Operand] = {}
        #: Additions to each stream so far.
        self.versions: dict[str, int] = {}
        self.names: set[str] = set()
        for node in model.graph:
            plan = getattr(self, f"_{node.op_type.lower()}", None)
            if plan is None:
                raise unsupported(node, "the compiler has no way to lay it out yet")
            self.values[_result(node)] = plan(node)
        for output in model.graph.outputs:
            self._output(output.name or "")

    # Nodes ---------------------------------------------------------------------------------
    def _patchembed(self, node: ir.Node) -> Value:
        if any(isinstance(op, PatchOp) for op in self.plan.ops) or any(
            isinstance(value, Patch) for value in self.values.values()
        ):
            raise unsupported(node, "a second patch embedding reads the image")
        return Patch(node)

    def _tokens(self, node: ir.Node) -> Value:
        x = self._of(node, 0)
        if not isinstance(x, Patch):
            raise unsupported(node, "positions can only be added to the patch embedding")
        return self._embed(x, _result(node), _array(node, 1), _array(node, 2))

    def _layernorm(self, node: ir.Node) -> Value:
        attributes = attributes_of(node)
        norm = LayerNorm(
            node.name or "", _result(node), _array(node, 1), _array(node, 2), attributes["epsilon"]
        )
        return replace(self._stream(self._of(node, 0), node), norm=norm)

    def _linear(self, node: ir.Node) -> Value:
        x = self._of(node, 0)
        operand = x if isinstance(x, Operand) else self._byte_operand(x, node)
        return Affine(operand, _array(node, 1), _array(node, 2), node.name or "", _result(node))

    def _tasklinear(self, node: ir.Node) -> Value:
        weight, task = _array(node, 1), node.inputs[3]
        assert task is not None
        assert task.name
        count = self.plan.tasks.setdefault(task.name, len(weight))
        if count != len(weight):
            raise unsupported(
                node, f"it knows {len(weight)} tasks, and others know {count} of {task.name!r}"
            )
        affine = self._linear(node)
        assert isinstance(affine, Affine)
        return replace(affine, task=task.name)

    def _experts(self, node: ir.Node) -> Value:
        x, scores = self._of(node, 0), self._of(node, 1)
        if not isinstance(x, Operand) or x.version is None or x.rows is not None:
            x = self._stream(x, node)
        logits, value = self._gate(scores, node)
        w1, b1, w2, b2 = (_array(node, i) for i in range(2, 6))
        attributes = attributes_of(node)
        return Mixture(
            node.name or "", x, logits, value, w1, b1, w2, b2, attributes["k"],
            bool(attributes["normalize"]), attributes["kind"],
        )

    def _gate(self, scores: Value, node: ir.Node) -> tuple[str, str]:
        """The tensor of logits for the router, and the float tensor with the same contents."""
        affine = scores if isinstance(scores, Affine) else self._identity(scores, node)
        logits = self._unique(affine.value, "logits")
        self._emit(affine, out=logits, value=affine.value, role="gate")
        return logits, affine.value

    def _activation(self, node: ir.Node) -> Value:
        x = self._of(node, 0)
        affine = x if isinstance(x, Affine) else self._identity(x, node)
        return Unary(affine, attributes_of(node)["kind"], _result(node))

    def _attention(self, node: ir.Node) -> Value:
        q, k, v = (self._byte_operand(self._of(node, i), node).tensor for i in range(3))
        attributes = attributes_of(node)
        name = _result(node)
        self._append(AttentionOp(
            name, q, k, v, name, attributes["heads"], attributes["scale"],
            *weighings(node, lambda index: self._gate(self._of(node, index), node)),
        ))
        return Operand(name, name)

    _routedheads = _balancedheads = _attention

    def _add(self, node: ir.Node) -> Value:
        x, y = self._of(node, 0), self._of(node, 1)
        if is_stream(y) and not is_stream(x):
            x, y = y, x
        if is_stream(x) and is_stream(y):
            raise unsupported(node, "it adds two residual streams; one side must be a linear layer")
        value, mixed = _result(node), isinstance(x, Mixture | Sum) or isinstance(y, Mixture | Sum)
        if mixed and not is_stream(x):
            return Sum((*self._parts(x, node), *self._parts(y, node)), value)
        if not is_stream(x):
            x = self._stream(x, node)
        assert isinstance(x, Operand)
        assert x.version is not None
        if x.rows is not None:
            raise unsupported(node, "it adds to some rows of the residual stream only")
        if x.version != self.versions[x.tensor]:
            raise unsupported(
                node, f"the residual stream {x.tensor!r} is added to in two different ways"
            )
        parts = self._parts(y, node)
        # Experts read the stream as it was before any of these additions.
        parts.sort(key=lambda part: not isinstance(part, Mixture))
        for part in parts:
            name = value if part is parts[-1] else ""
            x = self._accumulate(x, part, name)
        return x

    def _parts(self, x: Value, node: ir.Node) -> list[Affine | Mixture]:
        """The addends of a value, none of them computed yet."""
        if isinstance(x, Sum):
            return list(x.parts)
        return [x if isinstance(x, Affine | Mixture) else self._identity(x, node)]

    def _accumulate(self, x: Operand, part: Affine | Mixture, value: str) -> Operand:
        """``x`` plus one addend; ``value`` is empty where the float graph has no such sum."""
        if isinstance(part, Mixture):
            out = self._unique(value or f"{part.name}.sum", "stream")
            self.names.add(out)
            result = mix(self.plan, x, part, out, self._free(part.name), value)
            if result.version is not None:
                self.versions[out] = result.version
            return result
        assert x.version is not None
        version = self.versions[x.tensor] = x.version + 1
        self._emit(part, out=x.tensor, value=value, role="add", version=version)
        return Operand(x.tensor, value, version)

    def _selecttoken(self, node: ir.Node) -> Value:
        rows = (attributes_of(node)["index"], 1)
        x = self._of(node, 0)
        if isinstance(x, Patch):
            x = self._stream(x, node)
        if isinstance(x, Unary):
            inner = replace(x.x, x=pick(x.x.x, rows))
            return Unary(inner, x.kind, _result(node))
        if isinstance(x, Affine):
            return replace(x, x=pick(x.x, rows), value=_result(node))
        if isinstance(x, Mixture | Sum):
            raise unsupported(node, "what experts make can only be added to the residual stream")
        return pick(x, rows)

    def _meanpool(self, node: ir.Node) -> Value:
        attributes = attributes_of(node)
        x = self._byte_operand(self._of(node, 0), node).tensor
        name = _result(node)
        self.versions[name] = 0
        self._append(PoolOp(name, x, name, name, attributes["start"], attributes["end"]))
        return Operand(name, name, 0)

    # Forms ---------------------------------------------------------------------------------
    def _of(self, node: ir.Node, index: int) -> Value:
        value = node.inputs[index]
        assert value is not None
        assert value.name
        if value.name not in self.values:
            raise unsupported(node, f"it reads {value.name!r}, an input of the model, directly")
        return self.values[value.name]

    def _embed(self, x: Patch, value: str, prefix: Array, position: Array) -> Operand:
        node = x.node
        self.versions[value] = 0
        self._append(
            PatchOp(
                node.name or "",
                value,
                value,
                tuple(attributes_of(node)["patch"]),
                _array(node, 1),
                _array(node, 2),
                prefix,
                position,
            )
        )
        return Operand(value, value, 0)

    def _stream(self, x: Value, node: ir.Node) -> Operand:
        """``x`` as an int16 tensor; a new one unless it is one already."""
        if isinstance(x, Operand) and x.version is not None and x.norm is None:
            return x
        if isinstance(x, Mixture | Sum):
            raise unsupported(node, "what experts make can only be added to the residual stream")
        if isinstance(x, Patch):
            name = _result(x.node)
            _, count, dim = (
                int(size) if i else 0 for i, size in enumerate(shape_of(x.node.outputs[0]))
            )
            stream = self._embed(x, name, np.zeros((0, dim)), np.zeros((count, dim)))
            self.values[name] = stream
            return stream
        affine = x if isinstance(x, Affine) else self._identity(x, node)
        key = f"{affine.value}@{affine.x.rows}"
        if key not in self.streams:
            name = self._unique(affine.value, "stream")
            self.versions[name] = 0
            self._emit(affine, out=name, value=affine.value, role="stream")
            self.streams[key] = Operand(name, affine.value, 0)
        return self.streams[key]

    def _byte_operand(self, x: Value, node: ir.Node) -> Operand:
        """``x`` as a whole int8 tensor, computed now if it is not there yet."""
        if isinstance(x, Operand) and x.version is None and x.rows is None:
            return x
        unary = x if isinstance(x, Unary) else None
        affine = x if isinstance(x, Affine) else unary.x if unary else self._identity(x, node)
        value = unary.value if unary else affine.value
        key = f"{value}@{affine.x.rows}"
        if key not in self.bytes:
            self.bytes[key] = self._unique(value, "int8")
            self._emit(
                affine,
                out=self.bytes[key],
                value=value,
                role="int8",
                kind=unary.kind if unary else None,
            )
        return Operand(self.bytes[key], value)

    def _identity(self, x: Value, node: ir.Node) -> Affine:
        """A linear map that changes nothing, so that ``x`` passes the matrix unit."""
        if isinstance(x, Patch):
            x = self._stream(x, node)
        if isinstance(x, Unary):
            x = self._byte_operand(x, node)
        if isinstance(x, Mixture | Sum):
            raise unsupported(node, "what experts make can only be added to the residual stream")
        assert isinstance(x, Operand)
        value = x.value if x.norm is None else x.norm.value
        dim = self._channels(x, node)
        name = self._unique(f"{value}.copy", str(len(self.names)))
        return Affine(x, np.eye(dim), np.zeros(dim), name, value, identity=True)

    def _channels(self, x: Operand, node: ir.Node) -> int:
        if x.norm is not None:
            return len(x.norm.gamma)
        for op in self.plan.ops:
            if op.out == x.tensor:
                if isinstance(op, LinearOp | PatchOp):
                    return op.weight.shape[-2]
                if isinstance(op, ExpertsOp):
                    return op.w2.shape[1]
                return self._channels(
                    Operand(op.v if isinstance(op, AttentionOp) else op.x, ""), node
                )
        raise AssertionError(f"{node.name}: nothing writes {x.tensor!r}")

    def _emit(
        self,
        affine: Affine,
        *,
        out: str,
        value: str,
        role: str,
        version: int = 0,
        kind: str | None = None,
    ) -> None:
        name = affine.name if affine.name not in self._op_names() else f"{affine.name}.{role}"
        self._append(
            LinearOp(
                self._free(name),
                affine.x,
                affine.weight,
                affine.bias,
                out,
                value,
                role,
                version,
                kind,
                affine.value,
                affine.identity,
                affine.task,
            )
        )

    def _output(self, name: str) -> None:
        x = self.values[name]
        if is_stream(x) and isinstance(x, Operand) and x.rows is None:
            if x.version != self.versions[x.tensor]:
                raise unsupported(name, "an output is a residual stream that is added to later")
            self.plan.outputs[name] = x.tensor
            return
        if isinstance(x, Patch):
            self.plan.outputs[name] = self._stream(x, x.node).tensor
            return
        affine = x if isinstance(x, Affine) else self._identity(x, ir.node("", [], name=name))
        out = self._unique(name, "output")
        self._emit(affine, out=out, value=name, role="output")
        self.plan.outputs[name] = out

    # Names ---------------------------------------------------------------------------------
    def _append(self, op: PlanOp) -> None:
        self.names.add(op.out)
        self.plan.ops.append(op)

    def _op_names(self) -> set[str]:
        return {op.name for op in self.plan.ops}

    def _free(self, name: str) -> str:
        taken, count, result = self._op_names(), 1, name
        while result in taken:
            count += 1
            result = f"{name}.{count}"
        return result

    def _unique(self, name: str, suffix: str) -> str:
        return name if name not in self.names else f"{name}.{suffix}"


def image_of(model: ir.Model) -> ir.Value:
    """The image among the inputs of a canonical model; the others are task numbers."""
    return next(v for v in model.graph.inputs if len(shape_of(v)) == _IMAGE_RANK)


def _result(node: ir.Node) -> str:
    name = node.outputs[0].name
    assert name
    return name


def _array(node: ir.Node, index: int) -> Array:
    value = node.inputs[index]
    assert value is not None
    return array_of(value).astype(np.float64)


def make_plan(model: ir.Model) -> Plan:
    """The plan of a canonical model.

    Raises
    ------
    UnsupportedOpError
        Names the first node whose place in the graph the core cannot serve.
    """
    if sum(len(shape_of(value)) == _IMAGE_RANK for value in model.graph.inputs) != 1:
        names = ", ".join(repr(value.name) for value in model.graph.inputs)
        raise UnsupportedOpError(f"the model has the inputs {names}; the core takes one image")
    plan = _Planner(model).plan
    plan.ops = ordered(plan.ops)
    return plan
