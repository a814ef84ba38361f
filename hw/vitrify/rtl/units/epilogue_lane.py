"""Arithmetic of one epilogue lane: from an exact sum to the value that is stored."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats


class EpilogueLane(wiring.Component):
    """Bias, shift, one multiplier, shift, saturation, table or residual: one value a cycle.

    Bit for bit :mod:`vitrify.golden.ops.requantise`.  Every port has its own place in the
    pipeline: the cycle after that of ``acc`` in which it must hold its value.

    Parameters
    ----------
    requant_bits : signed width of the multiplier's data port
    adds, compares : there are the ports ``addend``, ``largest``

    Members
    -------
    acc, bias : :py:`In(signed(ACC_BITS))`, :py:`In(signed(BIAS_BITS))`
        Cycle 0.
    pre_shift : :py:`In(4)`
        Cycle 1.
    multiplier : :py:`In(16)`
        Cycle 4.
    post_shift : :py:`In(2)`
        Cycle 5: index into :data:`vitrify.arch.formats.POST_SHIFTS`.
    addend : :py:`In(signed(8))`
        Cycle 5: added before the only rounding and the saturation; zero where there is nothing.
    narrow : :py:`In(1)`
        Cycle 8: saturate to -127 … 127, else to int16.
    index : :py:`Out(8)`
        Cycle :attr:`INDEX`: the saturated byte, for the activation table.
    residual : :py:`In(signed(16))`
        Cycle 10: added with saturation; zero where there is nothing to add.
    largest : :py:`In(1)`
        Cycle 10: the larger of value and ``residual``, instead of their sum.
    use_table, table : :py:`In(1)`, :py:`In(8)`
        Cycle 11: store ``table`` (the image of ``index``) instead.
    keep : :py:`In(1)`
        Cycle 11: the column exists; others store zero.
    value : :py:`Out(signed(16))`
        Cycle :attr:`LATENCY`.
    """

    #: Cycle in which ``index`` is known.
    INDEX = 10
    #: Cycles from the accumulator to the value.
    LATENCY = 12

    acc: Signal
    bias: Signal
    pre_shift: Signal
    multiplier: Signal
    post_shift: Signal
    addend: Signal
    narrow: Signal
    index: Signal
    residual: Signal
    largest: Signal
    use_table: Signal
    table: Signal
    keep: Signal
    value: Signal

    def __init__(self, *, requant_bits: int, adds: bool = False, compares: bool = False) -> None:
        self.requant_bits, self._adds, self._compares = requant_bits, adds, compares
        super().__init__({
            "acc": In(signed(formats.ACC_BITS)),
            "bias": In(signed(formats.BIAS_BITS)),
            "pre_shift": In(4),
            "multiplier": In(formats.MULTIPLIER_BITS),
            "post_shift": In(2),
            **({"addend": In(signed(8))} if adds else {}),
            "narrow": In(1),
            "index": Out(8),
            "residual": In(signed(formats.RESIDUAL_BITS)),
            **({"largest": In(1)} if compares else {}),
            "use_table": In(1),
            "table": In(8),
            "keep": In(1),
            "value": Out(signed(formats.RESIDUAL_BITS)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        port = self._port(m)
        product = self._multiply(m, port)
        clipped = self._saturate(m, product)
        self._finish(m, clipped)
        return m

    def _port(self, m: Module) -> Signal:
        """Biased, shifted and saturated to the multiplier's port; cycle 5."""
        total = self._register(m, self.acc + self.bias, "total")
        # One more bit below carries the bit that rounds; it is zero when nothing is shifted.
        coarse = self._register(m, Cat(Const(0, 1), total).as_signed() >> self.pre_shift[:2],
                                "coarse")
        high = self._register(m, self.pre_shift[2:], "pre_shift_high")
        fine = self._register(m, coarse >> (high << 2), "fine", signed(len(total) + 1))
        rounded = self._register(m, (fine >> 1) + fine[0], "rounded", signed(len(total) + 1))
        outside = self._outside(rounded, self.requant_bits)
        limit = Cat((~rounded[-1]).replicate(self.requant_bits - 1), rounded[-1])
        return self._register(m, Mux(outside, limit, rounded[: self.requant_bits]), "port",
                              signed(self.requant_bits))

    def _multiply(self, m: Module, port: Signal) -> Signal:
        """Product with its rounding bit added, not yet shifted; cycle 7."""
        # All of this is one DSP block: operand registers, product, addition of a constant.
        factor = self._register(m, self.multiplier, "factor")
        product = self._register(m, port * factor, "product")
        if self._adds:
            # The old value, where the shift will find it, above the bit that rounds.
            constant = self._register(m, self._constant(), "constant")
            return self._register(m, product + constant, "exact")
        choice = self._register(m, self.post_shift, "post_shift_6")
        half = Cat(*(
            (choice == formats.POST_SHIFTS.index(bit + 1)) if bit + 1 in formats.POST_SHIFTS
            else Const(0, 1)
            for bit in range(max(formats.POST_SHIFTS))
        ))
        return self._register(m, product + half, "exact")

    def _constant(self) -> Value:
        """``addend << shift`` with the rounding bit; cycle 5."""
        values = [
            Cat(Const(0, shift - 1), Const(1, 1), self.addend).as_signed()
            for shift in formats.POST_SHIFTS
        ]
        return Mux(self.post_shift[1], Mux(self.post_shift[0], values[3], values[2]),
                   Mux(self.post_shift[0], values[1], values[0]))

    def _saturate(self, m: Module, exact: Signal) -> Signal:
        """Shifted and saturated; cycle 10."""
        choice = self._register(m, self._register(m, self.post_shift, "post_shift_6b"),
                                "post_shift_7")
        low = min(formats.POST_SHIFTS)
        shifted: Value = exact >> max(formats.POST_SHIFTS)
        for i, shift in reversed(list(enumerate(formats.POST_SHIFTS[:-1]))):
            shifted = Mux(choice == i, exact >> shift, shifted)
        value = self._register(m, shifted, "shifted", signed(len(exact) - low))
        # -128 is outside as well: bytes are symmetric.
        least = value[7:].all() & ~value[:7].any()
        outside = self._register(
            m, Mux(self.narrow, self._outside(value, 8) | least,
                   self._outside(value, formats.RESIDUAL_BITS)), "outside")
        narrow = self._register(m, self.narrow, "narrow_9")
        negative = self._register(m, value[-1], "negative")
        inside = self._register(m, value[: formats.RESIDUAL_BITS], "inside")
        limit = Mux(
            narrow,
            Cat(Const(1, 1), (~negative).replicate(6), negative.replicate(9)),
            Cat((~negative).replicate(formats.RESIDUAL_BITS - 1), negative),
        )
        return self._register(m, Mux(outside, limit, inside), "clipped",
                              signed(formats.RESIDUAL_BITS))

    def _finish(self, m: Module, clipped: Signal) -> None:
        """Residual or table, and the columns that do not exist."""
        m.d.comb += self.index.eq(clipped[:8])
        if self._compares:
            largest = self._register(m, self.largest, "largest_11")
            bits = formats.RESIDUAL_BITS
            other = self.residual.as_unsigned() ^ self.largest.replicate(bits)
            total = self._register(
                m, clipped + other.as_signed() + self.largest, "sum", signed(bits + 1))
        else:
            total = self._register(m, clipped + self.residual, "sum")
        limit = Cat((~total[-1]).replicate(formats.RESIDUAL_BITS - 1), total[-1])
        fixed = Mux(self._outside(total, formats.RESIDUAL_BITS), limit, total[:-1])
        if self._compares:
            old = self._register(m, self.residual, "residual_11")
            new = self._register(m, clipped, "clipped_11")
            # The sum is their difference then.
            fixed = Mux(largest, Mux(total[-1], old, new), fixed.as_signed())
        stored = Mux(self.use_table, self.table.as_signed(), fixed.as_signed())
        m.d.sync += self.value.eq(Mux(self.keep, stored, 0))

    @staticmethod
    def _outside(value: Value, bits: int) -> Value:
        """Whether a signed value needs more than ``bits`` bits."""
        upper = value[bits - 1 :]
        return upper.any() & ~upper.all()

    @staticmethod
    def _register(m: Module, value: Value, name: str, shape: object = None) -> Signal:
        register = Signal(value.shape() if shape is None else shape, name=name, reset_less=True)
        m.d.sync += register.eq(value)
        return register

