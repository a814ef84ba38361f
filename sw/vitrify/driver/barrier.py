"""A memory barrier for mapped devices: two machine instructions, called through ctypes.

Python has none, a system call is none, and ARM reorders accesses to a buffer that is not cached
with those to registers.  ``dsb sy`` (ARM) and ``mfence`` (x86) finish all accesses before the next.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from functools import cache

import numpy as np

#: Barrier and return, in machine code.
_CODE = {
    "aarch64": bytes.fromhex("9f3f03d5 c0035fd6"),  # dsb sy; ret
    "armv7l": bytes.fromhex("4ff07ff5 1eff2fe1"),  # dsb sy; bx lr
    "x86_64": bytes.fromhex("0faef0 c3"),  # mfence; ret
}
#: What is mapped stays mapped.
_PAGES: list[mmap.mmap] = []


def barrier() -> None:
    """Finish every memory access so far before any later one begins."""
    _compiled()()


@cache
def _compiled() -> Callable[[], None]:
    code = _CODE.get(platform.machine())
    try:
        if code is None:
            return _nothing
        # From a file, the kernel keeps instruction and data caches coherent.
        file = os.memfd_create("vitrify-barrier")
        os.write(file, code)
        page = mmap.mmap(file, len(code), prot=mmap.PROT_READ | mmap.PROT_EXEC)
        os.close(file)
    except OSError:
        return _nothing
    _PAGES.append(page)
    return ctypes.CFUNCTYPE(None)(np.frombuffer(page, np.uint8).ctypes.data)


def _nothing() -> None:
    """Where no code may be mapped, processors must order accesses themselves."""
