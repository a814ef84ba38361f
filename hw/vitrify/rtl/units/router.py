"""The router: from gate logits to queues of rows, one for each expert."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import (
    EXPERT_BITS,
    QUEUE,
    ROUTE_COMMAND,
    SEQ_BITS,
    read_client,
)
from vitrify.rtl.memory.index_memory import queue_write

from .route_divide import RouteDivide
from .route_queues import RouteQueues
from .route_reader import RouteReader
from .route_select import RouteSelect
from .route_softmax import RouteSoftmax


class Router(wiring.Component):
    """Executes ROUTE, bit for bit :mod:`vitrify.golden.ops.routing`.

    Reading, selecting, softmax and division overlap from row to row.  A row takes
    ``ceil(experts / ROUTE_LANES) + 2`` or ``2 * choices + 2`` cycles, whichever is more; then the
    queues are filled (:class:`~vitrify.rtl.units.route_queues.RouteQueues`).

    Parameters
    ----------
    arch : ArchConfig
        With ``experts``.

    Members
    -------
    command : :py:`In(stream.Signature(ROUTE_COMMAND))`
        Taken when the MATMUL it waits for is finished and no other ROUTE is under way.
    finished_matmuls : :py:`In(SEQ_BITS)`
    read : :py:`Out(read_client(arch))`
    write : :py:`Out(queue_write(arch))`
    expert, queue : :py:`In(EXPERT_BITS)`, :py:`Out(QUEUE)`
        One cycle later; of the last ROUTE, not while one is under way.
    done : :py:`Out(SEQ_BITS)`
        ROUTEs whose queues may be used.
    busy : :py:`Out(1)`
        A ROUTE is under way.
    """

    command: stream.Interface
    finished_matmuls: Signal
    read: wiring.PureInterface
    write: wiring.PureInterface
    expert: Signal
    queue: data.View
    done: Signal
    busy: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "command": In(stream.Signature(ROUTE_COMMAND)), "finished_matmuls": In(SEQ_BITS),
            "read": Out(read_client(arch)),
            "write": Out(queue_write(arch)),
            "expert": In(EXPERT_BITS), "queue": Out(QUEUE),
            "done": Out(SEQ_BITS), "busy": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.reader = reader = RouteReader(self.arch)
        m.submodules.select = select = RouteSelect()
        m.submodules.softmax = softmax = RouteSoftmax()
        m.submodules.divide = divide = RouteDivide()
        m.submodules.queues = queues = RouteQueues(self.arch)
        connect(m, reader.read, flipped(self.read))
        connect(m, reader.o, select.i)
        connect(m, select.o, softmax.chosen)
        connect(m, softmax.weights, divide.weights)
        connect(m, softmax.total, divide.total)
        connect(m, divide.o, queues.choice)
        connect(m, queues.write, flipped(self.write))

        command, started = Signal(ROUTE_COMMAND, reset_less=True), Signal()
        coming = self.command.payload
        waited = Signal(SEQ_BITS)
        m.d.comb += [
            waited.eq(self.finished_matmuls - coming.wait_seq),
            softmax.logits.valid.eq(reader.o.valid), softmax.logits.p.eq(reader.o.p),
            reader.command.eq(command), softmax.command.eq(command), queues.command.eq(command),
            select.choices.eq(command.choices), divide.choices.eq(command.choices),
            reader.start.eq(queues.ready), reader.release.eq(softmax.release),
            queues.expert.eq(self.expert), self.queue.eq(queues.queue),
        ]
        m.d.sync += started.eq(0)
        m.d.comb += queues.start.eq(started)
        with m.FSM():
            with m.State("WAIT"):
                # A positive signed difference.
                m.d.comb += self.command.ready.eq((waited != 0) & ~waited[-1])
                m.d.sync += command.eq(coming)
                with m.If(self.command.valid & self.command.ready):
                    m.d.sync += started.eq(1)
                    m.next = "ROUTE"
            with m.State("ROUTE"):
                m.d.comb += self.busy.eq(1)
                with m.If(queues.done):
                    m.d.sync += self.done.eq(self.done + 1)
                    m.next = "WAIT"
        return m
