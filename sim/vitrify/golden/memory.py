"""Token memory of the golden machine: words of K bytes, addressed as the core addresses them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError

UInt8 = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]


class TokenMemory:
    """``bytes[token_words, K]`` with int8 (word) and int16 (pair) access by index arrays."""

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self.bytes: UInt8 = np.zeros((arch.token_words, arch.depth), np.uint8)

    def _check(self, address: Index, limit: int) -> None:
        if address.size and (address.min() < 0 or address.max() >= limit):
            raise ProgramError(
                f"token-memory word {int(address.max())} lies outside the {limit} words of "
                f"arch {self._arch.name!r}"
            )

    def pair(self, address: Index) -> tuple[Index, Index]:
        """Word addresses of the low and high bytes of pair words."""
        self._check(address, self._arch.token_words // 2)
        size = self._arch.bank_words
        low = address + address // size * size
        return low, low + size

    def read8(self, address: Index, channels: int) -> npt.NDArray[np.int8]:
        """int8 ``[rows, channels]`` from word addresses ``[rows, words]``."""
        self._check(address, self._arch.token_words)
        rows = self.bytes[address].reshape(address.shape[0], -1)
        return rows[:, :channels].view(np.int8)

    def read_pair(
        self, address: Index, channels: int
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """The low and the high int8 plane ``[rows, channels]`` of pair words ``[rows, words]``."""
        low, high = (
            self.bytes[plane].reshape(address.shape[0], -1)[:, :channels].view(np.int8)
            for plane in self.pair(address)
        )
        return low, high

    def read16(self, address: Index, channels: int) -> npt.NDArray[np.int16]:
        """int16 ``[rows, channels]`` from pair addresses ``[rows, words]``."""
        low, high = (plane.view(np.uint8) for plane in self.read_pair(address, channels))
        return (low.astype(np.uint16) | high.astype(np.uint16) << 8).view(np.int16)

    def write8(self, address: Index, values: npt.NDArray[np.int8]) -> None:
        """Write int8 ``[rows, channels]``; bytes of the last word beyond it keep their value."""
        self._check(address, self._arch.token_words)
        self._scatter(address, values.view(np.uint8))

    def write16(self, address: Index, values: npt.NDArray[np.int16]) -> None:
        """Write int16 ``[rows, channels]`` to pair addresses."""
        low, high = self.pair(address)
        bits = values.view(np.uint16)
        self._scatter(low, (bits & 0xFF).astype(np.uint8))
        self._scatter(high, (bits >> 8).astype(np.uint8))

    def _scatter(self, address: Index, values: UInt8) -> None:
        depth = self._arch.depth
        whole, rest = divmod(values.shape[1], depth)
        head = values[:, : whole * depth].reshape(len(values), whole, depth)
        self.bytes[address[:, :whole]] = head
        if rest:
            self.bytes[address[:, whole], :rest] = values[:, whole * depth :]
