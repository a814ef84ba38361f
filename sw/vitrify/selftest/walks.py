"""Registers that hold what is written, and memory whose every line and cell does."""

from __future__ import annotations

import zlib

import numpy as np

from vitrify.arch import csr
from vitrify.arch.csr import Access, Register
from vitrify.arch.memmap import SIGNATURE_BYTES
from vitrify.driver import CoreDriver, Transport

#: Bytes that go over the transport at a time.
_BLOCK = 1 << 14
#: Bytes of a word by which lines of data are told apart: those of the widest bus.
_LINES = 64


def walk_registers(driver: CoreDriver) -> str:
    """Write patterns to all registers that can be written, all before the first is read back.

    Returns
    -------
    What is wrong, empty if nothing is.  The registers are zero afterwards.
    """
    registers = [r for r in csr.REGISTERS if r.access is Access.RW]
    try:
        for pattern in (0x5555_5555, 0xAAAA_AAAA, 0x0101_0101):
            wanted = {
                r.name: (pattern * (1 + n) ^ n) & _mask(r) for n, r in enumerate(registers)
            }
            for name, value in wanted.items():
                driver.write(name, value)
            for name, value in wanted.items():
                if (found := driver.read(name)) != value:
                    return f"{name} reads 0x{found:08x} after 0x{value:08x} was written"
    finally:
        for register in registers:
            driver.write(register.name, 0)
    return ""


def _mask(register: Register) -> int:
    return register.mask if register.fields else 0xFFFF_FFFF


def walk_memory(transport: Transport, most: int, seed: int) -> str:
    """Each line of data alone, addresses that differ in one line, then ``most`` random bytes.

    Afterwards no driver takes the memory for its own.

    Returns
    -------
    What is wrong, empty if nothing is.
    """
    size = transport.memory_size // 2 * 2
    transport.write_memory(size - SIGNATURE_BYTES, np.zeros(SIGNATURE_BYTES, np.uint8))
    return _data_lines(transport, size) or _address_lines(transport, size) or _cells(
        transport, min(most, size - SIGNATURE_BYTES) // 2 * 2, seed
    )


def _data_lines(transport: Transport, size: int) -> str:
    """A one in a different place of each word, and a zero."""
    ones = np.packbits(np.eye(8 * _LINES, dtype=np.uint8), axis=1, bitorder="little").reshape(-1)
    for data in (ones[:size], ~ones[:size]):
        transport.write_memory(0, data)
        found = transport.read_memory(0, len(data))
        if (wrong := np.flatnonzero(found != data)).size:
            at = int(wrong[0])
            lines = int(found[at] ^ data[at])
            return (
                f"byte {at % _LINES} of a word of {_LINES} at "
                f"0x{transport.memory_base + at // _LINES * _LINES:x} reads "
                f"0x{found[at]:02x} after 0x{data[at]:02x} was written: data lines 0x{lines:02x}"
            )
    return ""


def _address_lines(transport: Transport, size: int) -> str:
    """Two bytes at every power of two: none may be another's place."""
    places = [0, *(1 << n for n in range(1, size.bit_length()) if (1 << n) + 2 <= size)]
    for n, place in enumerate(places):
        transport.write_memory(place, np.array([n + 1, 255 - n], np.uint8))
    for n, place in enumerate(places):
        found = transport.read_memory(place, 2)
        if found.tolist() != [n + 1, 255 - n]:
            other = int(found[0]) - 1
            where = f"0x{transport.memory_base + place:x}"
            if 0 <= other < len(places) and found[1] == 255 - other:
                return f"{where} and 0x{transport.memory_base + places[other]:x} are one place"
            return f"{where} does not hold what was written"
    return ""


def _cells(transport: Transport, size: int, seed: int) -> str:
    """Everything is written before the first block is compared."""
    rng = np.random.default_rng(seed)
    blocks = {at: min(_BLOCK, size - at) for at in range(0, size, _BLOCK)}
    sums = {}
    for at, count in blocks.items():
        data = rng.integers(0, 256, count, np.uint8)
        sums[at] = zlib.crc32(data.tobytes())
        transport.write_memory(at, data)
    for at, count in blocks.items():
        if transport.checksum(at, count) != sums[at]:
            start = transport.memory_base + at
            return f"between 0x{start:x} and 0x{start + count:x} is not what was written"
    return ""
