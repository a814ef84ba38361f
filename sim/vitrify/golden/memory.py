"""Token memory of the golden machine: words of K bytes, addressed as the core addresses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError

UInt8 = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]
#: Words of the token memory ``[rows, words]`` with int8 values, or with the low and with the high
#: bytes of int16 values.
Planes = tuple[Index, ...]


class TokenMemory:
    """``bytes[token_words, K]`` with int8 (word) and int16 (pair) access by index arrays."""

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self.bytes: UInt8 = np.zeros((arch.token_words, arch.depth), np.uint8)

    def planes(self, address: Index, *, wide: bool) -> Planes:
        """Where the bytes of words lie, or the low and the high ones of pair words: checked."""
        limit = self._arch.token_words // 2 if wide else self._arch.token_words
        if address.size and (address.min() < 0 or address.max() >= limit):
            raise ProgramError(
                f"token-memory word {int(address.max())} lies outside the {limit} words of "
                f"arch {self._arch.name!r}"
            )
        if not wide:
            return (address,)
        size = self._arch.bank_words
        low = address + address // size * size
        return low, low + size

    def pair(self, address: Index) -> Planes:
        """Word addresses of the low and high bytes of pair words."""
        return self.planes(address, wide=True)

    def read(self, plane: Index, channels: int) -> npt.NDArray[np.int8]:
        """int8 ``[rows, channels]`` from the words ``[rows, words]`` of a plane."""
        # Several times as fast as an index in brackets.
        rows = self.bytes.take(plane, axis=0).reshape(len(plane), -1)
        return rows[:, :channels].view(np.int8)

    def load(self, planes: Planes, channels: int) -> npt.NDArray[Any]:
        """int8 ``[rows, channels]`` of one plane, int16 of two."""
        found = [self.read(plane, channels) for plane in planes]
        if len(found) == 1:
            return found[0]
        low, high = (plane.view(np.uint8).astype(np.uint16) for plane in found)
        return (low | high << 8).view(np.int16)

    def store(self, planes: Planes, values: npt.NDArray[Any]) -> None:
        """Write int8 ``[rows, channels]`` to one plane, int16 to two.

        Bytes of the last word beyond the channels keep their value.
        """
        if len(planes) == 1:
            self._scatter(planes[0], values.view(np.uint8))
            return
        bits = values.view(np.uint16)
        for plane, shift in zip(planes, (0, 8), strict=True):
            self._scatter(plane, (bits >> shift).astype(np.uint8))

    def read8(self, address: Index, channels: int) -> npt.NDArray[np.int8]:
        """int8 ``[rows, channels]`` from word addresses ``[rows, words]``."""
        return self.load(self.planes(address, wide=False), channels)

    def read16(self, address: Index, channels: int) -> npt.NDArray[np.int16]:
        """int16 ``[rows, channels]`` from pair addresses ``[rows, words]``."""
        return self.load(self.planes(address, wide=True), channels)

    def write8(self, address: Index, values: npt.NDArray[np.int8]) -> None:
        """Write int8 ``[rows, channels]``; bytes of the last word beyond it keep their value."""
        self.store(self.planes(address, wide=False), values)

    def write16(self, address: Index, values: npt.NDArray[np.int16]) -> None:
        """Write int16 ``[rows, channels]`` to pair addresses."""
        self.store(self.planes(address, wide=True), values)

    def _scatter(self, plane: Index, values: UInt8) -> None:
        depth = self._arch.depth
        whole, rest = divmod(values.shape[1], depth)
        if whole:
            # Words as values of their own: several times as fast as rows of bytes.
            word = np.dtype(f"V{depth}")
            head = np.ascontiguousarray(values[:, : whole * depth]).view(word)
            np.put(self.bytes.view(word), plane[:, :whole], head)
        if rest:
            self.bytes[plane[:, whole], :rest] = values[:, whole * depth :]
