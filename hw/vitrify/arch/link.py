"""The serial link between a host and a board: frames, commands, checks.

The host asks, the board answers; one request is under way at a time.  All numbers are little
endian; every check is a CRC-32 (IEEE 802.3, ``zlib.crc32``).

Request
    ``mark``, ``sequence``, ``command`` (a byte each), ``count`` (2 bytes), ``address`` (4), CRC of
    these 9 bytes (4).  The commands of :data:`WITH_PAYLOAD` go on with ``count`` bytes and their
    CRC.
Reply
    ``mark``, ``sequence`` of the request, ``status``, ``count`` (2 bytes), ``count`` bytes, CRC of
    everything before it (4).

A request that is damaged, cut short or unknown to the wire gets no reply.  The board drops what it
has when nothing arrives for ``SILENCE_BYTES`` byte times, and after a damaged request it ignores
everything until then.  A host that misses a reply keeps silent for as long, and repeats the
request with the same sequence number.  A register write with the number of the write before is
answered, but not done again: a job that was queued once stays queued once.  HELLO forgets that
number, and comes first.
"""

from __future__ import annotations

import enum
import zlib

#: Changes whenever an older host stops understanding a newer board.
LINK_VERSION = 1
#: First byte of every frame.
MARK = 0x56
#: Bytes of a request before its check, of a reply before its payload, of a check.
REQUEST_BYTES = 9
REPLY_BYTES = 5
CHECK_BYTES = 4
#: Most bytes of a payload, either way.
MAX_PAYLOAD = 2048
#: Byte times without a byte after which a frame is over.
SILENCE_BYTES = 2048
#: Bits of a byte on the wire: start, eight, stop.
WIRE_BITS = 10
#: What USB bridges do without a fraction.
BAUD = 2_000_000
#: Bits of a memory address, and of what it moves at once: addresses and counts are even.
LINK_ADDRESS_BITS = 32
WORD_BITS = 16


class Command(enum.IntEnum):
    """What a request asks for."""

    #: Identify: replies with LINK_VERSION, bytes of memory, clock in Hz (4 bytes each).
    HELLO = 1
    #: 4 bytes from the register at ``address``.
    READ_REGISTER = 2
    #: The payload's 4 bytes to the register at ``address``.
    WRITE_REGISTER = 3
    #: ``count`` bytes (even, not 0) from the memory at ``address`` (even).
    READ_MEMORY = 4
    #: The payload (even, not empty) to the memory at ``address`` (even).
    WRITE_MEMORY = 5
    #: CRC-32 of as many bytes (even, not 0) as the payload's 4 bytes say, from ``address`` on.
    CHECKSUM = 6


class Status(enum.IntEnum):
    """How a request ended."""

    OK = 0
    #: No such command, or a payload of the wrong size.
    REFUSED = 1


#: Commands whose header is followed by a payload.
WITH_PAYLOAD = frozenset({Command.WRITE_REGISTER, Command.WRITE_MEMORY, Command.CHECKSUM})


def check(data: bytes) -> bytes:
    """The CRC that goes behind ``data``."""
    return zlib.crc32(data).to_bytes(CHECK_BYTES, "little")


def request(sequence: int, command: int, address: int, count: int, payload: bytes = b"") -> bytes:
    """A whole request frame; ``count`` is the payload's length where there is one."""
    head = bytes([MARK, sequence, command]) + count.to_bytes(2, "little")
    head += address.to_bytes(LINK_ADDRESS_BITS // 8, "little")
    frame = head + check(head)
    return frame + payload + check(payload) if command in WITH_PAYLOAD else frame
