"""Two products on one multiplier: ``((high << shift) + low) * x``.

The shared operand ``x`` lies within -128 … 255.  ``chain`` packed products may be added as long as
their low halves together fit ``shift`` bits.  The high half then lacks the borrow of a negative
low one.

Bytes lie within -127 … 127, so that a product needs 16 bits.  DSP48E2 (27 x 18 bits) takes shift
18, which leaves room for chains of four: 4 * 127 * 255 < 2**17.  DSP48E1 (25 x 18) takes shift 17
and chains of two: ``127 << 17`` fits 25 bits only because -128 never occurs.  (AMD WP486 describes
the technique for 8-bit operands.)

Nibbles lie within -8 … 7, all of them.  MULT18X18D (18 x 18) takes shift 13, which leaves room for
chains of two: 2 * 8 * 255 < 2**12.  A byte on the same multiplier is a pair by itself: what
:meth:`Packing.split` makes of its products may be added half by half, and :meth:`Packing.merge`
puts the sums together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import Cat
from amaranth.hdl import Value

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig

#: Largest magnitude of the operand.
_OPERAND = 255


@dataclass(frozen=True)
class Packing:
    """Where the high product sits, and how many products may be added before splitting."""

    shift: int
    #: Of either stationary value.
    bits: int = formats.STATIONARY_BITS

    @classmethod
    def of(cls, arch: ArchConfig) -> Packing | None:
        """The packing of an architecture, if it has any."""
        if arch.nibble_tiles > 1:
            return cls(formats.NIBBLE_SHIFT, formats.INT4.bits)
        if arch.packing:
            return cls(17 if arch.part.family == "xc7" else 18)
        return None

    @property
    def of_bytes(self) -> bool:
        """Pairs of bytes; else of nibbles, or single bytes."""
        return self.bits == formats.STATIONARY_BITS

    @property
    def low(self) -> int:
        """Least stationary value: -127 of bytes, -8 of nibbles."""
        return self.of_bytes - (1 << self.bits - 1)

    @property
    def chain(self) -> int:
        """Packed products that add without spilling (a power of two)."""
        spare = ((1 << (self.shift - 1)) - 1) // (-self.low * _OPERAND)
        return 1 << (spare.bit_length() - 1)

    @property
    def width(self) -> int:
        """Signed width of a packed pair."""
        # -128 would need one more, and so does -8 with the borrow of a low half.
        return self.shift + self.bits + (not self.of_bytes)

    def join(self, low: Any, high: Any) -> Value:
        """The pair ``(high << shift) + low``: its only arithmetic is a decrement of ``high``."""
        sign = low[-1]
        upper = (high - sign)[: self.width - self.shift]
        return Cat(low, sign.replicate(self.shift - len(low)), upper)

    def split(self, total: Any) -> tuple[Value, Value]:
        """Low and high sums of up to ``chain`` packed products, ``shift`` bits each.

        The high one fits these as well, even as the rest of a byte's product.
        """
        low = total[: self.shift].as_signed()
        high = total[self.shift :].as_signed() + low[-1]
        return low, high[: self.shift].as_signed()

    def merge(self, low: Any, high: Any) -> Value:
        """``(high << shift) + low``, of sums of any length."""
        return Cat(low[: self.shift], (low >> self.shift) + high).as_signed()
