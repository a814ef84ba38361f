"""AXI4 and AXI4-Lite signatures, and their flat port names.

Inside the core an AXI port is one interface member (``m_axi``) with members ``awaddr``, ``awlen``
…; Verilog would call these ``m_axi__awaddr``.  Tools infer a bus from ``m_axi_awaddr``, so the
outermost wrapper declares :func:`flat_ports` and joins them with :func:`connect_flat`.

One transaction identifier (0) is used, hence everything comes back in order.
"""

from __future__ import annotations

import enum
from typing import Any

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow, In, Member, Out
from amaranth.utils import exact_log2

from vitrify.arch import csr, memmap
from vitrify.arch.config import ArchConfig

#: Most beats of an INCR burst.
MAX_BEATS = 256
#: ``awburst`` / ``arburst`` of an incrementing burst.
BURST_INCR = 0b01
#: ``awcache`` / ``arcache``: normal memory, not cacheable, bufferable.
CACHE_BUFFERABLE = 0b0011
#: ``awprot`` / ``arprot``: unprivileged, secure, data.
PROT_DATA = 0b000
ID_BITS = 1


class Resp(enum.IntEnum):
    """``bresp`` / ``rresp``.  Bit 1 says that something went wrong."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def _address_channel(prefix: str) -> dict[str, Member]:
    return {
        f"{prefix}id": Out(ID_BITS), f"{prefix}addr": Out(memmap.ADDRESS_BITS),
        f"{prefix}len": Out(8), f"{prefix}size": Out(3), f"{prefix}burst": Out(2),
        f"{prefix}cache": Out(4), f"{prefix}prot": Out(3),
        f"{prefix}valid": Out(1), f"{prefix}ready": In(1),
    }


def axi4_read(arch: ArchConfig) -> wiring.Signature:
    """The read half of an AXI4 master: AR and R."""
    return wiring.Signature({
        **_address_channel("ar"),
        "rid": In(ID_BITS), "rdata": In(8 * arch.bus_bytes), "rresp": In(2), "rlast": In(1),
        "rvalid": In(1), "rready": Out(1),
    })


def axi4_write(arch: ArchConfig) -> wiring.Signature:
    """The write half of an AXI4 master: AW, W and B."""
    return wiring.Signature({
        **_address_channel("aw"),
        "wdata": Out(8 * arch.bus_bytes), "wstrb": Out(arch.bus_bytes), "wlast": Out(1),
        "wvalid": Out(1), "wready": In(1),
        "bid": In(ID_BITS), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
    })


def axi4(arch: ArchConfig) -> wiring.Signature:
    """An AXI4 master with ``ADDRESS_BITS`` of address and ``bus_bytes`` of data."""
    members: dict[str, Member] = {}
    for half in (axi4_write(arch), axi4_read(arch)):
        members |= dict(half.members)
    return wiring.Signature(members)


def axi4_lite() -> wiring.Signature:
    """An AXI4-Lite port of 32 bits, seen from the master."""
    return wiring.Signature({
        "awaddr": Out(csr.CSR_ADDRESS_BITS), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
        "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
        "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        "araddr": Out(csr.CSR_ADDRESS_BITS), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
        "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
    })


def drive_address(m: Module, port: Any, prefix: str, arch: ArchConfig) -> None:
    """Give the constant members of address channel ``prefix`` (``ar`` or ``aw``) their values."""
    for name, value in (
        ("id", 0), ("size", exact_log2(arch.bus_bytes)), ("burst", BURST_INCR),
        ("cache", CACHE_BUFFERABLE), ("prot", PROT_DATA),
    ):
        m.d.comb += getattr(port, prefix + name).eq(value)


def flat_ports(prefix: str, signature: wiring.Signature) -> dict[str, Member]:
    """Members ``{prefix}_{name}`` for the signature of a component without nesting.

    ``signature`` is as the component sees it: ``axi4(arch)`` for a master,
    ``axi4_lite().flip()`` for a slave.
    """
    return {_flat(prefix, name): member for name, member in signature.members.items()}


def connect_flat(m: Module, ports: Any, prefix: str, inner: Any) -> None:
    """Join members ``{prefix}_{name}`` of ``ports`` with the interface ``inner``.

    ``inner`` is the interface of a submodule that faces the same way as the ports; it may have
    fewer members.  With an empty prefix the names are equal.
    """
    for name, member in inner.signature.members.items():
        outside, inside = getattr(ports, _flat(prefix, name)), getattr(inner, name)
        m.d.comb += outside.eq(inside) if member.flow is Flow.Out else inside.eq(outside)


def _flat(prefix: str, name: str) -> str:
    return f"{prefix}_{name}" if prefix else name
