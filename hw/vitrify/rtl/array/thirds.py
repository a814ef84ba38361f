"""Three products on one multiplier: ``((n2 << 22) + (n1 << 11) + n0) * x``.

Nibbles lie within -8 … 7, the operand ``x`` within -128 … 127, so that a sum of four products
(the chain of bytes, :mod:`.packing`) lies within -4064 … 4096.  That is two bits more than the 11
between the products: they spill into the sum above.  What that sum is modulo 4 shows them, and is
cheap to know: a chain of 2-bit multiplications in LUTs (:data:`RESIDUE` bits).

A pair of bytes takes the same way.  The 18 bits of its low half are a low field of 11 bits and a
middle one of 7, which are added apart, so that no sum chooses between both kinds:
:meth:`Thirds.merge` puts them together behind the accumulators.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Mux
from amaranth.hdl import Value

from vitrify.arch import formats

from .packing import Packing

#: Bits from one nibble's product to the next.
SHIFT = 11
#: Bits of a sum that are wanted modulo a power of two.
RESIDUE = 2
#: Least bits of which one is set in a chain's sum below -2048, but in none at 4096.
_SIGN = 5


class Thirds:
    """How a pair of bytes, or three nibbles, share a multiplier.

    Parameters
    ----------
    bytes_ : the packing of a pair of bytes
    """

    #: Signed width of a multiplier's stationary port.
    WIDTH = 27

    def __init__(self, bytes_: Packing) -> None:
        self._bytes = bytes_
        self._two = Packing(SHIFT, formats.INT4.bits)
        self._three = Packing(2 * SHIFT, formats.INT4.bits)

    @staticmethod
    def nibbles(low: Any, high: Any, odd: int) -> tuple[Value, Value, Value]:
        """The three nibbles of a pair's stationary bytes, from the least significant one on.

        The word in the high byte belongs to two pairs; ``odd``: this is the second of them.
        """
        return tuple(part.as_signed() for part in (
            low[:4], high[4 * odd : 4 * odd + 4], low[4:8]))

    def join(self, low: Any, high: Any, odd: int, nibbles: Any) -> Value:
        """What the multiplier gets of a pair's stationary bytes."""
        first, second, third = self.nibbles(low, high, odd)
        joined = self._three.join(self._two.join(first, second), third).as_signed()
        return Mux(nibbles, joined, self._bytes.join(low, high).as_signed())[: self.WIDTH]

    @staticmethod
    def divide(total: Any, residue: Any, nibbles: Any) -> tuple[Value, Value]:
        """Lowest field of a chain's sum, and all above it.

        ``residue``: of the middle field, modulo 4; nothing for bytes.
        """
        spilled = (_spilled(total, residue) & nibbles.replicate(RESIDUE + 1)).as_signed()
        return (Cat(total[:SHIFT], spilled).as_signed(),
                total[SHIFT:].as_signed() - spilled)

    def finish(self, rest: Any, residue: Any, nibbles: Any) -> tuple[Value, Value]:
        """Middle and highest field; ``residue``: of the highest one."""
        middle = self._bytes.shift - SHIFT
        spilled = _spilled(rest, residue)
        sign = rest[middle - 1]
        field = Mux(nibbles, Cat(rest[:SHIFT], spilled).as_signed(), rest[:middle].as_signed())
        above = Mux(nibbles, rest[SHIFT:].as_signed(), rest[middle:].as_signed())
        return field, above - Mux(nibbles, spilled, sign.replicate(RESIDUE + 1)).as_signed()

    @staticmethod
    def merge(low: Any, middle: Any) -> Value:
        """The low sum of a pair of bytes."""
        return (low + (middle << SHIFT)).as_signed()


def _spilled(total: Any, residue: Any) -> Value:
    """Signed bits of the lowest sum above its 11, out of the sum that they spilled into."""
    high = (total[SHIFT : SHIFT + RESIDUE] - residue)[:RESIDUE]
    # 10: -2, but of 4096 (four times -8 * -128) 2.
    return Cat(high, high[1] & (high[0] | total[_SIGN:SHIFT].any()))


def multiply(a: Any, b: Any) -> Value:
    """``a * b`` modulo 4."""
    return Cat(a[0] & b[0], (a[1] & b[0]) ^ (a[0] & b[1]))
