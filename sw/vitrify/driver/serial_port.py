"""Transport over a serial line: the protocol of :mod:`vitrify.arch.link`."""

from __future__ import annotations

import contextlib
import time
from typing import Protocol

import numpy as np

from vitrify.arch import link
from vitrify.arch.errors import InputError
from vitrify.arch.link import Command, Status

from .lock import PATIENCE, CoreLock
from .transport import LinkError, Transport, UInt8

#: Seconds without a valid reply before a request is repeated; far longer than the silence after
#: which a board forgets half a frame.
TIMEOUT = 2.0
#: How often a request is repeated.
RETRIES = 6
#: Each time, the patience grows by this factor.
_GROWTH = 1.5
#: Bytes that one CHECKSUM covers: a board answers within a fraction of a second.
_SUM_BYTES = 1 << 16


class Port(Protocol):
    """What is used of :class:`serial.Serial`; ``read`` returns what came within ``timeout``."""

    def write(self, data: bytes, /) -> int | None:
        """Send all bytes."""
        ...

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes."""
        ...

    def close(self) -> None:
        """Close."""
        ...


def open_port(name: str, baud: int = link.BAUD) -> Port:
    """A serial port by its device name (or a URL that pyserial knows).

    Raises
    ------
    InputError
        If pyserial is missing or the port cannot be opened.
    """
    try:
        import serial
    except ImportError:
        raise InputError(
            "a serial port needs pyserial: install it with `pip install 'vitrify[board]'`"
        ) from None
    try:
        port = serial.serial_for_url(name, baudrate=baud, timeout=0.01, write_timeout=None)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot open the serial port {name!r}: {error}") from error
    # USB bridges otherwise wait 16 ms for more bytes to send along; not every port can be told.
    with contextlib.suppress(AttributeError, OSError, NotImplementedError, ValueError):
        port.set_low_latency_mode(True)
    return port


class SerialTransport(Transport):
    """A board behind a serial port.

    A request that brings no valid reply is repeated; the board does register writes once.

    Parameters
    ----------
    port : Port
    timeout : float
        Seconds of patience for the first try.
    retries : int
        Tries after the first.
    patience : float
        Seconds that another process may hold the port.

    Raises
    ------
    LinkError
        If nothing answers, or something of another version.
    BackendError
        If another process uses the port.
    """

    def __init__(
        self, port: Port, *, timeout: float = TIMEOUT, retries: int = RETRIES,
        patience: float = PATIENCE,
    ) -> None:
        self._port = port
        self._timeout = timeout
        self._retries = retries
        self._sequence = time.monotonic_ns() & 0xFF
        self._buffer = bytearray()
        #: Requests that had to be repeated.
        self.repeated = 0
        # Not every port is a file that can be locked.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self.lock = CoreLock(port.fileno())  # pyright: ignore[reportAttributeAccessIssue]
        with self.lock.held(patience):
            identity = self._ask(Command.HELLO, 0, 12)
        version, self.memory_size, self.clock_hz = np.frombuffer(identity, "<u4").tolist()
        if version != link.LINK_VERSION:
            raise LinkError(
                f"the board speaks version {version} of the link, and this is version "
                f"{link.LINK_VERSION}; build its bitstream again"
            )

    def read_register(self, offset: int) -> int:
        """See :class:`Transport`."""
        return int.from_bytes(self._ask(Command.READ_REGISTER, offset, 4), "little")

    def write_register(self, offset: int, value: int) -> None:
        """See :class:`Transport`."""
        self._ask(Command.WRITE_REGISTER, offset, 0, value.to_bytes(4, "little"))

    def read_memory(self, offset: int, size: int) -> UInt8:
        """See :class:`Transport`."""
        parts = [
            self._ask(Command.READ_MEMORY, at, min(link.MAX_PAYLOAD, offset + size - at))
            for at in range(offset, offset + size, link.MAX_PAYLOAD)
        ]
        return np.frombuffer(b"".join(parts), np.uint8)

    def write_memory(self, offset: int, data: UInt8) -> None:
        """See :class:`Transport`."""
        content = data.tobytes()
        for at in range(0, len(content), link.MAX_PAYLOAD):
            part = content[at : at + link.MAX_PAYLOAD]
            self._ask(Command.WRITE_MEMORY, offset + at, 0, part)

    def checksum(self, offset: int, size: int) -> int:
        """See :class:`Transport`; the board computes it."""
        if size > _SUM_BYTES:
            return super().checksum(offset, size)
        answer = self._ask(Command.CHECKSUM, offset, 4, size.to_bytes(4, "little"))
        return int.from_bytes(answer, "little")

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def _ask(self, command: Command, address: int, expected: int, payload: bytes = b"") -> bytes:
        """The reply's payload of ``expected`` bytes; repeats until there is a valid one."""
        self._sequence = (self._sequence + 1) & 0xFF
        count = len(payload) if command in link.WITH_PAYLOAD else expected
        frame = link.request(self._sequence, command, address, count, payload)
        patience = self._timeout
        for attempt in range(self._retries + 1):
            self.repeated += attempt > 0
            try:
                self._port.write(frame)
                status, answer = self._reply(patience)
            except OSError as error:
                raise LinkError(f"the serial port failed: {error}") from error
            if status == Status.OK and len(answer) == expected:
                return answer
            if status is not None:
                raise LinkError(f"the board refused {command.name} at 0x{address:x}")
            patience *= _GROWTH
        raise LinkError(
            f"the board does not answer {command.name} after {self._retries + 1} tries; is the "
            f"port right, the board on, and its bitstream loaded?"
        )

    def _reply(self, patience: float) -> tuple[int | None, bytes]:
        """Status and payload of the reply to the present request; status None without one."""
        clock = getattr(self._port, "clock", time.monotonic)
        deadline = clock() + patience
        while True:
            found = self._parse()
            if found is not None:
                return found
            if clock() >= deadline:
                self._buffer.clear()
                return None, b""
            self._buffer += self._port.read(link.MAX_PAYLOAD)

    def _parse(self) -> tuple[int, bytes] | None:
        """Take a valid reply out of the buffer; anything else stays or is dropped."""
        for start, byte in enumerate(self._buffer):
            head = self._buffer[start : start + link.REPLY_BYTES]
            if byte != link.MARK or len(head) < link.REPLY_BYTES or head[1] != self._sequence:
                continue
            end = start + link.REPLY_BYTES + int.from_bytes(head[3:5], "little")
            frame = bytes(self._buffer[start : end + link.CHECK_BYTES])
            body = frame[: -link.CHECK_BYTES]
            if len(frame) == end - start + link.CHECK_BYTES and frame == body + link.check(body):
                self._buffer.clear()
                return head[2], body[link.REPLY_BYTES :]
        return None
