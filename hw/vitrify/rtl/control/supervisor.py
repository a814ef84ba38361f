"""Errors, interrupts, and a reset that leaves the bus in a legal state."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.csr import CSR_ADDRESS_BITS, DRAIN_CYCLES, ErrorCode
from vitrify.rtl.bus.csr import REGISTER_BITS
from vitrify.rtl.bus.read_master import BUS_ERROR
from vitrify.rtl.interfaces import pipe

from .dispatcher import FAULT

#: Offset of the register that holds no multiple of ``ALIGNMENT``.
MISALIGNED = data.StructLayout({"register": CSR_ADDRESS_BITS})


class Supervisor(wiring.Component):
    """Keep the first error, count jobs, and reset the core without breaking a burst.

    An error, or ``reset``, stops the bus masters from beginning bursts.  After ``reset`` the
    supervisor waits until nothing is in flight, and asserts ``core_reset`` for ``reset_cycles``
    cycles: the synchronous reset of everything but registers, job queue and supervisor.  A unit
    may get it up to ``reset_cycles - 1`` cycles late (all are in reset together for a cycle at
    least); as long is waited behind it.

    A memory that does not answer keeps the bus busy.  After ``drain_cycles`` the supervisor gives
    up, leaves bus and core as they are (a burst that was announced stays so) with the error
    BUS_LOST, and the next ``reset`` waits again.

    Parameters
    ----------
    reset_cycles, drain_cycles : int

    Members
    -------
    reset : In(1)
        Pulse.
    read_error, write_error, read_refused, write_refused : In(pipe(BUS_ERROR))
    fault : In(pipe(FAULT))
    misaligned : In(pipe(MISALIGNED))
    timeout : In(1)
        The job takes too long; ``fault.p`` says where it is.
    overflow : In(1)
    done : In(1)
        Pulse: a job finished.
    bus_idle : In(1)
    bus_stop : Out(1)
    core_reset : Out(1)
    resetting : Out(1)
        From ``reset`` to the end of ``core_reset``.
    failed : Out(1)
        There is an error; until the next reset.
    lost : Out(1)
        The last reset waited for the bus in vain.
    failure : Out(1)
        Pulse: ``failed`` begins.
    error_code, jobs_done : Out(32)
    error_info : Out(64)
    """

    reset: Signal
    read_error: Any
    write_error: Any
    read_refused: Any
    write_refused: Any
    fault: Any
    misaligned: Any
    timeout: Signal
    overflow: Signal
    done: Signal
    bus_idle: Signal
    bus_stop: Signal
    core_reset: Signal
    resetting: Signal
    failed: Signal
    lost: Signal
    failure: Signal
    error_code: Signal
    error_info: Signal
    jobs_done: Signal

    def __init__(self, *, reset_cycles: int, drain_cycles: int = DRAIN_CYCLES) -> None:
        self._reset_cycles = reset_cycles
        self._drain_cycles = drain_cycles
        super().__init__({
            "reset": In(1),
            **{
                f"{kind}_{what}": In(pipe(BUS_ERROR))
                for kind in ("read", "write") for what in ("error", "refused")
            },
            "fault": In(pipe(FAULT)), "misaligned": In(pipe(MISALIGNED)), "timeout": In(1),
            "overflow": In(1), "done": In(1),
            "bus_idle": In(1), "bus_stop": Out(1),
            "core_reset": Out(1), "resetting": Out(1), "failed": Out(1), "lost": Out(1),
            "failure": Out(1),
            "error_code": Out(REGISTER_BITS), "error_info": Out(2 * REGISTER_BITS),
            "jobs_done": Out(REGISTER_BITS),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        causes = (
            (self.timeout, ErrorCode.TIMEOUT, self.fault.p.index),
            (self.overflow, ErrorCode.QUEUE_OVERFLOW, 0),
            (self.misaligned.valid, ErrorCode.MISALIGNED, self.misaligned.p.register),
            (self.fault.valid, ErrorCode.ILLEGAL_INSTRUCTION, self.fault.p.index),
            (self.write_error.valid, ErrorCode.BUS_WRITE, self.write_error.p.address),
            (self.read_error.valid, ErrorCode.BUS_READ, self.read_error.p.address),
            (self.write_refused.valid, ErrorCode.WINDOW_WRITE, self.write_refused.p.address),
            (self.read_refused.valid, ErrorCode.WINDOW_READ, self.read_refused.p.address),
        )
        # Causes come from everywhere: one is chosen first, and counts a cycle later.
        seen = Signal()
        seen_code, seen_info = Signal.like(self.error_code), Signal.like(self.error_info)
        m.d.sync += [self.failure.eq(0), seen.eq(0)]
        for valid, code, info in causes:
            with m.If(valid):
                m.d.sync += [
                    seen.eq(~self.resetting), seen_code.eq(code), seen_info.eq(info),
                ]
        with m.If(seen & ~self.failed & ~self.resetting):
            m.d.sync += [
                self.failed.eq(1), self.failure.eq(1),
                self.error_code.eq(seen_code), self.error_info.eq(seen_info),
            ]
        m.d.sync += self.jobs_done.eq(self.jobs_done + self.done)
        m.d.sync += self.bus_stop.eq(self.failed | self.resetting)

        reset_cycles = self._reset_cycles
        left = Signal(range(max(2 * reset_cycles, self._drain_cycles)))
        m.d.sync += left.eq(Mux(left == 0, 0, left - 1))
        with m.FSM():
            with m.State("RUN"), m.If(self.reset):
                m.d.sync += self.resetting.eq(1)
                m.next = "STOP"
            with m.State("STOP"):
                m.d.sync += left.eq(self._drain_cycles - 1)
                with m.If(self.bus_stop):  # no burst begins from now on
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(self.bus_idle):
                    m.d.sync += [self.core_reset.eq(1), left.eq(2 * reset_cycles - 1)]
                    m.next = "RESET"
                with m.Elif(left == 0):
                    m.d.sync += [
                        self.resetting.eq(0), self.failed.eq(1), self.failure.eq(1),
                        self.lost.eq(1),
                        self.error_code.eq(ErrorCode.BUS_LOST), self.error_info.eq(0),
                    ]
                    m.next = "RUN"
            with m.State("RESET"):
                with m.If(left == reset_cycles):
                    m.d.sync += self.core_reset.eq(0)
                with m.If(left == 0):
                    m.d.sync += [
                        self.resetting.eq(0), self.failed.eq(0), self.lost.eq(0),
                        self.error_code.eq(ErrorCode.NONE), self.error_info.eq(0),
                        self.jobs_done.eq(0),
                    ]
                    m.next = "RUN"
        return m
