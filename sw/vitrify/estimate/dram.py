"""The memory behind the bus: when the beats of a burst arrive.

What the simulator's harness does, for reads alone: the few bytes that are stored do not share the
data bus here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vitrify.arch.config import ArchConfig
from vitrify.arch.dram import UNIT, DramCycles

#: Cycles that a read spends in the registers between one wide port and several narrow ones.
_STRIPES = 8


class DataBus:
    """Refreshes, row misses and the pace of one data bus (``controller.h`` of the harness)."""

    def __init__(self, times: DramCycles) -> None:
        self._times = times
        self._rows: dict[int, tuple[int, int]] = {}  # open row of a bank, end of its last data
        self._free = 0
        self._refresh = times.refresh_interval

    def serve(self, address: int, size: int, arrival: int) -> int:
        """First moment of the data of a burst that came at ``arrival``, in fixed point."""
        times = self._times
        start = max(self._free, arrival)
        if times.refresh_interval:
            behind = start - times.refresh - self._refresh
            if behind >= 0:
                self._refresh += (behind // times.refresh_interval + 1) * times.refresh_interval
            if self._refresh <= start:
                start = self._refresh + times.refresh
                self._refresh += times.refresh_interval
                self._rows = {bank: (-1, end) for bank, (_, end) in self._rows.items()}
        row = address // times.row_bytes
        opened, end = self._rows.get(row % times.banks, (-1, 0))
        if opened != row:
            start = max(start, max(end, arrival) + times.row_miss)
        self._free = start + size * times.byte
        self._rows[row % times.banks] = (row, self._free)
        return start


@dataclass(frozen=True)
class _Ideal:
    """Data begin when the burst has come."""

    def serve(self, _address: int, _size: int, arrival: int) -> int:
        return arrival


class Memory:
    """Every port with its queue, one data bus behind all of them."""

    def __init__(self, arch: ArchConfig) -> None:
        times = arch.dram.cycles(arch.clock_mhz)
        self._bus = DataBus(times) if times.byte else _Ideal()
        self._pace = times.byte * arch.port_bytes
        self._latency = arch.dram.latency
        self._ports, self._bytes = arch.ports, arch.bus_bytes
        self._stripe = arch.stripe_bytes if arch.ports > 1 else 1 << 62
        self._registers = _STRIPES if arch.ports > 1 else 0
        self._free = [0] * arch.ports  # cycle of a port's last beat
        # Of the stripes that a port has in flight at most; the bus counts those of a single port.
        count = arch.dram.outstanding if arch.ports > 1 else 1
        self._ends = [deque([-1] * count, maxlen=count) for _ in range(arch.ports)]
        self._last = -1

    def read(self, address: int, beats: int, accepted: int) -> list[int]:
        """Cycles in which the beats of a burst leave the bus, in order."""
        found: list[int] = []
        while beats:
            inside = (self._stripe - address % self._stripe) // self._bytes
            count = min(beats, inside)
            self._stripe_beats(found.append, address, count, accepted)
            address, beats = address + count * self._bytes, beats - count
        return found

    def _stripe_beats(
        self, found: Callable[[int], None], address: int, count: int, accepted: int
    ) -> None:
        port = address // self._stripe % self._ports
        if self._ports > 1:
            accepted = max(accepted, self._ends[port][0] + 1)
        start = self._bus.serve(address, count * self._bytes, accepted * UNIT)
        begin, ports = start + self._latency * UNIT, self._ports
        at, last = self._free[port], self._last
        for beat in range(1, count + 1):
            due = -(-(begin + (beat * ports - 1) * self._pace) // UNIT)
            at = max(at + ports, due, -(-begin // UNIT) + beat * ports - 1)
            last = max(last + 1, at + self._registers)
            found(last)
        self._free[port], self._last = at, last
        self._ends[port].append(at)
