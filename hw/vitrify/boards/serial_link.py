"""The board's end of the serial link: requests of the host to registers and memory."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.crc import Processor
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from vitrify.arch import csr, link
from vitrify.arch.link import Command, Status
from vitrify.rtl.bus.axi import axi4_lite

from .memory import word_port
from .uart import UartReceiver, UartSender

#: Words that wait for the memory while the core has it.
_FIFO_WORDS = 16
#: A request behind its mark.
_HEAD = data.StructLayout({
    "sequence": 8, "command": 8, "count": 16, "address": link.LINK_ADDRESS_BITS,
})
_REGISTER_BYTES = 4


class SerialLink(wiring.Component):
    """Serve the protocol of :mod:`vitrify.arch.link`.

    A payload for the memory is written as it arrives, before its check is known: the host repeats
    what was damaged.  A register is written when everything is known to be right.

    Parameters
    ----------
    divisor : int
        Cycles of a bit.
    memory_bytes : int
    clock_hz : int
        Both are told to the host.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line.
    registers : Out(axi4_lite())
    memory : Out(word_port())
    active : Out(1)
        A request is being received or served.
    """

    rx: Signal
    tx: Signal
    registers: Any
    memory: Any
    active: Signal

    def __init__(self, *, divisor: int, memory_bytes: int, clock_hz: int) -> None:
        self.divisor = divisor
        self.memory_bytes = memory_bytes
        self.clock_hz = clock_hz
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1), "registers": Out(axi4_lite()),
            "memory": Out(word_port()), "active": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(divisor=self.divisor)
        m.submodules.sender = self._sender = sender = UartSender(divisor=self.divisor)
        m.submodules.crc = self._crc = Processor(CRC32_ISO_HDLC(data_width=8))
        m.d.comb += [receiver.line.eq(self.rx), self.tx.eq(sender.line)]

        self._byte, self._arrived = receiver.o.p, receiver.o.valid
        self._head = Signal(_HEAD)
        self._left = Signal(16)                 # bytes still to come or to go
        self._value = Signal(32)                # a payload of 4 bytes, or the answer
        self._pointer = Signal(link.LINK_ADDRESS_BITS - 1)  # next word of the memory
        self._out = Signal(8 * 12)              # bytes on their way to the sender
        self._out_bytes = Signal(4)
        self._stage = Signal(2)                 # of the reply: head, payload, check
        self._status, self._count = Signal(8), Signal(16)
        last, known = Signal(8), Signal()       # number of the request served last

        silence = link.SILENCE_BYTES * link.WIRE_BITS * self.divisor
        quiet = Signal(range(silence + 1))
        self._silent = Signal()
        with m.If(self._arrived):
            m.d.sync += quiet.eq(0)
        with m.Elif(~self._silent):
            m.d.sync += quiet.eq(quiet + 1)
        m.d.comb += self._silent.eq(quiet == silence)

        self._writes(m)
        with m.FSM() as fsm:
            self._receive(m)
            self._execute(m, last, known)
            self._reply(m)
        m.d.comb += self.active.eq(~fsm.ongoing("IDLE"))
        return m

    def _writes(self, m: Module) -> None:
        """Words of WRITE_MEMORY through a FIFO to ``pointer``; reads pass beside them."""
        m.submodules.fifo = fifo = SyncFIFO(width=16, depth=_FIFO_WORDS)
        self._push, self._lost = Signal(), Signal()
        self._drained, self._read = Signal(), Signal()
        m.d.comb += [
            fifo.w_data.eq(Cat(self._value[24:], self._byte)), fifo.w_en.eq(self._push),
            self._drained.eq(fifo.level == 0),
            self.memory.valid.eq(fifo.r_rdy | self._read), self.memory.write.eq(fifo.r_rdy),
            self.memory.address.eq(self._pointer), self.memory.data.eq(fifo.r_data),
            fifo.r_en.eq(self.memory.done & fifo.r_rdy),
        ]
        with m.If(self.memory.done):
            m.d.sync += self._pointer.eq(self._pointer + 1)
        with m.If(self._push & ~fifo.w_rdy):
            m.d.sync += self._lost.eq(1)

    def _receive(self, m: Module) -> None:
        crc, head, byte, arrived = self._crc, self._head, self._byte, self._arrived
        m.d.comb += crc.data.eq(byte)
        with_payload = Cat(head.command == c for c in sorted(link.WITH_PAYLOAD)).any()

        def count_down(then: str) -> None:
            m.d.comb += crc.valid.eq(1)
            m.d.sync += self._left.eq(self._left - 1)
            with m.If(self._left == 1):
                m.next = then

        with m.State("IDLE"), m.If(arrived & (byte == link.MARK)):
            m.d.comb += [crc.start.eq(1), crc.valid.eq(1)]
            m.d.sync += self._left.eq(link.REQUEST_BYTES - 1 + link.CHECK_BYTES)
            m.next = "HEAD"
        with m.State("HEAD"):
            with m.If(arrived):
                with m.If(self._left > link.CHECK_BYTES):
                    m.d.sync += head.eq(Cat(head, byte)[8:])
                count_down("HEAD_CHECK")
            with m.Elif(self._silent):
                m.next = "IDLE"
        with m.State("HEAD_CHECK"):
            m.d.comb += crc.start.eq(1)
            m.d.sync += [
                self._left.eq(head.count), self._pointer.eq(head.address >> 1), self._lost.eq(0),
            ]
            m.next = "SERVE"
            with m.If(~crc.match_detected):
                m.next = "SKIP"
            with m.Elif(with_payload):
                m.next = "PAYLOAD"
                with m.If(head.count == 0):
                    m.d.sync += self._left.eq(link.CHECK_BYTES)
                    m.next = "PAYLOAD_CHECK"
        odd = Signal()
        with m.State("PAYLOAD"):
            with m.If(arrived):
                count_down("PAYLOAD_CHECK")
                m.d.comb += self._push.eq(odd & (head.command == Command.WRITE_MEMORY))
                m.d.sync += [odd.eq(~odd), self._value.eq(Cat(self._value, byte)[8:])]
                with m.If(self._left == 1):
                    m.d.sync += [odd.eq(0), self._left.eq(link.CHECK_BYTES)]
            with m.Elif(self._silent):
                m.d.sync += odd.eq(0)
                m.next = "IDLE"
        with m.State("PAYLOAD_CHECK"):
            with m.If(arrived):
                count_down("VERIFY")
            with m.Elif(self._silent):
                m.next = "IDLE"
        with m.State("VERIFY"):
            m.next = "SERVE"
            with m.If(~crc.match_detected | self._lost):
                m.next = "SKIP"
        with m.State("SKIP"), m.If(self._silent):
            m.next = "IDLE"

    def _execute(self, m: Module, last: Signal, known: Signal) -> None:
        head, registers, crc = self._head, self.registers, self._crc
        m.d.comb += [
            registers.araddr.eq(head.address[:csr.CSR_ADDRESS_BITS]),
            registers.awaddr.eq(head.address[:csr.CSR_ADDRESS_BITS]),
            registers.wdata.eq(self._value), registers.wstrb.eq(~0),
            registers.rready.eq(1), registers.bready.eq(1),
        ]
        again = Signal()
        m.d.comb += again.eq(known & (last == head.sequence))
        four, whole = head.count == _REGISTER_BYTES, ~head.count[0] & (head.count != 0)
        refused = Signal()

        with m.State("SERVE"):
            m.d.sync += [
                last.eq(head.sequence), known.eq(1),
                self._status.eq(Status.OK), self._count.eq(0),
            ]
            m.next = "REPLY"
            with m.Switch(head.command):
                with m.Case(Command.HELLO):
                    m.d.sync += self._count.eq(len(self._out) // 8)
                with m.Case(Command.READ_REGISTER):
                    m.d.comb += refused.eq(~four)
                    m.d.sync += [self._count.eq(_REGISTER_BYTES), registers.arvalid.eq(four)]
                    with m.If(four):
                        m.next = "READ_REGISTER"
                with m.Case(Command.WRITE_REGISTER):
                    m.d.comb += refused.eq(~four)
                    with m.If(four & ~again):
                        m.d.sync += [registers.awvalid.eq(1), registers.wvalid.eq(1)]
                        m.next = "WRITE_REGISTER"
                with m.Case(Command.READ_MEMORY):
                    m.d.comb += refused.eq(~whole | (head.count > link.MAX_PAYLOAD))
                    m.d.sync += [self._count.eq(head.count), self._left.eq(head.count)]
                with m.Case(Command.WRITE_MEMORY):
                    m.d.comb += refused.eq(~whole)
                    with m.If(~self._drained):
                        m.next = "SERVE"
                with m.Case(Command.CHECKSUM):
                    m.d.comb += [
                        refused.eq(~four | self._value[0] | (self._value == 0)), crc.start.eq(1),
                    ]
                    m.d.sync += self._count.eq(4)
                    with m.If(~refused):
                        m.next = "SUM"
                with m.Default():
                    m.d.comb += refused.eq(1)
            with m.If(refused):
                m.d.sync += [self._status.eq(Status.REFUSED), self._count.eq(0)]
        with m.State("READ_REGISTER"):
            with m.If(registers.arready):
                m.d.sync += registers.arvalid.eq(0)
            with m.If(registers.rvalid):
                m.d.sync += self._value.eq(registers.rdata)
                m.next = "REPLY"
        with m.State("WRITE_REGISTER"):
            with m.If(registers.awready):
                m.d.sync += registers.awvalid.eq(0)
            with m.If(registers.wready):
                m.d.sync += registers.wvalid.eq(0)
            with m.If(registers.bvalid):
                m.next = "REPLY"
        # ``value`` counts down the bytes, two at a time, and becomes their CRC.
        with m.State("SUM"):
            m.d.comb += [self._read.eq(1), crc.data.eq(self.memory.read[:8])]
            with m.If(self.memory.done):
                m.d.comb += crc.valid.eq(1)
                m.d.sync += [self._out.eq(self.memory.read), self._value.eq(self._value - 2)]
                m.next = "SUM_HIGH"
        with m.State("SUM_HIGH"):
            m.d.comb += [crc.data.eq(self._out[8:16]), crc.valid.eq(1)]
            m.next = "SUM"
            with m.If(self._value == 0):
                m.next = "SUM_END"
        with m.State("SUM_END"):
            m.d.sync += self._value.eq(crc.crc)
            m.next = "REPLY"

    def _reply(self, m: Module) -> None:
        crc, sender, head = self._crc, self._sender, self._head
        hello = Cat(Const(n, unsigned(32)) for n in (
            link.LINK_VERSION, self.memory_bytes, self.clock_hz,
        ))
        of_memory = Signal()
        m.d.comb += [
            sender.i.payload.eq(self._out[:8]),
            of_memory.eq(head.command == Command.READ_MEMORY),
        ]
        with m.State("REPLY"):
            m.d.comb += crc.start.eq(1)
            m.d.sync += [
                self._out.eq(Cat(
                    Const(link.MARK, 8), head.sequence, self._status, self._count,
                )),
                self._out_bytes.eq(link.REPLY_BYTES), self._stage.eq(0),
            ]
            m.next = "SEND"
        with m.State("SEND"):
            m.d.comb += [sender.i.valid.eq(1), crc.data.eq(self._out[:8])]
            with m.If(sender.i.ready):
                m.d.comb += crc.valid.eq(1)
                m.d.sync += [
                    self._out.eq(self._out >> 8), self._out_bytes.eq(self._out_bytes - 1),
                ]
                with m.If(self._out_bytes == 1):
                    m.next = "NEXT"
        with m.State("NEXT"):
            check, sent = Signal(), self._stage == 1
            m.next = "SEND"
            with m.If(self._stage == 2):
                m.next = "IDLE"
            with m.Elif((self._count == 0) | (sent & (~of_memory | (self._left == 0)))):
                m.d.comb += check.eq(1)
            with m.Elif(of_memory):
                m.d.sync += self._stage.eq(1)
                m.next = "FETCH"
            with m.Else():
                m.d.sync += [
                    self._stage.eq(1), self._out.eq(self._value), self._out_bytes.eq(self._count),
                ]
                with m.If(head.command == Command.HELLO):
                    m.d.sync += self._out.eq(hello)
            with m.If(check):
                m.d.sync += [
                    self._stage.eq(2), self._out.eq(crc.crc),
                    self._out_bytes.eq(link.CHECK_BYTES),
                ]
        with m.State("FETCH"):
            m.d.comb += self._read.eq(1)
            with m.If(self.memory.done):
                m.d.sync += [
                    self._out.eq(self.memory.read), self._out_bytes.eq(2),
                    self._left.eq(self._left - 2),
                ]
                m.next = "SEND"

