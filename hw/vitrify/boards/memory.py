"""One SDRAM for two: the core's AXI master and the host's link."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError
from vitrify.arch.link import LINK_ADDRESS_BITS, WORD_BITS
from vitrify.arch.sdram import SdramPart
from vitrify.rtl.bus.axi import Resp, axi4

from .sdram import REQUEST, SdramController, pins


def word_port() -> wiring.Signature:
    """A word of 16 bits at a time, seen from the user.

    ``valid``, ``write``, ``address`` (in words) and ``data`` stay until ``done``, a pulse; a word
    that was read is in ``read`` in that cycle.
    """
    return wiring.Signature({
        "valid": Out(1), "write": Out(1), "address": Out(LINK_ADDRESS_BITS - 1),
        "data": Out(WORD_BITS), "done": In(1), "read": In(WORD_BITS),
    })


def require_bus(arch: ArchConfig, part: SdramPart) -> None:
    """Refuse a core whose bus is not as wide as the memory.

    Raises
    ------
    ConfigError
    """
    if arch.bus_bytes != part.bytes:
        raise ConfigError(
            f"arch {arch.name!r}: a board with a {part.bits}-bit SDRAM needs bus_bytes "
            f"{part.bytes}, not {arch.bus_bytes}"
        )


class SharedMemory(wiring.Component):
    """A controller behind an AXI port and a word port; a burst at a time, the word first.

    The word port asks seldom, so that it cannot starve the core; a core's write goes before its
    reads.  Addresses beyond the memory repeat it: the core's windows are the guard.  Words of the
    memory are written whole (``wstrb`` is taken for all ones, as the core's is): one that the word
    port changes in part is read before.

    Parameters
    ----------
    arch : ArchConfig
        A core with a bus as wide as the memory.
    part : SdramPart
    clock_mhz : float

    Members
    -------
    axi : In(axi4(arch))
        ``rready`` and ``bready`` must be constant, as the core's are.
    word : In(word_port())
    pins : Out(pins(part))

    Raises
    ------
    ConfigError
        For a core whose bus is not as wide as the memory.
    """

    axi: Any
    word: Any
    pins: Any

    def __init__(self, arch: ArchConfig, part: SdramPart, *, clock_mhz: float) -> None:
        require_bus(arch, part)
        self.part = part
        self.clock_mhz = clock_mhz
        super().__init__({
            "axi": In(axi4(arch)), "word": In(word_port()), "pins": Out(pins(part)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.sdram = sdram = SdramController(self.part, clock_mhz=self.clock_mhz)
        connect(m, sdram.pins, flipped(self.pins))
        axi, word = self.axi, self.word
        burst = Signal(REQUEST)
        of_core = Signal()
        # Address of a word of the memory in bytes, and of a word of the link in it.
        byte_bits = exact_log2(self.part.bytes)
        part_bits = exact_log2(self.part.bits // WORD_BITS)
        place = word.address[:part_bits]
        # What the word port writes, and whether the rest of it is yet to be read.
        whole, partial = Signal(self.part.bits), Signal()
        m.d.comb += [
            sdram.request.p.eq(burst),
            axi.rdata.eq(sdram.read), word.read.eq(sdram.read.word_select(place, WORD_BITS)),
            axi.rresp.eq(Resp.OKAY), axi.bresp.eq(Resp.OKAY),
            axi.rvalid.eq(sdram.read_valid & of_core), axi.rlast.eq(sdram.read_last),
            word.done.eq(((sdram.read_last & ~partial) | sdram.written) & ~of_core),
            sdram.write.valid.eq(~of_core | axi.wvalid),
            sdram.write.p.eq(Mux(of_core, axi.wdata, whole)),
            axi.wready.eq(sdram.write.ready & of_core),
        ]
        m.d.sync += axi.bvalid.eq(sdram.written & of_core)

        with m.FSM():
            with m.State("CHOOSE"):
                with m.If(word.valid & ~word.done):
                    m.d.sync += [
                        burst.address.eq(word.address >> part_bits), burst.words.eq(1),
                        burst.write.eq(0 if part_bits else word.write), of_core.eq(0),
                        partial.eq(word.write if part_bits else 0), whole.eq(word.data),
                    ]
                    m.next = "ASK"
                with m.Elif(axi.awvalid):
                    m.d.comb += axi.awready.eq(1)
                    m.d.sync += [
                        burst.address.eq(axi.awaddr >> byte_bits), burst.words.eq(axi.awlen + 1),
                        burst.write.eq(1), of_core.eq(1),
                    ]
                    m.next = "ASK"
                with m.Elif(axi.arvalid):
                    m.d.comb += axi.arready.eq(1)
                    m.d.sync += [
                        burst.address.eq(axi.araddr >> byte_bits), burst.words.eq(axi.arlen + 1),
                        burst.write.eq(0), of_core.eq(1),
                    ]
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += sdram.request.valid.eq(1)
                with m.If(sdram.request.ready):
                    m.next = "MOVE"
            with m.State("MOVE"):
                with m.If(sdram.read_last & partial):
                    m.d.sync += [
                        whole.eq(sdram.read), whole.word_select(place, WORD_BITS).eq(word.data),
                        burst.write.eq(1), partial.eq(0),
                    ]
                    m.next = "ASK"
                with m.Elif(sdram.read_last | sdram.written):
                    m.next = "CHOOSE"
        return m


