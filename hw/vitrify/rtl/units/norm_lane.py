"""One LayerNorm lane: int16 residual to int8, by the row's mean, shift and mantissa."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Signal, signed

from vitrify.arch import formats
from vitrify.rtl.lib.arith import Multiplier, round_shift, saturate

#: Left shift that makes every legal row shift (1 … 18) a right shift.
_LIFT = formats.XHAT_FRAC - 1
_MANTISSA_BITS = formats.RSQRT_FRAC + 1


class NormLane:
    """``saturate8(round((x - mean) * rstd * gain))`` as a pipeline without back-pressure.

    Equals :func:`vitrify.golden.ops.layernorm.apply`.  The difference is shifted before it is
    multiplied, so that both multipliers are small: 13 x 9 and 14 x 8 bits.
    """

    #: Cycle, counted from the input, at which the mantissa is needed.
    mantissa_at = 4
    #: … at which the gain is needed.
    gain_at = mantissa_at + Multiplier.latency_of(_MANTISSA_BITS) + 1
    #: … at which the result is there.
    latency = gain_at + Multiplier.latency_of(formats.GAIN_BITS) + 1

    def __init__(self, *, fabric: bool) -> None:
        self._fabric = fabric

    def build(
        self, m: Module, name: str, *, x: Any, mean: Any, shift: list[Any], mantissa: Any, gain: Any
    ) -> Any:
        """Add the lane; returns its signed 8-bit result.

        ``x`` and ``mean`` are valid in cycle 0; ``shift[n]`` is (row shift - 1) in cycle n;
        ``mantissa`` and ``gain`` are valid in the cycles named above.
        """
        def register(value: Any, step: str) -> Any:
            signal = Signal(value.shape(), name=f"{name}_{step}", reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        difference = register((x << formats.MEAN_FRAC) - mean, "difference")
        # One more zero below: the bit that rounds.
        lifted = Cat(Const(0, 1 + _LIFT), difference).as_signed()
        coarse = register(lifted >> Cat(Const(0, 2), shift[1][2:]), "coarse")
        fine = register(coarse >> shift[2][:2], "fine")
        rounded = fine[1:].as_signed() + fine[0]
        normal = register(saturate(rounded, formats.XNORM_BITS), "normal")

        first = Multiplier(signed(formats.XNORM_BITS), _MANTISSA_BITS, fabric=self._fabric)
        second = Multiplier(signed(formats.XHAT_BITS), formats.GAIN_BITS, fabric=self._fabric)
        m.submodules[f"{name}_rstd"], m.submodules[f"{name}_gain"] = first, second
        m.d.comb += [first.a.eq(normal), first.b.eq(mantissa)]
        xhat = register(
            round_shift(first.p, formats.RSQRT_FRAC)[: formats.XHAT_BITS].as_signed(), "xhat"
        )
        m.d.comb += [second.a.eq(xhat), second.b.eq(gain)]
        scaled = round_shift(second.p, formats.XHAT_FRAC + formats.GAIN_FRAC)
        return register(saturate(scaled, 8), "result")
