"""The two rounding rules on Amaranth values, and a pipelined multiplier in two styles.

:func:`round_shift`, :func:`saturate` and :func:`saturate_sym8` are combinational and compute
exactly what :mod:`vitrify.golden.numerics` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2


def round_shift(x: Value, shift: int | Value) -> Value:
    """``x / 2**shift`` rounded half up: one shifter and one incrementer.

    Parameters
    ----------
    x : signed or unsigned
    shift : a constant (wires only) or an unsigned value (a barrel shifter)

    Returns
    -------
    Signed (unsigned if ``x`` is), one bit wider than what the shift leaves, so that rounding up
    never wraps.
    """
    v = _value(x)
    if isinstance(shift, int):
        return _right(v, shift) + _right(v, shift - 1)[0] if shift else v
    # With a zero below the point, the rounding bit ends up at the bottom (zero for shift 0).
    shifted = _like(v, Cat(0, v)) >> shift
    return _like(v, shifted[1:]) + shifted[0]


def _value(x: Any) -> Any:
    return Value.cast(x)  # Any: type checkers cannot follow Amaranth's operators


def _right(x: Any, shift: int) -> Any:
    """``x >> shift`` as wires, no wider than needed (at least one bit)."""
    if shift < len(x):
        return _like(x, x[shift:])
    return _like(x, x[-1:]) if x.shape().signed else Const(0, 1)


def _like(x: Any, bits: Any) -> Any:
    return bits.as_signed() if x.shape().signed else bits


def saturate(x: Value, bits: int) -> Value:
    """Clip a value to a signed ``bits``-bit integer."""
    v = _as_signed(x)
    if len(v) <= bits:
        return v
    sign, top = v[-1], v[bits - 1:]
    fits = top.all() | ~top.any()
    limit = _value(Cat((~sign).replicate(bits - 1), sign))
    return Mux(fits, v[:bits], limit).as_signed()


def saturate_sym8(x: Value) -> Value:
    """Clip a value to -127 … 127, 8 bits signed."""
    v = _as_signed(x)
    if len(v) < 8:
        return v
    sign, top, low = v[-1], v[7:], v[:7]
    fits = (top.all() & low.any()) | ~top.any()
    # 0x7f, or 0x81 for negative values
    limit = _value(Cat(1, (~sign).replicate(6), sign))
    return Mux(fits, v[:8], limit).as_signed()


def _as_signed(x: Value) -> Any:
    v = _value(x)
    return v if v.shape().signed else _value(Cat(v, 0)).as_signed()


class Multiplier(wiring.Component):
    """``p = a * b``, :attr:`latency` cycles later, one product a cycle.

    With ``fabric`` it is a tree of shifted additions, one level a cycle, that no synthesiser
    turns into a DSP block; otherwise registers in front of, inside and behind one ``*``, which
    DSP blocks swallow.  The latency is the same for both, so the style changes nothing else.

    Parameters
    ----------
    a : shape of the first factor
    b : shape of the second factor, unsigned (one row of the tree for each of its bits)
    fabric : build from LUTs

    Members
    -------
    a, b : In
    p : Out, wide enough for every product
    """

    a: Signal
    b: Signal
    p: Signal

    def __init__(self, a: Shape, b: Shape, *, fabric: bool):
        a, b = Shape.cast(a), Shape.cast(b)
        if b.signed:
            raise TypeError(f"the second factor must be unsigned, not {b!r}")
        self.fabric = fabric
        product = signed(a.width + b.width) if a.signed else unsigned(a.width + b.width)
        super().__init__({"a": In(a), "b": In(b), "p": Out(product)})

    @property
    def latency(self) -> int:
        """Cycles from the factors to their product."""
        return self.latency_of(len(self.b))

    @staticmethod
    def latency_of(bits: int) -> int:
        """Latency for a second factor of ``bits`` bits."""
        return max(3, ceil_log2(bits))

    def elaborate(self, _platform: object) -> Module:
        """One of the two styles."""
        m = Module()
        value, depth = self._tree(m) if self.fabric else self._block(m)
        for _ in range(depth, self.latency):
            value = _register(m, value)
        m.d.comb += self.p.eq(value)
        return m

    def _block(self, m: Module) -> tuple[Any, int]:
        a, b = _register(m, self.a), _register(m, self.b)
        return _register(m, a * b), 2

    def _tree(self, m: Module) -> tuple[Any, int]:
        # Level by level; entry i of a level stands for 2**(i * step).
        rows: list[Any] = [Mux(bit, self.a, 0) for bit in self.b]
        step, depth = 1, 0
        while len(rows) > 1:
            pairs = [rows[i:i + 2] for i in range(0, len(rows), 2)]
            rows = [
                _register(m, pair[0] + pair[1].shift_left(step) if len(pair) == 2 else pair[0])
                for pair in pairs
            ]
            step, depth = 2 * step, depth + 1
        return rows[0], depth


def _register(m: Module, value: Any) -> Any:
    register = Signal(value.shape(), reset_less=True)
    m.d.sync += register.eq(value)
    return register


def total(terms: Sequence[Any]) -> Any:
    """The sum of values, as wide as it may get: pairs, then pairs of pairs."""
    half = len(terms) // 2
    return total(terms[:half]) + total(terms[half:]) if half else terms[0]


def half_bytes(word: Value, half: int) -> Value:
    """Low or high halves of the bytes of a word, as signed bytes."""
    nibbles = (word[at : at + 4] for at in range(4 * half, len(word), 8))
    return Cat(Cat(nibble, nibble[3].replicate(4)) for nibble in nibbles)
