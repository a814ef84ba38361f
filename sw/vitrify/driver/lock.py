"""One user of a core at a time: threads wait for each other, processes for a while."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vitrify.arch.errors import BackendError

#: Seconds that another process may keep a core, and that a core may do nothing.
PATIENCE = 20.0
#: Seconds between two looks at a lock that another process holds.
_LOOK = 0.02


class CoreLock:
    """A lock that a thread may take again while it holds it.

    Parameters
    ----------
    file : int, optional
        Open file descriptor of the device: other processes, and other sessions of this one that
        opened it, respect the lock (``flock``).
    """

    def __init__(self, file: int | None = None) -> None:
        self._file = file
        self._threads = threading.RLock()
        self._depth = 0
        #: Whether whoever holds the lock has a run in progress.
        self.running = False

    @contextmanager
    def held(self, seconds: float) -> Iterator[None]:
        """Hold the lock; another user may keep it for ``seconds``.

        Raises
        ------
        BackendError
            If somebody else holds the device for longer.
        """
        with self._threads:
            if self._depth == 0 and self._file is not None:
                _lock(self._file, seconds)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._file is not None:
                    # A file that was closed meanwhile is not locked any more.
                    with suppress(OSError):
                        fcntl.flock(self._file, fcntl.LOCK_UN)


def _lock(file: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BackendError(
                    f"the core is in use by another process or session, for more than "
                    f"{seconds:g} s; run again when that has finished"
                ) from None
            time.sleep(_LOOK)
        else:
            return
