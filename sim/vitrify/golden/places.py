"""What no job changes about a MATMUL: shape, weight stream, addresses.  Found once for an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import access
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction

from .memory import Index, UInt8


@dataclass
class Stream:
    """Decoded weight stream of one MATMUL."""

    gain: UInt8 | None
    table: npt.NDArray[np.int8] | None
    weight: npt.NDArray[np.int8] | None
    bias: npt.NDArray[np.int32] | int
    #: ``None``: the instruction has one for all columns.
    multiplier: npt.NDArray[np.uint16] | None


class Places:
    """An access whose addresses are remembered, unless the row-index memory says which they are."""

    def __init__(self, where: access.Access) -> None:
        self.access = where
        self._words: dict[int, Index] = {}
        self._ids: Index | None = None

    def words(self, index: Index, c: int = 0) -> Index:
        """As :meth:`vitrify.arch.access.Access.words`."""
        if self.access.list_base is not None:
            return self.access.words(c, index)
        group = c // self.access.group
        if group not in self._words:
            self._words[group] = self.access.words(c)
        return self._words[group]

    def row_ids(self, index: Index) -> Index:
        """As :meth:`vitrify.arch.access.Access.row_ids`."""
        if self.access.list_base is not None:
            return self.access.row_ids(index)
        if self._ids is None:
            self._ids = self.access.row_ids()
        return self._ids


@dataclass
class Part:
    """One MATMUL without repetitions."""

    op: Instruction
    #: Of the dot products.
    depth: int
    columns: int
    stream: Stream
    streamed: Places
    stationary: Places | None
    result: Places
    #: Where the result finds what it is combined with.
    old: Places | None

    @classmethod
    def of(cls, arch: ArchConfig, op: Instruction, stream: Stream) -> Part:
        """The part that ``op`` is."""
        def places(where: access.Access | None) -> Places | None:
            return None if where is None else Places(where)

        return cls(
            op, *access.shape(arch, op), stream, Places(access.streamed(op)),
            places(access.stationary(arch, op)), Places(access.result(arch, op)),
            places(access.old_values(arch, op) if op.add_source else None),
        )
