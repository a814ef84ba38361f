"""The longest path of a mapped netlist, where nothing has been placed.

A path starts at a register, a memory's read port or a port of the module, goes through LUTs,
multiplexers, carry chains and whatever else is not registered, and ends at the like.  Delays of
cells are known (:mod:`~vitrify.boards.cell_delays`); those of wires, the larger part, are not:
:mod:`~vitrify.boards.clock` says how they are guessed.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from vitrify.arch.errors import BackendError

from .cell_delays import Cell, cell_delays
from .fanout import MOST
from .netlist import Netlist, Wiring

#: Registers' inputs that the LUT or carry before them reaches without a wire.
_DATA = ("D", "DI")


@dataclass(frozen=True)
class Wire:
    """Delay of a wire in ns: ``base``, and ``slope`` for each doubling of its readers.

    More than :data:`~vitrify.boards.fanout.MOST` readers count as so many: drivers are copied.
    """

    base: float
    slope: float = 0.0

    def delay(self, readers: int) -> float:
        """Of a wire to so many readers."""
        return self.base + self.slope * math.log2(max(1, min(readers, MOST)))

    def __mul__(self, factor: float) -> Wire:
        return Wire(self.base * factor, self.slope * factor)


@dataclass(frozen=True)
class LongestPath:
    """A longest path: its delay, and what is on it.

    ``levels`` are LUTs and what else counts as much (a sum's first and last bits, a multiplier),
    ``carries`` the cells that a carry passes, ``wires`` those that have a delay, ``fanout`` the
    most readers of one of them.
    """

    period_ns: float
    levels: int
    carries: int
    wires: int
    fanout: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """A way through a cell, from one net to another."""

    cell: str
    source: int
    wire: float
    delay: float
    kind: str


@cache
def _matches(pattern: str, port: str) -> bool:
    return bool(pattern) and re.fullmatch(pattern, port) is not None


class _Timing:
    """Arrival times of all nets of a module."""

    def __init__(self, module: Netlist, wire: Wire) -> None:
        self.wiring = Wiring(module)
        self.wire = wire
        self.delays = {name: _delays(name, one) for name, one in module["cells"].items()}
        #: Net → when it changes, and through which cell.
        self.arrival: dict[int, float] = {}
        self.via: dict[int, tuple[str, _Step | None]] = {}
        into: dict[int, list[_Step]] = {}
        out: dict[int, list[int]] = {}
        for name, one in module["cells"].items():
            for bit, start in self._starts(name, one):
                self.arrival[bit], self.via[bit] = start, (name, None)
            for bit, step in self._through(name, one):
                into.setdefault(bit, []).append(step)
                out.setdefault(step.source, []).append(bit)
        self._propagate(into, out)

    def _starts(self, name: str, one: dict[str, Any]) -> Iterator[tuple[int, float]]:
        for pattern, delay in (self.delays[name].starts or {}).items():
            for port, bits in one["connections"].items():
                if one["port_directions"][port] == "output" and _matches(pattern, port):
                    yield from ((bit, delay) for bit in bits if isinstance(bit, int))

    def _through(self, name: str, one: dict[str, Any]) -> Iterator[tuple[int, _Step]]:
        for arc in self.delays[name].through:
            for port, bits in one["connections"].items():
                if one["port_directions"][port] != "input" or not _matches(arc.inputs, port):
                    continue
                for to, targets in one["connections"].items():
                    if one["port_directions"][to] != "output" or not _matches(arc.outputs, to):
                        continue
                    for n, bit in enumerate(bits):
                        if not isinstance(bit, int):
                            continue
                        step = _Step(name, bit, self.hop(bit, name, port), arc.delay, arc.kind)
                        for target in targets[n if arc.order else 0:]:
                            if isinstance(target, int):
                                yield target, step

    def _propagate(self, into: dict[int, list[_Step]], out: dict[int, list[int]]) -> None:
        waiting = {bit: len(steps) for bit, steps in into.items()}
        ready = deque(bit for bit in out if bit not in waiting)
        done = 0
        while ready:
            bit = ready.popleft()
            for target in out.get(bit, ()):
                waiting[target] -= 1
                if waiting[target] == 0:
                    done += 1
                    for step in into[target]:
                        # From a port of the module: as from a register outside.
                        at = self.arrival.get(step.source, 0.0) + step.wire + step.delay
                        if at >= self.arrival.get(target, 0.0):
                            self.arrival[target], self.via[target] = at, (step.cell, step)
                    ready.append(target)
        if done < len(waiting):
            loop = sorted({into[bit][0].cell for bit, count in waiting.items() if count})
            raise BackendError(
                f"the netlist has a combinational loop, which no clock is slow enough for; on it "
                f"or behind it are {', '.join(loop[:4])}{' …' * (len(loop) > 4)}"
            )

    def hop(self, bit: int, reader: str, port: str) -> float:
        """Delay of the wire from what drives ``bit`` to a port."""
        if _matches(self.delays[reader].near, port):
            return 0.0
        driver = self.wiring.driver(bit)
        if port in _DATA and driver is not None and self.delays[driver].fabric:
            return 0.0
        return self.wire.delay(len(self.wiring.readers[bit]))

    def ends(self) -> Iterator[tuple[float, int, str, float]]:
        """Every end of a path: when it is there, its net, the cell that takes it, and its wire."""
        for name, one in self.wiring.cells.items():
            for pattern, setup in (self.delays[name].ends or {}).items():
                for port, bits in one["connections"].items():
                    if one["port_directions"][port] != "input" or not _matches(pattern, port):
                        continue
                    for bit in bits:
                        if bit in self.arrival:
                            hop = self.hop(bit, name, port)
                            yield self.arrival[bit] + hop + setup, bit, name, hop


def _delays(name: str, one: dict[str, Any]) -> Cell:
    found = cell_delays(one["type"], one["parameters"])
    if found is None:
        raise BackendError(f"cell {name!r} is of type {one['type']!r}, of which no delay is known")
    return found


def longest_path(module: Netlist, wire: Wire) -> LongestPath:
    """The longest path of a flat mapped module, given what a wire costs.

    Paths that start at a port of the module count as from a register that is outside, with no time
    from clock to output; those that end at one are left out.  There is one clock.

    Raises
    ------
    BackendError
        If a cell's type is not known, there is a combinational loop, or no path.
    """
    timing = _Timing(module, wire)
    last = max(timing.ends(), default=None)
    if last is None:
        raise BackendError("the netlist has no path from a register to another")
    period, bit, end, hop = last
    cells, levels, carries, wires, fanout = [end], 0, 0, 0, 0
    while True:
        if hop:
            wires, fanout = wires + 1, max(fanout, len(timing.wiring.readers[bit]))
        if bit not in timing.via:
            break
        cell, step = timing.via[bit]
        cells.append(cell)
        if step is None:
            break
        levels, carries = levels + (step.kind == "level"), carries + (step.kind == "carry")
        bit, hop = step.source, step.wire
    return LongestPath(period, levels, carries, wires, fanout, tuple(reversed(cells)))
