"""The router, and what only the routing decides: rows of experts, and who is left out."""

from __future__ import annotations

from dataclasses import replace

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction, Opcode
from vitrify.program import Program
from vitrify.runtime.routing import Routing, routes

#: Logits that the router takes in a cycle.
_LANES = 4
#: Cycles of a row besides its groups of logits or its choices.
_ROW = 2
#: Cycles from the logits to the first row, through all pipelines, and to the dispatcher.
_PIPELINE = 45
#: Distances, which count MATMULs of the program.
_DISTANCES = ("dep_distance", "st_distance", "wait_distance")


def route_cycles(arch: ArchConfig, op: Instruction) -> int:
    """Cycles from the logits to the queues."""
    row = max(-(-op.experts // _LANES), 2 * op.choices) + _ROW
    places = 0 if op.joins else 2 * arch.experts
    return op.rows * (row + op.choices) + places + _PIPELINE


class Queues:
    """Instructions completed by a routing: their rows, and distances without those left out."""

    def __init__(self, program: Program, routing: Routing) -> None:
        assert len(routing.counts) == len(routes(program))
        self._counts = iter(routing.counts)
        self._rows: tuple[int, ...] = ()
        #: For each MATMUL of the program: the one to wait for in its place, among those that run.
        self._ran: list[int] = []
        self.count = 0

    def resolve(self, op: Instruction) -> Instruction | None:
        """The instruction as the engines see it; ``None`` if it is left out."""
        if op.opcode is Opcode.ROUTE and not op.joins:
            self._rows = next(self._counts)
        values = dict(op.values)
        for name in _DISTANCES:
            if values.get(name):
                then = len(self._ran) - values[name]
                values[name] = self.count - self._ran[then] if then >= 0 else 0
        if op.opcode is not Opcode.MATMUL:
            return replace(op, values=values)
        if op.expert_rows:
            values["rows"] = min(op.rows, self._rows[op.expert] - op.expert_first)
            if values["rows"] <= 0:
                self._ran.append(max(self.count - 1, 0))
                return None
        self._ran.append(self.count)
        self.count += 1
        return replace(op, values=values)
