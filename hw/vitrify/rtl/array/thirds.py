"""Three products on one multiplier: ``((n2 << 23) + (n1 << 12) + n0) * x``.

Nibbles lie within -8 … 7, the operand ``x`` within -128 … 127, so that a sum of four products
(the chain of bytes, :mod:`.packing`) lies within -4064 … 4096.  That is one bit more than the 12
between the lower two products, and two more than the 11 between the upper two: they spill into the
field above.  What that field should be modulo 2 or 4 shows them, and is cheap to know: a chain of
multiplications of 1 or 2 bits in LUTs.

Nothing is added in front of a multiplier.  Of a sum of terms all but the highest are stored as
numbers that are never negative (a nibble plus 8, a byte plus 128), so that terms lie side by side.
What this adds to a chain, the same in every column, is taken off again by a number that the
chain's first multiplier adds (:func:`offset`).  It adds a bias besides, with which the lower
fields are never negative either: no field borrows from the one above.

Behind the multipliers the fields are added apart as they are, and put together once for all chains
(:func:`finish`).  A pair of bytes takes the same way: its low sum is the lowest field and
the part below of the middle one, its high sum the part above and the highest field, so that no sum
chooses between both kinds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth import Cat, Const, Mux
from amaranth.hdl import Value

#: Bits of the lowest and the middle field.
LOWEST, MIDDLE = 12, 11
#: Bits from a low byte's product to that of the high byte.
BYTES = 19
#: Signed width of a multiplier's stationary port.
WIDTH = 27
#: Width of what the first multiplier of a chain adds (not negative).
OFFSET = 25
#: Bits of the highest field: of a high byte's sum, those that a nibble's field has not below it.
_HIGHEST = 14
#: What a chain's sums are raised by: with nibbles by four times 8 * 127, so that none is negative.
_BIAS_NIBBLES, _BIAS_BYTES = 4064, 1 << 17


class Fields(NamedTuple):
    """Of a chain's sum, or of sums of them."""

    lowest: Any
    #: The part of the middle field that belongs to a low byte.
    below: Any
    #: The part of the middle field that belongs to a high byte.
    above: Any
    highest: Any
    #: What the lowest and the middle field spilled into the ones above.
    low_spill: Any
    middle_spill: Any


class Gathered(NamedTuple):
    """Of the sums of all chains: two terms of a field each, or what one has of bytes alone."""

    lowest: Any
    lowest_rest: Any
    middle: Any
    middle_rest: Any
    highest: Any
    #: Of a high byte's sum, the bits below ``highest``.
    least: Any
    middle_spill: Any


def even(word: Any, nibbles: Any) -> Value:
    """The word of an even byte column as it is stored: bytes plus 128, pairs of nibbles plus 8."""
    flips = Cat(Const(0, 3), nibbles, Const(0, 3), Const(1, 1))
    return word ^ flips.replicate(len(word) // 8)


def odd(word: Any, half: int, nibbles: Any) -> Value:
    """The word of an odd byte column as it is stored.

    Of ``nibbles`` one of either half of its bytes, in the high half of a byte; else as it is.
    """
    moved = Cat(
        Cat(Const(0, 4), word.word_select(2 * at + half, 4)) for at in range(len(word) // 8))
    return Mux(nibbles, moved, word)


def join(low: Any, high: Any, nibbles: Any) -> Value:
    """What the multiplier gets of a pair's stored bytes: wires, and zeros where the mode has none.

    A nibble is the low half of the first byte, the next one its high half, the third one the high
    half of the second byte.
    """
    half = low[4:8]
    return Cat(
        low[:4], Mux(nibbles, 0, half), Const(0, LOWEST - 8), Mux(nibbles, half, 0),
        Const(0, BYTES - LOWEST - 4), high[:8])


def residues(low: Any, high: Any) -> tuple[Value, Value]:
    """Of a pair's stored bytes the second nibble modulo 2, and the third one modulo 4."""
    return low[4:5], high[4:6]


def offset(operands: Any, nibbles: Any) -> Value:
    """What a chain's first multiplier adds; ``operands``: the sum of the chain's."""
    # Nibbles: 508 - (-512 … 508); bytes: 1024 - (-512 … 1020).
    spare = (Mux(nibbles, _BIAS_NIBBLES >> 3, _BIAS_BYTES >> 7) - operands)[:11]
    both = Cat(Const(0, 3), spare[:10], Const(0, LOWEST - 10), spare[:10])
    return Mux(nibbles, both, Cat(Const(0, 7), spare))[:OFFSET]


def fields(total: Any, middle: Any, highest: Any) -> Fields:
    """What a chain's sum consists of.

    Parameters
    ----------
    total : signed
    middle, highest : the true sums of these fields, modulo 2 and modulo 4
    """
    upper = LOWEST + MIDDLE
    return Fields(
        total[:LOWEST], total[LOWEST:BYTES], total[BYTES:upper],
        total[upper : upper + _HIGHEST].as_signed(),
        # The bias is a multiple of four.
        total[LOWEST] ^ middle, (total[upper : upper + 2] - highest)[:2])


def gather(sums: Fields, chains: int, nibbles: Any) -> Gathered:
    """What is to be added for each field of the sums of ``chains`` chains."""
    half = MIDDLE - (BYTES - LOWEST)
    # The bias is as much less than the lowest field's size, and than two of the middle one's.
    spare = chains * ((1 << LOWEST) - _BIAS_NIBBLES)
    return Gathered(
        sums.lowest, Mux(nibbles, (sums.low_spill - chains << LOWEST) + spare, 0),
        sums.below + (Mux(nibbles, sums.above, 0) << BYTES - LOWEST),
        Mux(nibbles, (sums.middle_spill - 2 * chains << MIDDLE) + (spare - sums.low_spill),
            -chains * (_BIAS_BYTES >> LOWEST)),
        sums.highest + Mux(nibbles, 0, sums.above[half:]), sums.above[:half],
        sums.middle_spill)


def finish(parts: Gathered, nibbles: Any) -> tuple[Value, Value, Value]:
    """Lowest, highest and middle sum, all signed.

    Of a pair of bytes the lowest and the middle one belong together (:func:`merge`).
    """
    high = Mux(nibbles, parts.highest - parts.middle_spill,
               Cat(parts.least, parts.highest).as_signed())
    return parts.lowest + parts.lowest_rest, high, parts.middle + parts.middle_rest


def merge(low: Any, middle: Any) -> Value:
    """The low sum of a pair of bytes."""
    return (low + (middle << LOWEST)).as_signed()


def multiply(a: Any, b: Any) -> Value:
    """``a * b`` modulo 2 or 4, as ``a`` has one bit or two."""
    low = a[0] & b[0]
    return Cat(low, (a[1] & b[0]) ^ (a[0] & b[1])) if len(a) > 1 else low
