"""What no job changes about a MATMUL: shape, weight stream, addresses.  Found once for an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import access
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction

from .memory import Index, Planes, TokenMemory, UInt8


@dataclass
class Stream:
    """Decoded weight stream of one MATMUL."""

    gain: UInt8 | None
    table: npt.NDArray[np.int8] | None
    weight: npt.NDArray[np.int8] | None
    bias: npt.NDArray[np.int32] | int
    #: ``None``: the instruction has one for all columns.
    multiplier: npt.NDArray[np.uint16] | None


@dataclass(frozen=True)
class Found:
    """Words of an access: of the bytes, or of the low and of the high ones."""

    planes: Planes
    #: Which words are read; for the others the planes name some word.  ``None``: all are.
    read: npt.NDArray[np.bool_] | None


class Places:
    """An access to ``tokens`` whose words are found once, unless the row-index memory names them.

    Any token memory of the same core does.
    """

    def __init__(self, where: access.Access, tokens: TokenMemory) -> None:
        self.access = where
        self._tokens = tokens
        self._found: dict[int, Found] = {}
        self._ids: Index | None = None

    def words(self, index: Index, c: int = 0) -> Found:
        """The words ``[rows, taps * width]`` of :meth:`vitrify.arch.access.Access.words`."""
        if self.access.list_base is not None:
            return self._find(self.access.words(c, index))
        group = c // self.access.group
        if group not in self._found:
            self._found[group] = self._find(self.access.words(c))
        return self._found[group]

    def _find(self, address: Index) -> Found:
        read = None
        if self.access.taps is not None:
            read = address != access.ZEROS
            address = np.where(read, address, self.access.base)
        return Found(self._tokens.planes(address, wide=self.access.wide), read)

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
    def of(cls, arch: ArchConfig, tokens: TokenMemory, op: Instruction, stream: Stream) -> Part:
        """The part that ``op`` is."""
        def places(where: access.Access | None) -> Places | None:
            return None if where is None else Places(where, tokens)

        return cls(
            op, *access.shape(arch, op), stream, Places(access.streamed(op), tokens),
            places(access.stationary(arch, op)), Places(access.result(arch, op), tokens),
            places(access.old_values(arch, op) if op.add_source else None),
        )
