"""Controller for a single-data-rate SDRAM (JEDEC command set).

Every burst opens its row and closes it again: with bursts of 256 words that costs 4 %, and a
controller of open rows would buy nothing for a core that reads one long stream.
"""

from __future__ import annotations

import enum
from math import ceil
from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.sdram import SdramPart

#: Most words of a burst.
BURST_WORDS = 256
#: Cycles from the memory's own latency to its data in the chip: pads, wires and half a cycle.
ROUND_TRIP = 1


class Command(enum.IntEnum):
    """What the pins ``cas_n`` (bit 0), ``ras_n``, ``we_n`` say together, inverted."""

    NOP = 0b000
    ACTIVE = 0b010
    READ = 0b001
    WRITE = 0b101
    PRECHARGE = 0b110
    REFRESH = 0b011
    MODE = 0b111


#: A burst of 1 … BURST_WORDS words that does not leave its row.
REQUEST = data.StructLayout({"address": 32, "words": range(BURST_WORDS + 1), "write": 1})


def pins(part: SdramPart) -> wiring.Signature:
    """The chip's pins, seen from the controller; ``d_oe`` drives the data lines.

    Words are written whole: ``dqm``, which not every board has wires to, belongs to nobody.
    """
    return wiring.Signature({
        "cke": Out(1), "cs_n": Out(1, init=1), "ras_n": Out(1, init=1), "cas_n": Out(1, init=1),
        "we_n": Out(1, init=1), "ba": Out(part.bank_bits), "a": Out(part.row_bits),
        "d_o": Out(part.bits), "d_oe": Out(1), "d_i": In(part.bits),
    })


class SdramController(wiring.Component):
    """Bursts to pins.

    The chip's clock is the inverted clock of the controller, so that commands have half a cycle
    to arrive; ``round_trip`` cycles are allowed for the way out and back.  Data that are read
    must be taken.

    Parameters
    ----------
    part : SdramPart
    clock_mhz : float
    round_trip : int
        Cycles between the chip's own latency and the data at ``d_i``.

    Members
    -------
    request : In(stream.Signature(REQUEST))
        ``address`` counts words of the part.
    write : In(stream.Signature(part.bits))
        The words of a write burst.
    read : Out(part.bits)
    read_valid, read_last : Out(1)
        ``read`` is a word of a read burst, its last one.
    written : Out(1)
        Pulse: a write burst is complete.
    pins : Out(pins(part))
    """

    request: Any
    write: Any
    read: Signal
    read_valid: Signal
    read_last: Signal
    written: Signal
    pins: Any

    def __init__(
        self, part: SdramPart, *, clock_mhz: float, round_trip: int = ROUND_TRIP
    ) -> None:
        self.part = part
        self.clock_mhz = clock_mhz
        self.round_trip = round_trip
        super().__init__({
            "request": In(stream.Signature(REQUEST)), "write": In(stream.Signature(part.bits)),
            "read": Out(part.bits), "read_valid": Out(1), "read_last": Out(1), "written": Out(1),
            "pins": Out(pins(part)),
        })

    def _cycles(self, nanoseconds: float) -> int:
        return max(1, ceil(nanoseconds * self.clock_mhz / 1000))

    def elaborate(self, _platform: Any) -> Module:
        m, part, chip = Module(), self.part, self.pins
        m.d.comb += chip.cke.eq(1)
        # NOP, unless a state says otherwise.
        command = Signal(3, init=Command.NOP)
        m.d.sync += [
            chip.cs_n.eq(0), Cat(chip.cas_n, chip.ras_n, chip.we_n).eq(~command),
            chip.d_oe.eq(0),
        ]

        # Time until the next command, and until the row may be closed.
        power_up = self._cycles(part.power_up)
        wait = Signal(range(power_up + 1), init=power_up)
        m.d.sync += wait.eq(Mux(wait == 0, 0, wait - 1))
        still_open = Signal(range(self._cycles(part.tras) + 1))
        m.d.sync += still_open.eq(Mux(still_open == 0, 0, still_open - 1))

        period = int(part.refresh * self.clock_mhz / 1000)
        age, due = Signal(range(period + 1)), Signal(4)
        refreshed = Signal()
        expired = age == period - 1
        m.d.sync += [
            age.eq(Mux(expired, 0, age + 1)),
            due.eq(due + (expired & ~due.all()) - refreshed),
        ]

        burst = Signal(REQUEST)
        column, row, bank = self._place(burst.address)
        left = Signal.like(burst.words)
        last = Signal()
        initial = Signal(range(9), init=8)
        m.d.comb += last.eq(left == 1)
        taken = Signal(2)  # a word is read; it is the last one
        with m.FSM():
            with m.State("POWER_UP"), m.If(wait == 0):
                self._precharge_all(m, command, wait)
                m.next = "INITIAL_REFRESH"
            with m.State("INITIAL_REFRESH"), m.If(wait == 0):
                m.d.comb += command.eq(Command.REFRESH)
                m.d.sync += [wait.eq(self._cycles(part.trfc) - 1), initial.eq(initial - 1)]
                with m.If(initial == 1):
                    m.next = "MODE"
            with m.State("MODE"), m.If(wait == 0):
                m.d.comb += command.eq(Command.MODE)
                # Bursts of one word, read and write.
                m.d.sync += [chip.a.eq(part.cas_latency << 4), chip.ba.eq(0), wait.eq(2)]
                m.next = "IDLE"
            with m.State("IDLE"), m.If(wait == 0):
                with m.If(due != 0):
                    m.d.comb += [command.eq(Command.REFRESH), refreshed.eq(1)]
                    m.d.sync += wait.eq(self._cycles(part.trfc) - 1)
                with m.Elif(self.request.valid):
                    m.d.comb += self.request.ready.eq(1)
                    m.d.sync += [burst.eq(self.request.p), left.eq(self.request.p.words)]
                    m.next = "OPEN"
            with m.State("OPEN"):
                m.d.comb += command.eq(Command.ACTIVE)
                m.d.sync += [
                    chip.a.eq(row), chip.ba.eq(bank), wait.eq(self._cycles(part.trcd) - 1),
                    still_open.eq(self._cycles(part.tras) - 1),
                ]
                m.next = "WORDS"
            with m.State("WORDS"), m.If((wait == 0) & (~burst.write | self.write.valid)):
                m.d.comb += [
                    command.eq(Mux(burst.write, Command.WRITE, Command.READ)),
                    self.write.ready.eq(burst.write),
                    taken.eq(Cat(~burst.write, ~burst.write & last)),
                ]
                m.d.sync += [
                    chip.a.eq(column), chip.ba.eq(bank), column.eq(column + 1),
                    left.eq(left - 1), chip.d_oe.eq(burst.write),
                    chip.d_o.eq(self.write.p),
                ]
                with m.If(last):
                    # The word that is written last needs its time; one that is read has left.
                    m.d.sync += wait.eq(Mux(burst.write, self._cycles(part.twr) - 1, 0))
                    m.next = "CLOSE"
            with m.State("CLOSE"), m.If((wait == 0) & (still_open == 0)):
                self._precharge_all(m, command, wait)
                m.next = "IDLE"

        latency = part.cas_latency + self.round_trip + 1
        flight = Signal(2 * latency)
        m.d.sync += [
            flight.eq(Cat(taken, flight)), self.read.eq(chip.d_i),
            self.written.eq(self.write.valid & self.write.ready & last),
        ]
        m.d.comb += [self.read_valid.eq(flight[-2]), self.read_last.eq(flight[-1])]
        return m

    def _place(self, address: Any) -> tuple[Any, Any, Any]:
        """Column, row and bank of a word: neighbouring rows lie in different banks."""
        part = self.part
        banks = part.column_bits + part.bank_bits
        return (
            address[:part.column_bits], address[banks : banks + part.row_bits],
            address[part.column_bits : banks],
        )

    def _precharge_all(self, m: Module, command: Signal, wait: Signal) -> None:
        m.d.comb += command.eq(Command.PRECHARGE)
        m.d.sync += [
            self.pins.a.eq(1 << 10), wait.eq(self._cycles(self.part.trp) - 1),
        ]
