"""From the canonical float graph to a plan: which matrix product of the core does what.

Walks the canonical nodes and delays every value (a normalised stream, a linear map, an activation)
until a reader says in which form it is needed: int8 tensor, addition to the residual stream, new
int16 tensor.  What the values are stands in :mod:`vitrify.ops`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import UnsupportedOpError
from vitrify.ir import ARRANGE, array_of, shape_of

from .normaliser import Normaliser
from .plan import Array, Operand, Plan, PlanOp, ordered, unsupported
from .tensors import Rows

_IMAGE_RANK = 4


class Addend(Protocol):
    """What can be added to a stream, not computed yet."""

    @property
    def reads_old_sum(self) -> bool:
        """Whether it has to be added before the others: it reads the stream as it is."""
        ...

    def add_to(self, planner: Planner, node: ir.Node, x: Operand, value: str) -> Operand:
        """The stream ``x`` plus this; ``value`` names the sum in the float graph, or is empty."""
        ...


class Value(ABC):
    """The result of a node, computed when a reader says in which form it wants it.

    ``node`` is the reader, for messages.
    """

    @property
    def is_stream(self) -> bool:
        """Whether it is an int16 tensor that can be added to."""
        return False

    @property
    def only_added(self) -> bool:
        """Whether nothing can be done with it but to add it to a stream."""
        return False

    @abstractmethod
    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        """As a whole int8 tensor."""

    @abstractmethod
    def stream(self, planner: Planner, node: ir.Node) -> Operand:
        """As an int16 tensor; a new one unless it is one already."""

    @abstractmethod
    def operand(self, planner: Planner, node: ir.Node) -> Operand:
        """As what a product streams, in any format, or some rows, or normalised."""

    def wide(self, planner: Planner, node: ir.Node) -> Operand:
        """As all rows of an int16 tensor, normalised or not."""
        return self.stream(planner, node)

    @abstractmethod
    def logits(self, planner: Planner, node: ir.Node) -> tuple[str, str]:
        """The tensor of logits for the router, and the float tensor with the same contents."""

    @abstractmethod
    def addends(self, planner: Planner, node: ir.Node) -> list[Addend]:
        """What is to be added to a stream in its place."""

    @abstractmethod
    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> Value:
        """Some of its rows, the result of ``node``."""

    @abstractmethod
    def output(self, planner: Planner, name: str) -> str:
        """The tensor that holds it as output ``name`` of the model."""


class Planner:
    """The plan under construction, and the values of the nodes so far.

    Members
    -------
    versions : additions to each stream so far
    made : operands by what they hold and its form: none is computed twice
    groups : of tensors whose channels are used in equal parts (heads): how many those are
    """

    def __init__(self, name: str, image: str) -> None:
        self.plan = Plan(name, image)
        self.values: dict[str, Value] = {}
        self.versions: dict[str, int] = {}
        self.made: dict[tuple[str, str, Rows | None], Operand] = {}
        self.groups = self.plan.groups
        #: Of each version of a stream that is normalised when it is read.
        self.normalisers: dict[tuple[str, int], Normaliser] = {}
        #: Names of tensors, and of ops.
        self._names: set[str] = set()
        self._ops: set[str] = set()

    def of(self, node: ir.Node, index: int) -> Value:
        """The value of an input of ``node``."""
        value = node.inputs[index]
        assert value is not None
        assert value.name
        if value.name not in self.values:
            raise unsupported(node, f"it reads {value.name!r}, an input of the model, directly")
        return self.values[value.name]

    def append(self, op: PlanOp, suffix: str = "") -> None:
        """Compute something; an op whose name is taken gets ``suffix`` or a number behind it.

        Whoever evaluates the graph tells operations apart by their names.
        """
        name = f"{op.name}.{suffix}" if suffix and op.name in self._ops else op.name
        own, count = name, 1
        while own in self._ops:
            count += 1
            own = f"{name}.{count}"
        self._ops.add(own)
        self.name(op.out)
        self.plan.ops.append(replace(op, name=own))

    def name(self, tensor: str) -> None:
        """Take the name of a tensor."""
        self._names.add(tensor)

    def unique(self, name: str, suffix: str = "") -> str:
        """``name`` if no tensor has it, else with ``suffix`` (default: a number) behind."""
        if name not in self._names:
            return name
        result = f"{name}.{suffix}" if suffix else name
        while result in self._names:
            result = f"{name}.{suffix}{len(self._names)}"
        return result


#: From a node to its value.
PlanNode = Callable[[Planner, ir.Node], Value]


def make_plan(
    model: ir.Model, operations: Mapping[str, PlanNode], copy: Callable[[Planner, Operand], Operand]
) -> Plan:
    """The plan of a canonical model.

    Parameters
    ----------
    operations : how each canonical operation is planned
    copy : appends an op that copies a version of a stream to a stream of its own

    Raises
    ------
    UnsupportedOpError
        Names the first node whose place in the graph the core cannot serve.
    """
    if sum(len(shape_of(value)) == _IMAGE_RANK for value in model.graph.inputs) != 1:
        names = ", ".join(repr(value.name) for value in model.graph.inputs)
        raise UnsupportedOpError(f"the model has the inputs {names}; the core takes one image")
    planner = Planner(model.graph.name or "model", image_of(model).name or "")
    for node in model.graph:
        if node.op_type == ARRANGE:
            continue  # of an output: the tensor behind it is stored
        if node.op_type not in operations:
            raise unsupported(node, "the compiler has no way to lay it out yet")
        planner.values[result_of(node)] = operations[node.op_type](planner, node)
    for output in model.graph.outputs:
        name = stored_as(output)
        planner.plan.outputs[output.name or ""] = planner.values[name].output(planner, name)
    planner.plan.ops = ordered(planner.plan.ops, lambda x: copy(planner, x))
    return planner.plan


def stored_as(output: ir.Value) -> str:
    """Name of the tensor that holds an output of a canonical model, in whatever form."""
    node = output.producer()
    source = node.inputs[0] if node is not None and node.op_type == ARRANGE else output
    assert source is not None
    return source.name or ""


def image_of(model: ir.Model) -> ir.Value:
    """The image among the inputs of a canonical model; the others are task numbers."""
    return next(v for v in model.graph.inputs if len(shape_of(v)) == _IMAGE_RANK)


def result_of(node: ir.Node) -> str:
    """Name of a node's result."""
    name = node.outputs[0].name
    assert name
    return name


def parameter(node: ir.Node, index: int) -> Array:
    """A constant input of a node, float64."""
    value = node.inputs[index]
    assert value is not None
    return array_of(value).astype(np.float64)
