"""One lane of the operand transform: subtract, shift, saturate, two multiplications."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.rtl.lib.arith import Multiplier, round_shift, saturate
from vitrify.rtl.units.delay import Delays

#: Residual with ``MEAN_FRAC`` fraction bits, and its difference from the mean.
_X_BITS = formats.RESIDUAL_BITS + formats.MEAN_FRAC
_D_BITS = _X_BITS + 1
_SHIFT_BITS = 5
#: Integer bits of a logit, and of a row maximum that is clipped without changing a weight.
_LOGIT_BITS = 8 - formats.LOGIT_FRAC
TOP_BITS = _LOGIT_BITS + 1

#: ``4 + frac`` enters where a residual enters, one position per fraction bit of each ...
assert formats.LOGIT_FRAC == formats.MEAN_FRAC
#: ... and this much more shift brings it to ``(4 + frac) << SOFTMAX_SHIFT``.
_EXP2_SHIFT = formats.XHAT_FRAC - formats.SOFTMAX_SHIFT

#: How an int8 passes unchanged: x << 4 in front of the multipliers, times 1, times 2**-4.
_PASS_UP = formats.XNORM_BITS - 9
PASS_SHIFT = formats.XHAT_FRAC + formats.MEAN_FRAC - _PASS_UP
PASS_MANTISSA = 1 << formats.RSQRT_FRAC
PASS_GAIN = 1 << (formats.XHAT_FRAC + formats.GAIN_FRAC - _PASS_UP)

#: Cycles from a lane's inputs to the shifted value, and from there to the first multiplier.
_SHIFTED, _NORMAL = 5, 6
_XHAT = _NORMAL + Multiplier.latency_of(formats.RSQRT_FRAC + 1) + 1
_SCALED = _XHAT + Multiplier.latency_of(formats.GAIN_BITS) + 1

#: What all lanes of a row share.
ROW = data.StructLayout({
    "mean": signed(_X_BITS),
    "top": signed(TOP_BITS),                        # row maximum of EXP2
    "shift": _SHIFT_BITS,
    "mantissa": formats.RSQRT_FRAC + 1,
    "exp2": 1,
})


class NormLane(wiring.Component):
    """``round((x - mean) * 2**-shift * mantissa * gain)``, or ``2**(s - max)``.

    The right shift behind the subtraction serves both: with ``exp2``, ``x`` is ``4 + frac`` and
    the shift is the distance of this lane's logit from the maximum.  The weight then passes the
    multipliers times one, as a plain int8 does (:data:`PASS_SHIFT` and its companions), so that
    no mode needs a delay line.

    Parameters
    ----------
    fabric : bool
        Multiply in LUTs.

    Members
    -------
    x : In(signed 18), residual with ``MEAN_FRAC`` fraction bits (``exp2``: ``4 + frac``)
    logit : In(signed 6), integer part of the logit
    gain : In(8)
    row : In(ROW)
    y : Out(signed 9), :attr:`latency` cycles later: 8 bits saturated, ``exp2``: 0 … 224
    """

    x: Signal
    logit: Signal
    gain: Signal
    row: Any
    y: Signal

    #: Cycles from the inputs to ``y``.
    latency = _SCALED + 1

    def __init__(self, *, fabric: bool) -> None:
        self._fabric = fabric
        super().__init__({
            "x": In(signed(_X_BITS)), "logit": In(signed(_LOGIT_BITS)),
            "gain": In(formats.GAIN_BITS), "row": In(ROW),
            "y": Out(signed(formats.OPERAND_BITS)),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        d = self._delays = Delays(m)
        for name in ("shift", "mantissa", "exp2"):
            d.put(name, self.row[name], 0)
        d.put("gain", self.gain, 0)
        difference, distance = self._subtract(m)
        shifted, overflow = self._shift(m, difference, distance)
        normal = self._normal(m, shifted, overflow)

        m.submodules.mantissa = first = Multiplier(
            signed(formats.XNORM_BITS), unsigned(formats.RSQRT_FRAC + 1), fabric=self._fabric)
        m.submodules.gain = second = Multiplier(
            signed(formats.XHAT_BITS), unsigned(formats.GAIN_BITS), fabric=self._fabric)
        xhat = Signal(signed(formats.XHAT_BITS), reset_less=True)
        rounded = round_shift(second.p, formats.XHAT_FRAC + formats.GAIN_FRAC)
        scaled = Signal(rounded.shape(), reset_less=True)
        m.d.comb += [
            first.a.eq(normal), first.b.eq(d.at("mantissa", _NORMAL)),
            second.a.eq(xhat), second.b.eq(d.at("gain", _XHAT)),
        ]
        m.d.sync += [
            xhat.eq(round_shift(first.p, formats.RSQRT_FRAC)),
            scaled.eq(rounded),
            self.y.eq(Mux(d.at("exp2", _SCALED), scaled[:8], saturate(scaled, 8))),
        ]
        return m

    def _subtract(self, m: Module) -> tuple[Any, Any]:
        """Cycle 1: x - mean, and how far the logit lies below the maximum."""
        difference = Signal(signed(_D_BITS), reset_less=True)
        distance = Signal(signed(TOP_BITS + 1), reset_less=True)
        m.d.sync += [difference.eq(self.x - self.row.mean),
                     distance.eq(self.row.top - self.logit)]
        return difference, distance

    def _shift(self, m: Module, difference: Any, distance: Any) -> tuple[Any, Any]:
        """Cycles 2 … 5: ``difference << XHAT_FRAC >> shift`` rounded, and whether it is too big."""
        d = self._delays
        # 2: this lane's shift; bits of the difference that must be copies of its sign.
        row_shift, exp2 = d.at("shift", 1), d.at("exp2", 1)
        limit = formats.SOFTMAX_MAX_SHIFT
        clipped = Mux(distance < 0, 0, Mux(distance[4:].any(), limit, distance[:4]))
        shift = Signal(_SHIFT_BITS, reset_less=True)
        value = Signal(signed(_D_BITS), reset_less=True)
        above = Signal(_D_BITS, reset_less=True)
        first_above = formats.XNORM_BITS - 1 - formats.XHAT_FRAC
        m.d.sync += [
            shift.eq(Mux(exp2, clipped + _EXP2_SHIFT, row_shift)),
            value.eq(difference),
            above.eq(Cat(
                ~exp2 & (row_shift <= i - first_above) if i >= first_above else Const(0, 1)
                for i in range(_D_BITS)
            )),
        ]
        # 3: by 0, 8, 16 or 24.  One bit below the point keeps the rounding bit.
        kept = formats.XNORM_BITS + 1
        fine = Signal(3, reset_less=True)
        coarse = Signal(kept + 7, reset_less=True)
        sign, big = Signal(reset_less=True), Signal(reset_less=True)
        placed = Cat(Const(0, formats.XHAT_FRAC + 1), value).as_signed()
        m.d.sync += [
            fine.eq(shift[:3]),
            coarse.eq(placed >> Cat(Const(0, 3), shift[3:])),
            sign.eq(value[-1]),
            big.eq(((value ^ value[-1].replicate(_D_BITS)) & above).any()),
        ]
        # 4: by 0, 2, 4 or 6.
        last = Signal(reset_less=True)
        middle = Signal(kept + 1, reset_less=True)
        m.d.sync += [last.eq(fine[0]), middle.eq(coarse >> Cat(Const(0, 1), fine[1:]))]
        # 5: by 0 or 1, rounded.
        final = Mux(last, middle[1:], middle[:-1])
        shifted = Signal(signed(formats.XNORM_BITS + 1), reset_less=True)
        m.d.sync += shifted.eq(final[1:].as_signed() + final[0])
        d.put("sign", sign, 3)
        d.put("big", big, 3)
        return shifted, d.at("big", _SHIFTED)

    def _normal(self, m: Module, shifted: Any, overflow: Any) -> Any:
        """Cycle 6: saturated; a softmax weight raised to where it passes unchanged."""
        bits = formats.XNORM_BITS
        normal = Signal(signed(bits), reset_less=True)
        sign = self._delays.at("sign", _SHIFTED)
        extreme = Cat((~sign).replicate(bits - 1), sign)
        m.d.sync += normal.eq(Mux(
            self._delays.at("exp2", _SHIFTED),
            Cat(Const(0, _PASS_UP), shifted[:8]),
            Mux(overflow, extreme, saturate(shifted, bits)),
        ))
        return normal
