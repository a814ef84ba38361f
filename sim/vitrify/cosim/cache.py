"""The folder of built simulators: code that is loaded into this process, hence whose it is.

A library is taken from the cache only if this user made it: folder and file belong to the user,
nobody else may write them, and the file has the digest that was recorded when it was built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from vitrify.arch.errors import BackendError

from . import toolchain

CACHE_VARIABLE = "VITRIFY_CACHE"
#: File with the digest of a library, beside it.
SEAL = "sealed.json"


def root() -> Path:
    """Folder of the kept libraries, writable.

    ``VITRIFY_CACHE``, else ``build/cores`` of a checkout, else the user's cache.

    Raises
    ------
    BackendError
        If there is none that can be written to.
    """
    given = os.environ.get(CACHE_VARIABLE)
    places = [Path(given).absolute()] if given else [
        toolchain.build_root() / "cores", toolchain.user_cache() / "cores"
    ]
    reasons = []
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reasons.append(f"{str(place)!r}: {error.strerror}")
            continue
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            reasons.append(f"{str(place)!r}: everybody may write there")
        elif not os.access(place, os.W_OK | os.X_OK):
            reasons.append(f"{str(place)!r}: it is read-only")
        else:
            return place
    raise BackendError(
        f"no folder for simulators ({'; '.join(reasons)}); name another one by {CACHE_VARIABLE}"
    )


def trusted(library: Path) -> bool:
    """Whether this user built ``library``, and it is whole."""
    try:
        if not (_own(library.parent, stat.S_ISDIR) and _own(library, stat.S_ISREG)):
            return False
        seal = json.loads((library.parent / SEAL).read_bytes())
        return seal == {"sha256": _digest(library)}
    except (OSError, ValueError):
        return False


def private(folder: Path) -> bool:
    """Whether ``folder`` is this user's, and nobody else may write there; made if it is missing."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        return _own(folder, stat.S_ISDIR)
    return False


def keep(library: Path, folder: Path) -> None:
    """Make ``folder``, with ``library`` and its digest in it, in one step."""
    work = Path(tempfile.mkdtemp(prefix=".keep-", dir=folder.parent))  # private
    try:
        shutil.copyfile(library, work / library.name)
        (work / library.name).chmod(0o700)
        (work / SEAL).write_text(json.dumps({"sha256": _digest(work / library.name)}))
        drop(folder)
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def drop(folder: Path) -> None:
    """Remove what is at ``folder``.

    Raises
    ------
    BackendError
        If it belongs to somebody else.
    """
    try:
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise BackendError(
            f"the simulator in {str(folder)!r} is not this user's, and cannot be removed "
            f"({error.strerror}); name another folder by {CACHE_VARIABLE}"
        ) from error


@contextlib.contextmanager
def workshop(place: Path, name: str) -> Iterator[Path]:
    """A temporary folder for a build, in ``place`` if `make` can work there."""
    where = place if toolchain.plain(place) else None
    with tempfile.TemporaryDirectory(
        prefix=f".{name}.", dir=where, ignore_cleanup_errors=True
    ) as work:
        yield Path(work)


def _own(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether ``path`` is of that kind (no link), this user's, and nobody else may write it."""
    about = path.lstat()
    return (
        kind(about.st_mode) and about.st_uid == os.getuid()
        and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
