"""Where a tensor lies in the token memory, and how its channels are spread over words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.access import places


@dataclass(frozen=True)
class Spread:
    """Physical channels of a tensor: each of ``heads`` equal parts starts at a word.

    Queries, keys, values and attention outputs are spread over their heads, so that a head is
    a whole number of words; the channels between are padding.
    """

    channels: int
    heads: int
    depth: int

    @property
    def head_channels(self) -> int:
        """Channels of one part."""
        return self.channels // self.heads

    @property
    def head_words(self) -> int:
        """Words of one part."""
        return -(-self.head_channels // self.depth)

    @property
    def words(self) -> int:
        """Words of a row."""
        return self.heads * self.head_words

    @property
    def physical(self) -> int:
        """Channels up to the last one in use."""
        return (self.words - self.head_words) * self.depth + self.head_channels

    def scatter(self, values: npt.NDArray[Any], axis: int = 0) -> npt.NDArray[Any]:
        """Logical channels along ``axis`` to physical ones, zeros between."""
        where = places(self.channels, self.heads, self.depth)
        shape = list(values.shape)
        shape[axis] = self.physical
        result = np.zeros(shape, values.dtype)
        index: list[Any] = [slice(None)] * values.ndim
        index[axis] = where
        result[tuple(index)] = values
        return result


@dataclass(frozen=True)
class Placed:
    """A tensor in the token memory."""

    name: str
    rows: int
    spread: Spread
    #: Word address, or pair address when ``wide``.
    address: int
    wide: bool
    #: Words from a row to the next.
    stride: int
    #: Statistics entry of row 0 (negative: none reserved).
    stat: int = -1
    #: Number of row 0 among the rows of all images of the job.
    first: int = 0
    #: Names of the two int8 tensors that lie in the low and the high bytes.
    planes: tuple[str, ...] = ()

    def of_image(self, image: int, images: int) -> Placed:
        """The rows of one of so many images."""
        rows = self.rows // images
        first = image * rows
        return replace(
            self, rows=rows, address=self.at(first), first=first,
            stat=self.stat + first if self.stat >= 0 else self.stat,
        )

    def at(self, row: int, channel: int = 0) -> int:
        """Address of the word that holds a row's physical channel."""
        return self.address + row * self.stride + channel // self.spread.depth
