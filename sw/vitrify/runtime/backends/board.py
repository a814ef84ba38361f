"""Backend ``board:DEVICE?OPTION=VALUE&…``: a real core.

Devices
-------
``ulx3s``, ``colorlight-i9``, ``schoko``
    On a serial port: ``port`` (``/dev/ttyUSB0``, or a URL that pyserial knows), ``baud``,
    ``timeout`` (seconds for a reply).
``pynq``
    On a board with PYNQ: ``bitfile``, ``ip``, ``memory`` (bytes to allocate).
``uio``
    On Linux: ``uio`` (``/dev/uio0``), ``buffer`` (``udmabuf0``).
``simulation``
    The simulated core instead: the same driver, and no board.

Options
-------
``patience``
    Seconds without progress after which a run is given up, and that another process may keep
    the board: 20 unless given.
``progress``
    Called as ``progress(done, total)`` in layers.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vitrify.arch.boards import BOARDS, STANDALONE_BOARDS, Standalone, standalone
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.driver import CoreDriver, Transport
from vitrify.driver.lock import PATIENCE
from vitrify.driver.pynq import BUFFER_BYTES, PynqTransport
from vitrify.driver.serial_port import TIMEOUT, SerialTransport, open_port
from vitrify.driver.uio import UioTransport
from vitrify.program import Application, Program
from vitrify.runtime.backend import (
    Backend,
    ProgramBackend,
    Progress,
    UInt8,
    check_options,
    need_program,
    no_progress,
)
from vitrify.runtime.statistics import Statistics, counted, of_program


def _serial(
    board: Standalone, _arch: ArchConfig, patience: float, *, port: str, baud: int | None = None,
    timeout: float = TIMEOUT,
) -> Transport:
    opened = open_port(port, board.baud if baud is None else int(baud))
    try:
        return SerialTransport(opened, timeout=float(timeout), patience=patience)
    except BaseException:
        opened.close()
        raise


def _pynq(
    _arch: ArchConfig, _patience: float, *, bitfile: str, ip: str | None = None,
    memory: int = BUFFER_BYTES,
) -> Transport:
    return PynqTransport(bitfile, ip, int(memory))


def _uio(
    _arch: ArchConfig, _patience: float, *, uio: str = "/dev/uio0", buffer: str = "udmabuf0"
) -> Transport:
    return UioTransport(uio, buffer)


def _simulation(arch: ArchConfig, _patience: float) -> Transport:
    from vitrify.cosim.transport import SimulatedTransport

    return SimulatedTransport(arch)


#: Makes a transport from the core's architecture, the patience and the options of its name; those
#: that are required, and the others.
DEVICES: dict[str, tuple[Callable[..., Transport], tuple[str, ...], tuple[str, ...]]] = {
    **{
        name: (partial(_serial, standalone(BOARDS[name])), ("port",), ("baud", "timeout"))
        for name in STANDALONE_BOARDS
    },
    "pynq": (_pynq, ("bitfile",), ("ip", "memory")),
    "uio": (_uio, (), ("uio", "buffer")),
    "simulation": (_simulation, (), ()),
}


class BoardBackend(ProgramBackend):
    """Runs a program on the core behind a transport; the program is uploaded once."""

    name = "board"

    def __init__(
        self,
        program: Program,
        transport: Transport,
        *,
        patience: float = PATIENCE,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(program)
        self._progress = progress or no_progress
        self._transport = transport
        try:
            #: The driver, for whoever wants to look at registers.
            self.driver = CoreDriver(transport, program.arch, patience=patience)
        except BaseException:
            transport.close()
            raise
        self._jobs = 0

    def execute(
        self, regions: UInt8, tasks: Sequence[int], images: int
    ) -> tuple[UInt8, Callable[[], Statistics]]:
        """One queued job a region."""
        program, layers = self.program, len(self.program.layers)
        with self.driver.exclusive():
            if len(regions) > self._jobs:
                self.driver.load(
                    program.image, program.instruction_count, program.input_bytes,
                    program.output_bytes, len(regions),
                )
                self._jobs = len(regions)
            results = self.driver.run(
                regions, program.output_bytes, tasks,
                lambda done, total: self._progress(done * layers, total * layers),
            )
            counters = self.driver.counters()
        return results, lambda: counted(of_program(program, self.name, images), counters)

    def close(self) -> None:
        """Close the transport, when nobody uses it any more."""
        with self.driver.exclusive():
            self._transport.close()


def connect(device: str, arch: ArchConfig, patience: float = PATIENCE) -> Transport:
    """The transport that ``DEVICE?OPTION=VALUE&…`` describes.

    ``patience``: seconds that another process may keep a device that is spoken to at once.

    Raises
    ------
    InputError
        For an unknown device or option, a missing or a wrong one.
    """
    name, _, query = device.partition("?")
    if name not in DEVICES:
        raise InputError(
            f"no board is called {name!r}; the boards are {', '.join(DEVICES)} "
            f"(board:ulx3s?port=/dev/ttyUSB0)"
        )
    make, required, optional = DEVICES[name]
    try:
        pairs = urllib.parse.parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"
        )
    except ValueError:
        raise InputError(f"{query!r} is not of the form OPTION=VALUE&OPTION=VALUE") from None
    options = dict(pairs)
    check_options(f"board:{name}", options, (*required, *optional))
    for option in required:
        if not options.get(option):
            raise InputError(f"board:{name} needs {option}=, as in board:{name}?{option}=…")
    try:
        return make(arch, patience, **options)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"board:{name}: {error}") from error


def create(
    model: Program | Application | Path, _preprocess: str | None, options: Mapping[str, Any]
) -> Backend:
    """Backend for a program; ``device`` is what follows ``board:``."""
    settings = dict(options)
    device = settings.pop("device", "")
    check_options("board", settings, ("patience", "progress"))
    program = need_program("board", model)
    patience = settings.get("patience", PATIENCE)
    return BoardBackend(program, connect(device, program.arch, patience), **settings)
