"""A simulated board behind a pseudo-terminal: to a driver it looks like a serial port."""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vitrify.arch.errors import BackendError

from .board import SimulatedBoard

#: Cycles between two looks at the terminal.
_SLICE = 2_000
#: Seconds without a byte after which the simulation leaves the processor to others.
_QUIET = 1.0


@contextmanager
def serve(board: SimulatedBoard) -> Iterator[str]:
    """Run ``board`` in a thread; yields the name of its port.

    Raises
    ------
    BackendError
        At the end, if the board's memory controller broke the rules of its chip.
    """
    master, slave = os.openpty()
    tty.setraw(slave)
    stop = threading.Event()
    thread = threading.Thread(target=relay, args=(board, master, stop.is_set), daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        stop.set()
        thread.join()
        os.close(master)
        os.close(slave)
    if fault := board.fault():
        raise BackendError(fault)


def relay(board: SimulatedBoard, terminal: int, stopped: Callable[[], bool]) -> None:
    """Carry bytes between a board and a terminal's file descriptor, until told to stop."""
    latest = time.monotonic()
    while not stopped():
        idle = time.monotonic() - latest > _QUIET
        readable, _, _ = select.select([terminal], [], [], 0.01 if idle else 0)
        if readable:
            board.put(os.read(terminal, 1 << 12))
            latest = time.monotonic()
        board.run(_SLICE)
        if sent := board.get():
            latest = time.monotonic()
            while sent:
                sent = sent[os.write(terminal, sent) :]
