"""What a case may take: seconds of the processor, and memory."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Iterator

#: Bars: more is a hang, or a bomb.
MOST_SECONDS = 20
MOST_BYTES = 4 << 30


class HangError(BaseException):
    """Raised inside a case that takes too long; no handler for users' errors catches it."""


def _ring(_number: int, _frame: object) -> None:
    raise HangError(f"more than {MOST_SECONDS} s of the processor")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise HangError after 20 s of this process, also if it is noticed only at the end."""
    before = signal.signal(signal.SIGPROF, _ring)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    start = time.process_time()
    try:
        yield
        if time.process_time() - start > MOST_SECONDS:
            raise HangError(f"{time.process_time() - start:.0f} s of the processor")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peak() -> int:
    """Most bytes that this process has had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    """Let allocations beyond the bar fail instead of taking the machine along."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_BYTES, hard))
