"""Streams that are made when the first reader asks for them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import onnx_ir as ir

from vitrify.quant.plan import Operand
from vitrify.quant.planner import Planner, Value, result_of
from vitrify.quant.tensors import Rows

from .plan import Affine, LinearValue, Stored


@dataclass(frozen=True)
class LateStream(LinearValue):
    """The result of ``node``, an int16 tensor that is not there yet."""

    node: ir.Node

    @abstractmethod
    def make(self, planner: Planner) -> Operand:
        """Compute it."""

    @property
    def is_stream(self) -> bool:
        return True

    def stream(self, planner: Planner, node: ir.Node) -> Operand:
        name = result_of(self.node)
        done = planner.values.get(name)
        if not isinstance(done, Stored):  # else made since somebody asked for this value
            done = planner.values[name] = Stored(self.make(planner))
        return done.x

    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        return Stored(self.stream(planner, node)).affine(planner, node)

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> Value:
        return Stored(self.stream(planner, node)).pick(planner, node, rows)

    def output(self, planner: Planner, name: str) -> str:
        return self.stream(planner, self.node).tensor
