"""The part of DRAM that the host allows: bursts outside it do not reach the bus."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Value
from amaranth.lib import data
from amaranth.utils import exact_log2

from vitrify.arch import memmap

_PAGE_BITS = exact_log2(memmap.ALIGNMENT)

#: Pages of ``ALIGNMENT`` bytes from ``base`` up to, but without, ``limit``.
WINDOW = data.StructLayout({
    "base": memmap.ADDRESS_BITS - _PAGE_BITS, "limit": memmap.ADDRESS_BITS - _PAGE_BITS + 1,
})


def inside(window: Any, address: Value) -> Value:
    """Whether a burst that begins at byte ``address`` lies in ``window``.

    Its first page is all that counts, since no burst crosses one.
    """
    page = address[_PAGE_BITS:]
    return (page >= window.base) & (page < window.limit)
