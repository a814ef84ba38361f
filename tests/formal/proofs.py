"""What is proved of which unit, and faults that each proof has to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from amaranth.lib import fifo, wiring

from tests.formal import bus, control, queues, streams
from tests.formal.prove import prove
from tests.support.mutate import mutated
from vitrify.rtl.bus import bursts, csr, read_master, resize, write_master
from vitrify.rtl.control import run_ahead, supervisor
from vitrify.rtl.lib import skid
from vitrify.rtl.units import route_queues


@dataclass(frozen=True)
class Proof:
    """A harness, its module, and how far from reset it is followed.

    ``quick`` steps in ``make test`` (0: not there), ``full`` in ``python -m tests.formal``.
    ``faults`` are changes of the module's source that have to be found within ``full`` steps.
    """

    harness: Callable[..., wiring.Component]
    module: ModuleType
    quick: int
    full: int
    faults: tuple[tuple[str, str], ...]
    induction: bool = False
    #: Changes of the source without which nothing happens in so few steps.
    settings: tuple[tuple[str, str], ...] = ()

    def prove(self, steps: int, *faults: tuple[str, str]) -> None:
        """Prove it, or refute it with ``faults``."""
        module = mutated(self.module, *self.settings, *faults)
        prove(self.harness(module), steps=steps, induction=self.induction and not faults)


def _split(harness: Callable[..., wiring.Component]) -> Callable[..., wiring.Component]:
    return lambda module: harness(module, arch=bus.SPLIT)


PROOFS = {
    "skid": Proof(streams.SkidHarness, skid, 6, 6, (
        ("with m.If(~spare_valid):", "with m.If(self.o.ready):"),
        ("self.o.valid.eq(self.i.valid | spare_valid)", "self.o.valid.eq(self.i.valid)"),
    ), induction=True),
    "resize": Proof(streams.ResizeHarness, resize, 14, 24, (
        ("(last & self.o.ready)", "last"),
        ("count.eq(count + 1), self.o.valid.eq(last)", "count.eq(count + 1), self.o.valid.eq(1)"),
    )),
    "splitter": Proof(bus.SplitterHarness, bursts, 5, 10, (
        ("room.eq(self.units - low)", "room.eq(self.units)"),
        ("with m.If(active & (~self.o.valid | self.o.ready)):", "with m.If(active):"),
    )),
    "splitter of parts": Proof(_split(bus.SplitterHarness), bursts, 0, 10, (
        ("self.i.p.words << self._part_bits", "self.i.p.words"),
    )),
    "run ahead": Proof(control.RunAheadHarness, run_ahead, 14, 28, (
        ("self.ready.eq(~(waiting & boundary))", "self.ready.eq(1)"),
        ("mark.eq(self.issued)", "mark.eq(self.done)"),
    ), settings=(("WINDOW = 32", f"WINDOW = {control.WINDOW}"),)),
    "supervisor": Proof(control.SupervisorHarness, supervisor, 16, 40, (
        ("with m.Elif(left == 0):", "with m.Elif(self.lost):"),
        ("with m.If(self.bus_stop):  # no burst begins from now on", "with m.If(1):"),
    )),
    "registers": Proof(control.RegistersHarness, csr, 5, 12, (
        ("act.eq(have_address & have_data & ~axi.bvalid)", "act.eq(have_address & have_data)"),
        ("axi.arready.eq(~looking & ~found & ~axi.rvalid)", "axi.arready.eq(~looking & ~found)"),
    )),
    "read master": Proof(bus.ReadHarness, read_master, 0, 18, (
        ("(free >= bursts.o.p.units) & allowed", "allowed"),
        ("issue.eq(requests.any() & ~axi.arvalid & room & ~self.stop)",
         "issue.eq(requests.any() & ~axi.arvalid & room)"),
    )),
    "write master": Proof(bus.WriteHarness, write_master, 0, 18, (
        ("last.eq(before + 1 == counts.payload)", "last.eq(before == counts.payload)"),
        ("with m.If(~axi.awvalid):", "with m.If(1):"),
    )),
    "buffer levels": Proof(streams.FifoHarness, fifo, 8, 20, (
        ("self.level.eq(inner_level + self.r_rdy)", "self.level.eq(inner_level)"),
        ("self.w_rdy.eq(inner_level != inner_depth)", "self.w_rdy.eq(1)"),
    )),
    "queues of experts": Proof(queues.QueuesHarness, route_queues, 0, 18, (
        ("counts.put(m, arrived.expert, counts.read.data + 1)",
         "counts.put(m, arrived.expert, counts.read.data)"),
        ("moves.eq(~self.write.valid | self.write.ready)", "moves.eq(1)"),
        ("sums.eq(sums + counts.read.data)", "sums.eq(sums + 1)"),
    )),
}
