"""What LOAD and STORE have in common: sizes, the order of elements, waiting for a MATMUL."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode
from vitrify.rtl.interfaces import ADDR_BITS, MEMORY_REQUEST, MOVE_COMMAND, SEQ_BITS


def finished(progress_seq: Value, command: Any) -> Value:
    """Whether the MATMUL that a move command waits for has finished."""
    ahead = (progress_seq - command.wait_seq)[:SEQ_BITS].as_signed()
    return ~command.wait | (ahead > 0)


class MoveRequest(wiring.Component):
    """Turn a move command into its DRAM request, ahead of the engine that executes it.

    ``rows * words`` is multiplied serially, in at most 13 cycles, which the previous command
    hides.  DRAM is asked at once: only the token memory has to wait for a MATMUL.

    Members
    -------
    i : In(stream.Signature(MOVE_COMMAND))
        LOAD_INDEX comes as one row of ``count`` words that is not wide.
    o : Out(stream.Signature(MOVE_COMMAND))
        The same command.
    request : Out(stream.Signature(MEMORY_REQUEST))
    idle : Out(1)
        No command is held.
    """

    i: Any
    o: Any
    request: Any
    idle: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "i": In(stream.Signature(MOVE_COMMAND)),
            "o": Out(stream.Signature(MOVE_COMMAND)),
            "request": Out(stream.Signature(MEMORY_REQUEST)),
            "idle": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        command, product = self.i.p, self.request.p.words
        rows, addend = Signal.like(command.rows), Signal.like(product)
        index_words = (
            (command.words * formats.INDEX_BYTES + self.arch.depth - 1)
            >> exact_log2(self.arch.depth)
        )
        with m.FSM() as fsm:
            with m.State("TAKE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    self.o.p.eq(command), self.request.p.address.eq(command.address),
                    product.eq(0), rows.eq(command.rows),
                    addend.eq(command.words << command.wide),
                ]
                with m.If(command.opcode == Opcode.LOAD_INDEX):
                    m.d.sync += addend.eq(index_words)
                with m.If(self.i.valid):
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [
                    rows.eq(rows >> 1), addend.eq(addend << 1),
                    product.eq(product + Mux(rows[0], addend, 0)),
                ]
                with m.If(rows[1:] == 0):
                    m.d.sync += [self.o.valid.eq(1), self.request.valid.eq(1)]
                    m.next = "SEND"
            with m.State("SEND"):
                with m.If(self.o.ready):
                    m.d.sync += self.o.valid.eq(0)
                with m.If(self.request.ready):
                    m.d.sync += self.request.valid.eq(0)
                with m.If(~self.o.valid & ~self.request.valid):
                    m.next = "TAKE"
        m.d.comb += self.idle.eq(fsm.ongoing("TAKE"))
        return m


class ElementWalk(wiring.Component):
    """Addresses of a tensor's words: all rows of word 0, then all rows of word 1.

    Members
    -------
    start : In(1)
        Begin with ``command``.
    command : In(MOVE_COMMAND)
    step : In(1)
        Go to the next element.
    addr : Out(ADDR_BITS)
        Word address, or pair address when the command is wide.
    last : Out(1)
        This is the last element.
    """

    start: Signal
    command: Any
    step: Signal
    addr: Signal
    last: Signal

    def __init__(self) -> None:
        super().__init__({
            "start": In(1), "command": In(MOVE_COMMAND), "step": In(1),
            "addr": Out(ADDR_BITS), "last": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        column = Signal(ADDR_BITS, reset_less=True)  # address of row 0 of the next word
        stride = Signal.like(self.command.stride, reset_less=True)
        rows = Signal.like(self.command.rows, reset_less=True)
        left = Signal.like(rows, reset_less=True)    # rows left, this one included
        words = Signal.like(self.command.words, reset_less=True)
        last_row = Signal()
        m.d.comb += [last_row.eq(left == 1), self.last.eq(last_row & (words == 1))]
        with m.If(self.start):
            m.d.sync += [
                self.addr.eq(self.command.addr), column.eq(self.command.addr + 1),
                stride.eq(self.command.stride), rows.eq(self.command.rows),
                left.eq(self.command.rows), words.eq(self.command.words),
            ]
        with m.Elif(self.step):
            m.d.sync += [self.addr.eq(self.addr + stride), left.eq(left - 1)]
            with m.If(last_row):
                m.d.sync += [
                    self.addr.eq(column), column.eq(column + 1), left.eq(rows), words.eq(words - 1),
                ]
        return m
