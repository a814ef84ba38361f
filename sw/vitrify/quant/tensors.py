"""Integer tensors and the parameters that every product shares.

All tensors are two-dimensional, ``[rows, channels]``, one image.  Scales are kept beside the
tensors only to interpret results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Rows of a tensor, in the order in which they are read; some may come several times."""

    index: tuple[int, ...]

    @classmethod
    def span(cls, start: int, count: int) -> Rows:
        """Consecutive rows."""
        return cls(tuple(range(start, start + count)))

    @property
    def count(self) -> int:
        """How many are read."""
        return len(self.index)

    @property
    def start(self) -> int | None:
        """The first of consecutive rows; ``None`` if they are in another order."""
        first = self.index[0]
        return first if self.index == tuple(range(first, first + self.count)) else None

    def of(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """These rows of ``[N, rows, ...]``."""
        start = self.start
        return array[:, list(self.index)] if start is None else array[:, start : start + self.count]

    def behind(self, first: int) -> Rows:
        """The same rows, counted from another one."""
        return Rows(tuple(i - first for i in self.index)) if first else self

    def then(self, later: Rows) -> Rows:
        """The rows ``later`` of these."""
        return Rows(tuple(self.index[i] for i in later.index))


@dataclass(frozen=True)
class Band:
    """Which rows the part of a layer makes: from ``start`` of ``total``.

    Those before ``done`` were made by other parts, too, and count as work no more.  ``first`` is
    the first row that any of them makes.
    """

    start: int
    done: int
    total: int
    first: int = 0


@dataclass(frozen=True)
class QTensor:
    """An integer tensor: real value = ``scale * (q - zero_point) + offset``.

    ``bits`` 16 marks the residual stream and results; ``scale`` is one value or one a channel.
    """

    name: str
    rows: int
    channels: int
    bits: int
    scale: float | Float
    zero_point: int = 0
    #: Only to interpret the tensor: what was taken off each channel (the mean of attention keys).
    offset: float | Float = 0.0
    #: Only to interpret the tensor: the last ``len(copies)`` channels hold what large units have
    #: beyond the range; the i-th of them adds to channel ``copies[i]``.
    copies: tuple[int, ...] = ()

    def dequantise(self, q: npt.NDArray[np.integer]) -> Float:
        """Real values ``[..., rows, channels - len(copies)]`` of the integers."""
        real = (q.astype(np.float64) - self.zero_point) * self.scale + self.offset
        if not self.copies:
            return real
        whole = np.ascontiguousarray(real[..., : self.channels - len(self.copies)])
        for i, channel in enumerate(self.copies):
            whole[..., channel] += real[..., i - len(self.copies)]
        return whole


@dataclass(frozen=True)
class Requant:
    """Accumulator to output: ``round(sat(round((acc + bias) >> pre)) * multiplier >> post)``.

    ``multiplier`` and ``bias`` have one entry a column (weights), or are single values.
    ``post_shift`` is the shift itself, one of ``formats.POST_SHIFTS``.
    """

    pre_shift: int
    post_shift: int
    multiplier: UInt16 | int
    bias: Int32 | int = 0

    @property
    def unit(self) -> Float:
        """What one of the accumulator is in the output; one value, or one a column."""
        return np.asarray(self.multiplier, np.float64) * 2.0 ** -(self.pre_shift + self.post_shift)


@dataclass(frozen=True)
class Norm:
    """Operand transform of an int16 input.

    ``statistics`` True: LayerNorm (x - mean) * rstd from the row's own statistics; False: the
    fixed factor ``mantissa / 2**RSQRT_FRAC / 2**shift`` (see ``golden.ops.layernorm``).
    ``gain`` has one unsigned 8-bit value a channel.
    """

    gain: UInt8
    statistics: bool = True
    shift: int = 0
    mantissa: int = 0


@dataclass(frozen=True)
class Times:
    """Operand transform of two int8 tensors of a pair: their product.

    ``x * tensor * mantissa / 2**RSQRT_FRAC / 2**shift``, int8 again (``golden.ops.layernorm``).
    """

    tensor: str
    shift: int
    mantissa: int


@dataclass(frozen=True)
class Statistics:
    """Statistics of a normalisation that the op which completes an int16 row gathers."""

    inv_dim: int
    inv_shift: int
    #: Added to the variance, in step² / 2**(2*MEAN_FRAC).
    epsilon: int
    #: Without, the mean counts as 0 (RMSNorm).
    centred: bool = True
