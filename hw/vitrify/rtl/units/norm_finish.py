"""End of a row's LayerNorm statistics: mean and reciprocal deviation from Σx and Σx²."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.rtl import interfaces

from .delay import Delays

#: Exact sums of a complete row, with the instruction's constants.
ROW_SUMS = data.StructLayout({
    "total": signed(formats.SUM_BITS),
    "squares": unsigned(formats.SUMSQ_BITS),
    "inv_dim": formats.INV_DIM_BITS,
    "inv_shift": 5,
    "epsilon": 16,
    "plain": 1,             # the mean counts as zero (RMS)
})

#: Bits of a factor's piece: one 18 x 18 multiplier each.
_PIECE = 16
#: Least ``inv_shift``: that of dimension 1.
_LEAST_SHIFT = formats.inv_dim(1)[1]
_MEAN_BITS = formats.RESIDUAL_BITS + formats.MEAN_FRAC
#: Bits of the mean square: below 2**34 but for the error of 1/D.
_POWER_BITS = 2 * _MEAN_BITS


class NormFinish(wiring.Component):
    """One row a cycle, bit for bit :func:`vitrify.golden.ops.layernorm.finish`.

    Members
    -------
    i : :py:`In(pipe(ROW_SUMS))`
        ``inv_shift`` is 15 … 27, as :func:`vitrify.arch.formats.inv_dim` makes it.
    o : :py:`Out(pipe(STAT))`
        :attr:`LATENCY` cycles later.
    """

    #: Cycles from the sums to the statistic.
    LATENCY = 18

    i: wiring.PureInterface
    o: wiring.PureInterface

    def __init__(self) -> None:
        super().__init__({
            "i": In(interfaces.pipe(ROW_SUMS)),
            "o": Out(interfaces.pipe(interfaces.STAT)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        self._delays = d = Delays(m)
        i = self.i.p
        # 0 … 12: the shift beyond the least one.
        d.put("shift", (i.inv_shift + (16 - _LEAST_SHIFT))[:4], 0)
        d.put("epsilon", i.epsilon, 0)
        d.put("plain", i.plain, 0)
        d.put("valid", self.i.valid, 0, reset=True)
        mean = self._mean(m)
        power = self._power(m)
        d.put("mean", mean, 7)
        d.put("power", power, 7)

        # Variance, in cycle 11.
        square = self._product(m, mean, mean, "square")
        spread = self._register(m, d.at("power", 9) - square, "spread")
        variance = self._register(
            m, Mux(spread < 0, 0, spread)[: formats.VAR_BITS - 1] + d.at("epsilon", 10),
            "variance", unsigned(formats.VAR_BITS),
        )
        shift, index = self._normalise(m, variance)
        d.put("exponent", shift, 17)

        m.submodules.table = table = Memory(
            shape=unsigned(formats.RSQRT_FRAC + 1), depth=1 << formats.RSQRT_INDEX_BITS,
            init=formats.rsqrt_table(),
        )
        port = table.read_port()
        m.d.comb += [
            port.en.eq(Const(1)), port.addr.eq(index),
            self.o.valid.eq(d.at("valid", self.LATENCY)),
            self.o.p.mean.eq(d.at("mean", self.LATENCY)),
            self.o.p.shift.eq(d.at("exponent", self.LATENCY)),
            self.o.p.mantissa.eq(port.data),
        ]
        return m

    def _mean(self, m: Module) -> Value:
        """Mean with MEAN_FRAC fraction bits, saturated; cycle 7."""
        d, i = self._delays, self.i.p
        low = self._product(m, i.total[:_PIECE], i.inv_dim, "total_low")
        high = self._product(m, i.total[_PIECE:].as_signed(), i.inv_dim, "total_high")
        exact = self._register(m, low + (high << _PIECE), "total_exact")
        least = _LEAST_SHIFT - formats.MEAN_FRAC
        rounded = self._register(
            m, exact + (Const(1) << d.at("shift", 3) << (least - 1)), "total_rounded"
        )
        coarse = self._register(m, rounded >> least >> d.at("shift", 4)[:2], "mean_coarse")
        fine = self._register(m, coarse >> (d.at("shift", 5)[2:] << 2), "mean_fine")
        low, high = -(1 << (_MEAN_BITS - 1)), (1 << (_MEAN_BITS - 1)) - 1
        outside = fine[_MEAN_BITS - 1 :] != fine[-1].replicate(len(fine) - _MEAN_BITS + 1)
        clipped = Mux(outside, Mux(fine[-1], low, high), fine)
        clipped = Mux(d.at("plain", 6), 0, clipped)
        return self._register(m, clipped, "mean", signed(_MEAN_BITS))

    def _power(self, m: Module) -> Value:
        """Mean square with 2 * MEAN_FRAC fraction bits; cycle 7."""
        d, i = self._delays, self.i.p
        pieces = [
            self._product(m, i.squares[at : at + _PIECE], i.inv_dim, f"squares_{at}")
            for at in range(0, formats.SUMSQ_BITS, _PIECE)
        ]
        low = self._register(m, pieces[0] + (pieces[1] << _PIECE), "squares_low")
        high = self._register(m, pieces[2], "squares_high")
        exact = self._register(m, low + (high << (2 * _PIECE)), "squares_exact")
        least = _LEAST_SHIFT - 2 * formats.MEAN_FRAC
        rounded = self._register(
            m, exact + (Const(1) << d.at("shift", 4) << (least - 1)), "squares_rounded"
        )
        coarse = self._register(m, rounded >> least >> d.at("shift", 5)[:2], "power_coarse")
        fine = coarse >> (d.at("shift", 6)[2:] << 2)
        return self._register(m, fine, "power", unsigned(_POWER_BITS))

    def _normalise(self, m: Module, variance: Value) -> tuple[Signal, Signal]:
        """Half the variance's bit length, and the bits below its leading pair; cycle 17."""
        pairs = formats.VAR_BITS // 2
        count: Value = Const(0, 1)
        value = variance
        for step in (16, 8, 4, 2, 1):
            empty = ~value[-2 * step :].any()
            count = self._register(m, Cat(empty, count), f"empty_{step}", unsigned(len(count) + 1))
            value = self._register(m, Mux(empty, value << (2 * step), value), f"scaled_{step}",
                                   unsigned(formats.VAR_BITS))
        # Only a zero has no leading pair by now; it counts as one.
        one = value[-2:] == 0
        shift, index = Signal(5, reset_less=True), Signal(formats.RSQRT_INDEX_BITS, reset_less=True)
        top = formats.RSQRT_INDEX_BITS
        m.d.sync += [
            shift.eq(Mux(one, 1, pairs - count[:5])),
            index.eq(Mux(one, 1 << (top - 2), value[-top:])),
        ]
        return shift, index

    def _product(self, m: Module, a: Value, b: Value, name: str) -> Signal:
        """Product two cycles later: the multiplier's own two registers."""
        product = self._register(m, a * b, f"{name}_m")
        return self._register(m, product, f"{name}_p")

    @staticmethod
    def _register(m: Module, value: Value, name: str, shape: object = None) -> Signal:
        register = Signal(value.shape() if shape is None else shape, name=name, reset_less=True)
        m.d.sync += register.eq(value)
        return register
