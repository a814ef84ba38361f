"""Two products on one multiplier: ``((w1 << shift) + w0) * x``.

The shared operand ``x`` has 9 bits (-128 … 255), the stationary bytes lie within -127 … 127, so a
product needs 16 bits and ``chain`` of them ``shift`` bits: packed products may be added as long
as the low field does not spill.  The high field then lacks the borrow of a negative low one.
DSP48E2 (27 x 18 bits) takes shift 18; DSP48E1 (25 x 18) takes shift 17, because
``127 << 17 + 127 < 2**24`` (AMD WP486 describes the technique for 8-bit operands).
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth import Value

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
        spare = (1 << (self.shift - 1)) // _PRODUCT
        return 4 if spare >= 4 else 2

    def split(self, total: Value) -> tuple[Value, Value]:
        """Low and high sums of up to ``chain`` packed products."""
        low = total[: self.shift].as_signed()
        high = total[self.shift :].as_signed() + low[-1]
        return low, high
