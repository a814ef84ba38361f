"""Two products on one multiplier: ``((high << shift) + low) * x``.

The shared operand ``x`` lies within -128 … 255 and the stationary bytes within -127 … 127, so a
product needs 16 bits, and ``chain`` packed products may be added as long as their low halves
together fit ``shift`` bits.  The high half then lacks the borrow of a negative low one.

DSP48E2 (27 x 18 bits) takes shift 18, which leaves room for chains of four: 4 * 127 * 255 < 2**17.
DSP48E1 (25 x 18) takes shift 17 and chains of two: ``127 << 17`` fits 25 bits only because -128
never occurs.  (AMD WP486 describes the technique for 8-bit operands.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import Cat
from amaranth.hdl import Value

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig

#: Largest magnitude of one product.
_PRODUCT = 127 * 255


@dataclass(frozen=True)
class Packing:
    """Where the high product sits, and how many products may be added before splitting."""

    shift: int

    @classmethod
    def of(cls, arch: ArchConfig) -> Packing:
        """The packing of an architecture's part."""
        return cls(17 if arch.part.family == "xc7" else 18)

    @property
    def chain(self) -> int:
        """Packed products that add without spilling (a power of two)."""
        spare = ((1 << (self.shift - 1)) - 1) // _PRODUCT
        return 1 << (spare.bit_length() - 1)

    @property
    def width(self) -> int:
        """Signed width of a packed pair."""
        return self.shift + formats.STATIONARY_BITS

    def join(self, low: Any, high: Any) -> Value:
        """The pair ``(high << shift) + low``: its only arithmetic is a decrement of ``high``."""
        sign = low[-1]
        upper = (high - sign)[: formats.STATIONARY_BITS]
        return Cat(low, sign.replicate(self.shift - len(low)), upper)

    def split(self, total: Any) -> tuple[Value, Value]:
        """Low and high sums of up to ``chain`` packed products."""
        low = total[: self.shift].as_signed()
        high = total[self.shift :].as_signed() + low[-1]
        return low, high
