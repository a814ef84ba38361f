"""Number formats and the two rounding rules of the whole machine.

Everything between the pixel and the logit is an integer.  This module names every width once;
the golden kernels (:mod:`vitrify.golden`) and the RTL (:mod:`vitrify.rtl`) derive from it.

Rounding
    :func:`round_shift` is the only rounding: half up, ``(x + 2**(s-1)) >> s`` on two's
    complement (an adder and a wire).
Saturation
    :func:`saturate` clips to a signed width, :func:`saturate_sym8` to -127 … 127.  Nothing
    in the data path wraps.

The measurements behind the widths are in ``docs/numerics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

#: Stationary operand (weights, K, V): int8 restricted to -127 … 127, so that two of them pack
#: into one 25-bit multiplier port.
STATIONARY_BITS = 8
#: Streaming operand: -128 … 127 (int8 activations) or 0 … 224 (softmax weights).
OPERAND_BITS = 9
#: Accumulator.  ``MAX_DEPTH * 127 * 255 < 2**27``: a dot product of legal depth never overflows.
ACC_BITS = 28
#: Longest dot product (inner dimension) that an instruction may ask for.
MAX_DEPTH = 4096
#: Per-channel bias, a signed integer in accumulator units; the container is 32 bits wide.
BIAS_BITS = 28
#: Two weights of 4 bits on one multiplier: the higher one is shifted by so many bits.
NIBBLE_SHIFT = 13
#: Accumulator of either product.  ``MAX_DEPTH * 8 * 255 < 2**23``; a byte's product is divided
#: among the two, with ``MAX_DEPTH / 2`` sums of NIBBLE_SHIFT bits in the lower one.
HALF_ACC_BITS = 24
#: Per-channel (or uniform) requantisation multiplier, unsigned.
MULTIPLIER_BITS = 16
#: Selectable right shifts behind the multiplier (two instruction bits, not a barrel shifter).
POST_SHIFTS = (12, 16, 20, 24)
#: Largest right shift before the multiplier.
MAX_PRE_SHIFT = 15
#: Residual stream: signed, saturating, power-of-two step.
RESIDUAL_BITS = 16

#: Softmax logits hold ``q.k * log2(e) / sqrt(d)`` in units of ``2**-LOGIT_FRAC``.
LOGIT_FRAC = 2
#: Softmax weight at the row maximum: ``(4 + frac) << SOFTMAX_SHIFT`` (128 … 224), unsigned 8 bits.
SOFTMAX_SHIFT = 5
#: Exponent differences beyond this give a softmax weight of zero.
SOFTMAX_MAX_SHIFT = 15
#: Row sum of softmax weights: ``224 * MAX_DEPTH < 2**20``.
SOFTMAX_SUM_BITS = 20
#: Shift that belongs to :func:`reciprocal`'s multiplier (one of ``POST_SHIFTS``).
RECIPROCAL_SHIFT = 20
#: Index bits of the reciprocal table.
RECIPROCAL_INDEX_BITS = 9

#: Fraction bits of the LayerNorm mean, in residual steps.
MEAN_FRAC = 2
#: Mantissa bits of ``1/D`` (LayerNorm), normalised to 2**15 … 2**16-1.
INV_DIM_BITS = 16
#: Σx of a row: ``MAX_DEPTH * 2**15`` signed.
SUM_BITS = 28
#: Σx² of a row: ``MAX_DEPTH * 2**30`` unsigned.
SUMSQ_BITS = 43
#: Row variance with ``2*MEAN_FRAC`` fraction bits, unsigned (16-bit residual: below 2**34).
VAR_BITS = 36
#: Index bits of the reciprocal square root table (values below 2**(bits-2) never occur).
RSQRT_INDEX_BITS = 9
#: Fraction bits of the reciprocal square root mantissa, 256 … 511.
RSQRT_FRAC = 8
#: Normalised residual before the mantissa: signed, ``XHAT_FRAC`` fraction bits.
XNORM_BITS = 13
#: Fraction bits of x-hat = (x - mean) / std.
XHAT_FRAC = 7
#: Width of x-hat, signed.
XHAT_BITS = 14
#: LayerNorm gain g per input channel: unsigned, ``GAIN_FRAC`` fraction bits.
GAIN_BITS = 8
GAIN_FRAC = 2

#: Fraction bits of the int16 gate logits, which hold ``z * log2(e)``.
GATE_LOGIT_FRAC = 8
#: Experts that a ROUTE chooses from, and chooses, at most.
MAX_EXPERTS = 64
MAX_CHOICES = 4
#: Softmax weight of an expert before the division: ``2**ROUTE_BITS - 1`` for the row's best, so
#: that the sum of ``MAX_EXPERTS`` weights has ``SOFTMAX_SUM_BITS``.
ROUTE_BITS = 14
#: Gate weight: unsigned, 0 … 2**GATE_FRAC (that is 1).
GATE_FRAC = 14
GATE_BITS = 15

#: Activation table: one signed byte per signed byte.
TABLE_ENTRIES = 256
#: Bytes of one entry of a row-index list.
INDEX_BYTES = 2

#: NumPy's names of the types that a program's results may have, and an application's inputs.
RESULT_TYPES = (
    "float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
)  # fmt: skip
INPUT_TYPES = (*RESULT_TYPES, "bool")


@dataclass(frozen=True)
class IntFormat:
    """A two's complement or unsigned integer format."""

    bits: int
    signed: bool = True

    @property
    def min(self) -> int:
        """Smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        """Largest value."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


INT8 = IntFormat(8)
#: Weights of the stream that share a byte.
INT4 = IntFormat(4)
INT16 = IntFormat(RESIDUAL_BITS)
ACC = IntFormat(ACC_BITS)
BIAS = IntFormat(BIAS_BITS)
MULTIPLIER = IntFormat(MULTIPLIER_BITS, signed=False)


def round_shift(x: int, shift: int) -> int:
    """``x / 2**shift`` rounded half up; ``shift == 0`` is the identity."""
    return x if shift == 0 else (x + (1 << (shift - 1))) >> shift


def saturate(x: int, bits: int) -> int:
    """Clip to a signed ``bits``-bit integer."""
    fmt = IntFormat(bits)
    return max(fmt.min, min(fmt.max, x))


def saturate_sym8(x: int) -> int:
    """Clip to -127 … 127: every int8 result of the epilogue."""
    return max(-127, min(127, x))


def inv_dim(dim: int) -> tuple[int, int]:
    """``(mantissa, shift)`` with ``1/dim ≈ mantissa / 2**shift`` and a 16-bit mantissa.

    The mantissa lies in 2**15 … 2**16-1 (it is clipped for powers of two, error 2**-16).
    """
    if not 1 <= dim <= MAX_DEPTH:
        raise ValueError(f"LayerNorm dimension must be 1 to {MAX_DEPTH}, not {dim!r}")
    shift = INV_DIM_BITS - 1 + (dim - 1).bit_length()
    mantissa = ((1 << (shift + 1)) + dim) // (2 * dim)
    return min(mantissa, (1 << INV_DIM_BITS) - 1), shift


def reciprocal_table() -> tuple[int, ...]:
    """Multiplier for 1/Σ: entry ``i`` is ``2**RECIPROCAL_SHIFT / m``, 13 bits.

    ``m`` is the middle of the i-th of 512 intervals of 128 … 256.
    """
    n = 1 << RECIPROCAL_INDEX_BITS
    # m = 128 * (n + i + 1/2) / n; rounded to nearest.
    num = (1 << RECIPROCAL_SHIFT) * 2 * n // 128
    return tuple((num + (2 * (n + i) + 1) // 2) // (2 * (n + i) + 1) for i in range(n))


def gate_table() -> tuple[int, ...]:
    """Softmax weights below the best logit: entry ``i`` is ``(2**ROUTE_BITS - 1) / 2**(i / n)``.

    ``n = 2**GATE_LOGIT_FRAC`` entries; whole powers of two are a shift.
    """
    n, one = 1 << GATE_LOGIT_FRAC, (1 << ROUTE_BITS) - 1
    return tuple(round(one * 2.0 ** (-i / n)) for i in range(n))


def rsqrt_table() -> tuple[int, ...]:
    """Mantissa of 1/sqrt(u): entry ``i`` is ``256 / sqrt((i + 1/2) / 512)``, clipped to 256 … 511.

    ``u`` lies in 1/4 … 1; entries below 128 never occur and hold 511.
    """
    n = 1 << RSQRT_INDEX_BITS
    one = 1 << RSQRT_FRAC
    table = []
    for i in range(n):
        # round(one * sqrt(2n / (2i + 1))) in integers: floor((isqrt(4 v) + 1) / 2)
        v4 = 4 * one * one * 2 * n // (2 * i + 1)
        table.append(max(one, min(2 * one - 1, (isqrt(v4) + 1) // 2)))
    return tuple(table)
