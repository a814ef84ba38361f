"""SDRAM chips: geometry and times, for controller, its simulated chip, and the estimator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SdramPart:
    """A single-data-rate memory chip; times in nanoseconds."""

    name: str
    #: Data lines, bits of a word: 16 or 32.
    bits: int = 16
    bank_bits: int = 2
    row_bits: int = 13
    column_bits: int = 9
    #: Cycles from a READ to its data, as programmed.
    cas_latency: int = 2
    #: Power-up time before the first command.
    power_up: float = 200_000.0
    #: ACTIVE to READ or WRITE; PRECHARGE to ACTIVE; ACTIVE to PRECHARGE; REFRESH; last WRITE to
    #: PRECHARGE.
    trcd: float = 20.0
    trp: float = 20.0
    tras: float = 45.0
    trfc: float = 66.0
    twr: float = 15.0
    #: Longest mean time between two REFRESH commands: 64 ms for 8,192 of them.
    refresh: float = 7_812.0

    @property
    def bytes(self) -> int:
        """Bytes of a word."""
        return self.bits // 8

    @property
    def words(self) -> int:
        """Words of the chip."""
        return 1 << (self.bank_bits + self.row_bits + self.column_bits)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.bytes * self.words

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.bytes << self.column_bits
