"""The core: the block diagram of ``docs/microarchitecture.md``, and nothing else."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces
from vitrify.rtl.array.accumulator import Accumulator
from vitrify.rtl.array.matrix import MatrixUnit
from vitrify.rtl.bus.axi import axi4, axi4_lite
from vitrify.rtl.bus.master import AxiMaster
from vitrify.rtl.control.controller import BUS_ERRORS, Controller
from vitrify.rtl.control.counters import EVENTS
from vitrify.rtl.lib.reset import ResetChain
from vitrify.rtl.memory import IndexMemory, StatMemory, TokenMemory
from vitrify.rtl.units.epilogue import Epilogue
from vitrify.rtl.units.fetch import STALLS, Fetch
from vitrify.rtl.units.loader import Loader
from vitrify.rtl.units.mover import Mover
from vitrify.rtl.units.router import Router
from vitrify.rtl.units.transform import Transform


def trace_layout(arch: ArchConfig) -> dict[str, int]:
    """Observation of a running core, for simulators: name and width.

    ``valid``, ``wide``, ``addr``, ``mask``, ``lo``, ``hi``: a result of MATMUL ``seq`` is written
    to the token memory (counted from power-on, skipped ones included).  ``mover_…``: a word of a
    LOAD is.  ``row``: the fetch issued a row of MATMUL ``row_seq`` (counted from reset, without
    those that were skipped).  ``events``: what the counters count.  ``router``: it works.
    """
    write = {
        "valid": 1, "wide": 1, "addr": interfaces.ADDR_BITS, "mask": arch.depth // arch.lanes,
        "lo": 8 * arch.depth, "hi": 8 * arch.depth,
    }
    return {
        **write, "seq": interfaces.SEQ_BITS,
        **{f"mover_{name}": bits for name, bits in write.items()},
        "row": 1, "row_seq": interfaces.SEQ_BITS, "events": EVENTS.size, "router": 1,
    }


class Core(wiring.Component):
    """The accelerator.

    ``rst`` is synchronous and has to last for two cycles or more, and what is behind ``m_axi``
    has to be in reset with the core: a burst may still begin in the first of them.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    m_axi : :py:`Out(axi4(arch))`
    s_axi : :py:`In(axi4_lite())`
    irq : :py:`Out(1)`
    trace : :py:`Out(Signature(trace_layout(arch)))`
        May be left open.
    """

    m_axi: Any
    s_axi: Any
    irq: Signal
    trace: Any

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "m_axi": Out(axi4(arch)),
            "s_axi": In(axi4_lite()),
            "irq": Out(1),
            "trace": Out(wiring.Signature(
                {name: Out(bits) for name, bits in trace_layout(arch).items()}
            )),
        })

    def elaborate(self, _platform: Any) -> Module:
        arch, m = self.arch, Module()
        transform, matrix, accumulator = Transform(arch), MatrixUnit(arch), Accumulator(arch)
        units = {
            "bus": AxiMaster(arch),
            "tokens": TokenMemory(arch), "indices": IndexMemory(arch), "stats": StatMemory(arch),
            "fetch": Fetch(arch),
            "loader": Loader(arch, swap_latency=self._swap_latency(transform, matrix)),
            "transform": transform, "matrix": matrix, "accumulator": accumulator,
            "epilogue": Epilogue(arch, drain_latency=accumulator.drain_latency),
            "mover": Mover(arch),
        }
        if arch.experts:
            units["router"] = Router(arch)
        m.submodules.controller = self._control = control = Controller(arch, units=len(units))
        # Everything outside the controller starts anew when the host resets the core.  After the
        # reset of the chip the last unit follows a few cycles later, long before a host has
        # written what a job needs.
        chain = ResetChain(m, control.core_reset)
        for name, unit in units.items():
            chain.add(name, unit)
            setattr(self, f"_{name}", unit)
        connect(m, control.s_axi, flipped(self.s_axi))
        connect(m, self._bus.m_axi, flipped(self.m_axi))
        m.d.comb += self.irq.eq(control.irq)
        self._dram(m)
        self._commands(m)
        self._memories(m)
        if arch.experts:
            self._routing(m)
        else:
            connect(m, self._mover.read, self._tokens.read_mover)
        self._datapath(m)
        self._progress(m)
        self._events(m)
        self._observe(m)
        return m

    def _swap_latency(self, transform: Transform, matrix: MatrixUnit) -> int:
        """From the issue of a row to the tile write that comes just after its swap."""
        return interfaces.READ_LATENCY + transform.latency + matrix.swap_latency

    def _dram(self, m: Module) -> None:
        bus, control, mover = self._bus, self._control, self._mover
        connect(m, control.instructions, bus.instructions)
        connect(m, control.weights, bus.weights.request)
        connect(m, bus.weights.data, self._loader.weights)
        connect(m, mover.read_memory, bus.loads)
        connect(m, mover.write_memory, bus.stores)
        for name in BUS_ERRORS:
            connect(m, getattr(bus, name), getattr(control, name))
        m.d.comb += [
            bus.stop.eq(control.bus_stop), control.bus_idle.eq(bus.idle),
            bus.read_window.eq(control.read_window), bus.write_window.eq(control.write_window),
        ]

    def _commands(self, m: Module) -> None:
        control, mover = self._control, self._mover
        connect(m, control.loader, self._loader.command)
        connect(m, control.fetch, self._fetch.command)
        connect(m, control.epilogue, self._epilogue.command)
        connect(m, control.loads, mover.loads)
        connect(m, control.stores, mover.stores)
        m.d.comb += [
            control.idle.loader.eq(self._loader.idle), control.idle.fetch.eq(self._fetch.idle),
            control.idle.epilogue.eq(self._epilogue.idle),
            control.idle.loads.eq(mover.loads_idle), control.idle.stores.eq(mover.stores_idle),
            control.finished.matmuls.eq(self._epilogue.progress.seq),
            control.finished.loads.eq(mover.progress.seq),
            control.finished.stores.eq(mover.stores_done),
        ]

    def _memories(self, m: Module) -> None:
        tokens, fetch, epilogue, mover = self._tokens, self._fetch, self._epilogue, self._mover
        connect(m, epilogue.residual, tokens.read_epilogue)
        connect(m, fetch.read, tokens.read_fetch)
        connect(m, self._loader.read, tokens.read_loader)
        connect(m, epilogue.result, tokens.write_epilogue)
        connect(m, mover.write, tokens.write_mover)
        connect(m, mover.index, self._indices.write)
        connect(m, fetch.index, self._indices.fetch)
        connect(m, epilogue.index, self._indices.epilogue)
        connect(m, epilogue.stat, self._stats.write)
        m.d.comb += [self._stats.addr.eq(fetch.stat_addr), fetch.stat.eq(self._stats.stat)]
        if self.arch.row_sums:
            m.d.comb += [
                self._stats.scale_addr.eq(epilogue.scale_addr),
                epilogue.scale_stat.eq(self._stats.scale_stat),
            ]

    def _routing(self, m: Module) -> None:
        """The router, which reads the token memory while the mover does not."""
        router, control = self._router, self._control
        stores, port = self._mover.read, self._tokens.read_mover
        connect(m, control.routes, router.command)
        connect(m, router.write, self._indices.queue)
        m.d.comb += [
            control.finished.routes.eq(router.done),
            router.finished_matmuls.eq(self._epilogue.progress.seq),
            router.expert.eq(control.expert), control.queue.eq(router.queue),
            port.valid.eq(stores.valid | router.read.valid),
            port.wide.eq(~stores.valid),
            port.addr.eq(Mux(stores.valid, stores.addr, router.read.addr)),
            stores.ready.eq(port.ready), router.read.ready.eq(port.ready & ~stores.valid),
        ]
        for reader in (stores, router.read):
            m.d.comb += [reader.lo.eq(port.lo), reader.hi.eq(port.hi)]

    def _datapath(self, m: Module) -> None:
        fetch, loader, epilogue = self._fetch, self._loader, self._epilogue
        connect(m, fetch.o, self._transform.i)
        connect(m, self._transform.o, self._matrix.i)
        connect(m, self._matrix.o, self._accumulator.i)
        connect(m, loader.tile_write, self._matrix.tile)
        connect(m, loader.gain_write, fetch.gain_write)
        connect(m, loader.param_write, epilogue.param)
        connect(m, loader.table_write, epilogue.table)
        m.d.comb += [
            fetch.tile_ready.eq(loader.tile_ready), loader.tile_take.eq(fetch.tile_take),
            self._accumulator.drain_addr.eq(epilogue.drain_addr),
            epilogue.drain_data.eq(self._accumulator.drain_data),
            self._transform.sum_addr.eq(epilogue.sum_addr),
            epilogue.sum_data.eq(self._transform.sum_data),
        ]

    def _progress(self, m: Module) -> None:
        epilogue, mover, fetch, loader = self._epilogue, self._mover, self._fetch, self._loader
        m.d.comb += [
            epilogue.drain_written.eq(self._accumulator.drain_written),
            epilogue.mover.eq(mover.progress),
            fetch.drain_read.eq(epilogue.drain_read),
            fetch.epilogue.eq(epilogue.progress), fetch.mover.eq(mover.progress),
            loader.epilogue.eq(epilogue.progress), loader.fetch.eq(fetch.progress),
            loader.mover.eq(mover.progress),
            mover.epilogue.eq(epilogue.progress),
        ]

    def _events(self, m: Module) -> None:
        events = self._control.events
        m.d.comb += [
            events.array_busy.eq(self._fetch.row),
            *(events[f"stall_{name}"].eq(self._fetch.stall[name]) for name in STALLS),
            events.epilogue_busy.eq(self._epilogue.busy),
            events.loader_busy.eq(self._loader.busy),
            events.loader_starved.eq(self._loader.starved),
            events.dram_read_beats.eq(self._bus.read_beat),
            events.dram_write_beats.eq(self._bus.write_beat),
        ]

    def _observe(self, m: Module) -> None:
        # Goes on counting through resets, for those who watch several programs.
        result_seq = Signal(interfaces.SEQ_BITS)
        present = result_seq
        if self.arch.experts:
            present = (result_seq + self._epilogue.skipped)[: interfaces.SEQ_BITS]
        with m.If(self._epilogue.finishes):
            m.d.sync += result_seq.eq(present + 1)
        trace = self.trace
        for prefix, write in (("", self._epilogue.result), ("mover_", self._mover.write)):
            for name in ("wide", "addr", "mask", "lo", "hi"):
                m.d.comb += getattr(trace, prefix + name).eq(getattr(write, name))
            m.d.comb += getattr(trace, f"{prefix}valid").eq(write.valid & write.ready)
        m.d.comb += [
            trace.seq.eq(present), trace.row.eq(self._fetch.row),
            trace.row_seq.eq(self._fetch.progress.seq), trace.events.eq(self._control.counted),
            trace.router.eq(self._router.busy if self.arch.experts else 0),
        ]


