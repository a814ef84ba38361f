"""The memory behind the bus, as simulator and estimator have it; part of no hash."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .errors import ConfigError
from .text import short

#: Fixed point of the times in :class:`DramCycles`.
UNIT = 1 << 16
#: Largest latency (cycles) and number of bursts in flight of a simulated memory.
MAX_LATENCY = 1_000_000
MAX_OUTSTANDING = 1024
#: Bursts of one direction before the other has its turn.
TURN_BURSTS = 16


@dataclass(frozen=True, kw_only=True)
class Dram:
    """Latency, and what limits the bandwidth.

    Without ``bandwidth`` the memory is ideal: every port moves a beat each way in every cycle.
    With it, reads and writes of all ports share one data bus, which refreshes, turn-arounds and
    row misses keep waiting.
    """

    #: Cycles from an accepted read address to its first beat.
    latency: int = 100
    #: Bursts in flight at once, per direction and port.
    outstanding: int = 8
    #: Bytes a second while data move, reads and writes together; 0: ideal.
    bandwidth: float = 0.0
    #: Mean time between refreshes (tREFI), and how long one lasts (tRFC).
    refresh_interval_ns: float = 0.0
    refresh_ns: float = 0.0
    #: Idle time between a read and a write.
    turnaround_ns: float = 0.0
    #: PRECHARGE and ACTIVE (tRP + tRCD), hidden while another bank has data to move.
    row_miss_ns: float = 0.0
    #: Bytes of a row, all chips together, and banks; rows go round the banks.
    row_bytes: int = 8192
    banks: int = 8

    def __post_init__(self) -> None:
        bounds = {
            "latency": (0, MAX_LATENCY), "outstanding": (1, MAX_OUTSTANDING),
            "row_bytes": (1, 1 << 30), "banks": (1, 1024),
        }
        for field in dataclasses.fields(self):
            value, whole = getattr(self, field.name), field.name in bounds
            low, high = bounds.get(field.name, (0, 10**15))
            if (isinstance(value, bool) or not isinstance(value, int if whole else (int, float))
                    or not low <= value <= high):
                raise ConfigError(
                    f"dram: {field.name} must be {low} to {high}, not {short(value)}"
                )
        if self.refresh_ns and self.refresh_interval_ns <= self.refresh_ns:
            raise ConfigError(
                f"dram: refresh_interval_ns must exceed refresh_ns, and "
                f"{self.refresh_interval_ns:g} does not exceed {self.refresh_ns:g}"
            )

    @property
    def sustained(self) -> float:
        """Bytes a second of one endless sequential read: ``bandwidth`` less the refreshes."""
        if not self.refresh_interval_ns:
            return self.bandwidth
        return self.bandwidth * (1 - self.refresh_ns / self.refresh_interval_ns)

    def sustaining(self, bytes_a_second: float) -> Dram:
        """The same memory, with the bandwidth that gives :attr:`sustained`."""
        share = self.sustained / self.bandwidth if self.bandwidth else 1.0
        return dataclasses.replace(self, bandwidth=bytes_a_second / share)

    def cycles(self, clock_mhz: float) -> DramCycles:
        """The times in cycles of a clock."""

        def fixed(nanoseconds: float) -> int:
            return round(nanoseconds * clock_mhz / 1000 * UNIT)

        return DramCycles(
            byte=round(clock_mhz * 1e6 * UNIT / self.bandwidth) if self.bandwidth else 0,
            refresh_interval=fixed(self.refresh_interval_ns), refresh=fixed(self.refresh_ns),
            turnaround=fixed(self.turnaround_ns), row_miss=fixed(self.row_miss_ns),
            row_bytes=self.row_bytes, banks=self.banks, turn_bursts=TURN_BURSTS,
        )


@dataclass(frozen=True, kw_only=True)
class DramCycles:
    """Times in cycles, in fixed point (:data:`UNIT`); ``byte``: time of a byte, 0 for ideal."""

    byte: int
    refresh_interval: int
    refresh: int
    turnaround: int
    row_miss: int
    row_bytes: int
    banks: int
    turn_bursts: int
