"""Softmax weights of gate logits, and their sum over a row."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import formats
from vitrify.rtl.interfaces import (
    ROUTE_CHOSEN,
    ROUTE_COMMAND,
    ROUTE_LANES,
    ROUTE_LOGITS,
    ROUTE_TOTAL,
    ROUTE_WEIGHTS,
    index_bits,
    pipe,
)

from .delay import Delays
from .route_reader import ROWS_AHEAD

_BITS, _FRAC = formats.ROUTE_BITS, formats.GATE_LOGIT_FRAC
_GROUPS = formats.MAX_EXPERTS // ROUTE_LANES
#: Beyond this shift a weight is zero; four bits hold it.
_MAX_SHIFT = _BITS + 1
#: Cycle of the weights of the step that is issued in cycle 0, and of its sum.
_WEIGHT = 6
_STEP_SUM = _WEIGHT + exact_log2(ROUTE_LANES)
#: Least cycles between two rows: the choices of one leave one by one.
_LEAST_STEPS = formats.MAX_CHOICES
_LOGITS_BITS = ROUTE_LOGITS["logits"].width


class RouteSoftmax(wiring.Component):
    """:func:`vitrify.golden.ops.routing.weights` and their sum, a pipeline without stalls.

    The first step of a row are the chosen logits, the others (unless ``normalise``) all logits
    again, from a buffer.  A row takes that many cycles, but ``MAX_CHOICES`` at least.

    Members
    -------
    command : :py:`In(ROUTE_COMMAND)`
        ``experts``, ``choices`` and ``normalise`` of all rows that are in here.
    logits : :py:`In(pipe(ROUTE_LOGITS))`
        As the selection gets them.
    chosen : :py:`In(stream.Signature(ROUTE_CHOSEN))`
    release : :py:`Out(1)`
        A row's logits were read for the last time.
    weights : :py:`Out(pipe(ROUTE_WEIGHTS))`
        Of the chosen; before the row's ``total``.
    total : :py:`Out(pipe(ROUTE_TOTAL))`
    """

    command: data.View
    logits: wiring.PureInterface
    chosen: stream.Interface
    release: Signal
    weights: wiring.PureInterface
    total: wiring.PureInterface

    def __init__(self) -> None:
        super().__init__({
            "command": In(ROUTE_COMMAND),
            "logits": In(pipe(ROUTE_LOGITS)),
            "chosen": In(stream.Signature(ROUTE_CHOSEN)),
            "release": Out(1),
            "weights": Out(pipe(ROUTE_WEIGHTS)),
            "total": Out(pipe(ROUTE_TOTAL)),
        })
        self._row = Signal(ROUTE_CHOSEN, reset_less=True)

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        self._delays = d = Delays(m)
        others = self._buffer(m, self._issue(m))
        weights = [self._weight(m, lane, others) for lane in range(ROUTE_LANES)]
        out = self.weights.p
        experts = data.View(ROUTE_CHOSEN["experts"].shape, d.at("experts", _WEIGHT))
        m.d.comb += [
            self.weights.valid.eq(d.at("chosen", _WEIGHT)),
            *(out.weights[n].eq(weights[n]) for n in range(formats.MAX_CHOICES)),
            out.experts.eq(experts), out.lowest.eq(d.at("lowest", _WEIGHT)),
        ]
        self._sum(m, weights)
        return m

    def _issue(self, m: Module) -> tuple[Signal, Value]:
        """Steps of a row, cycle 0; returns the step and whether the row ends."""
        d, command, row = self._delays, self.command, self._row
        step, last = Signal(range(_GROUPS + 1)), Signal(range(_GROUPS + 1))
        groups = Signal(range(_GROUPS + 1))
        busy, ends = Signal(), Signal()
        m.d.comb += [
            groups.eq((command.experts + (ROUTE_LANES - 1)) >> exact_log2(ROUTE_LANES)),
            last.eq(Mux(
                command.normalise | (groups < _LEAST_STEPS), _LEAST_STEPS - 1, groups
            )),
            ends.eq(busy & (step == last)),
            self.chosen.ready.eq(~busy | ends),
            self.release.eq(ends),
        ]
        with m.If(busy):
            m.d.sync += step.eq(step + 1)
        with m.If(ends):
            m.d.sync += busy.eq(0)
        with m.If(self.chosen.valid & self.chosen.ready):
            m.d.sync += [row.eq(self.chosen.payload), step.eq(0), busy.eq(1)]
        chosen = busy & (step == 0)
        counts = Mux(command.normalise, chosen, busy & (step != 0) & (step <= groups))
        d.put("chosen", chosen, 0, reset=True)
        d.put("counts", counts, 0, reset=True)
        d.put("opens", command.normalise | (step == 1), 0)
        d.put("closes", counts & (command.normalise | (step == groups)), 0, reset=True)
        d.put("experts", row.experts.as_value(), 0)
        d.put("lowest", row.lowest, 0)
        d.put("logits", row.logits.as_value(), 0)
        return step, ends

    def _buffer(self, m: Module, issued: tuple[Signal, Value]) -> Value:
        """All logits of the rows that were read, by step; a step's in cycle 1."""
        step, ends = issued
        m.submodules.buffer = buffer = Memory(
            shape=unsigned(_LOGITS_BITS + ROUTE_LANES), depth=ROWS_AHEAD * _GROUPS, init=[],
            attrs={"ram_style": "distributed"},
        )
        put, get = buffer.write_port(), buffer.read_port()
        written, read = Signal(range(ROWS_AHEAD)), Signal(range(ROWS_AHEAD))
        arriving = self.logits.p
        m.d.comb += [
            put.en.eq(self.logits.valid), put.addr.eq(Cat(arriving.group, written)),
            put.data.eq(Cat(arriving.logits, arriving.lanes)),
            get.en.eq(Const(1)), get.addr.eq(Cat((step - 1)[: index_bits(_GROUPS)], read)),
        ]
        m.d.sync += [
            written.eq(written + (self.logits.valid & arriving.last)), read.eq(read + ends)
        ]
        return get.data

    def _weight(self, m: Module, lane: int, others: Value) -> Value:
        """Weight of a step's logit, in cycle ``_WEIGHT``; zero where there is none."""
        d, bits = self._delays, formats.RESIDUAL_BITS
        own, chosen = d.at("logits", 1), d.at("chosen", 1)
        logit = Mux(chosen, own.word_select(lane, bits), others.word_select(lane, bits))
        exists = Mux(chosen, self.command.choices > lane, others[_LOGITS_BITS + lane])
        d.put(f"exists{lane}", exists, 1)
        best = own[:bits].as_signed()
        below = self._register(m, (best - logit.as_signed())[:bits], f"below{lane}")

        table = Memory(shape=unsigned(_BITS), depth=1 << _FRAC, init=formats.gate_table())
        m.submodules[f"table{lane}"] = table
        port, whole = table.read_port(), below[_FRAC:]
        m.d.comb += [port.en.eq(Const(1)), port.addr.eq(below[:_FRAC])]
        shift = self._register(m, Mux(whole > _MAX_SHIFT, _MAX_SHIFT, whole)[:4], f"shift{lane}")
        # One more bit below carries the bit that rounds.
        coarse = self._register(m, Cat(Const(0, 1), port.data) >> shift[:2], f"coarse{lane}")
        high = self._register(m, shift[2:], f"shift{lane}_high")
        fine = self._register(m, coarse >> (high << 2), f"fine{lane}")
        rounded = ((fine >> 1) + fine[0])[:_BITS]
        keep = d.at(f"exists{lane}", _WEIGHT - 1)
        return self._register(m, Mux(keep, rounded, 0), f"weight{lane}")

    def _sum(self, m: Module, weights: list[Value]) -> None:
        d = self._delays
        terms = weights
        while len(terms) > 1:
            terms = [
                self._register(m, terms[i] + terms[i + 1], f"sum{len(terms)}_{i}")
                for i in range(0, len(terms), 2)
            ]
        total = self.total.p.total
        with m.If(d.at("counts", _STEP_SUM)):
            m.d.sync += total.eq(Mux(d.at("opens", _STEP_SUM), 0, total) + terms[0])
        m.d.comb += self.total.valid.eq(d.at("closes", _STEP_SUM + 1))

    @staticmethod
    def _register(m: Module, value: Value, name: str) -> Signal:
        register = Signal(value.shape(), name=name, reset_less=True)
        m.d.sync += register.eq(value)
        return register
