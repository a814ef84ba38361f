"""Files that are written: complete or not at all, and never something else's place."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError

#: Files of the kernel, which are written in place: a rename would replace the device.
_KERNEL = ("/dev/", "/proc/", "/sys/")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it.

    A symbolic link stays, and the file behind it is written; devices, pipes and sockets are
    written to; an existing file keeps its permissions.

    Raises
    ------
    InputError
        If the directory does not exist or cannot be written to.
    """
    try:
        target = Path(os.path.realpath(path))
        mode = _mode(path)
        if (mode is not None and not stat.S_ISREG(mode)) or _of_kernel(path):
            with path.open("wb") as file:
                file.write(data)
            return
        _replace(target, data, 0o666 & ~_umask() if mode is None else stat.S_IMODE(mode))
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from error


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by their paths below ``folder``, which is created if it is missing.

    They are written to a folder beside it, and moved to their places only when all of them are
    complete; other files in ``folder`` stay.

    Raises
    ------
    InputError
        If the folder or one of the files cannot be written.
    """
    check_folder(folder)
    try:
        for name in files:
            if (folder / name).is_dir():
                raise InputError(f"cannot write {str(folder / name)!r}: it is a directory")
        place = folder if folder.exists() else folder.parent
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".vitrify-") as made:
            for name, data in files.items():
                (Path(made) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(made) / name).write_bytes(data)
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(made) / name).replace(folder / name)
    except OSError as error:
        raise InputError(f"cannot write to {str(folder)!r}: {error.strerror}") from error


def _replace(target: Path, data: bytes, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".vitrify-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files private.
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _mode(path: Path) -> int | None:
    """Type and permissions of what is at ``path`` or behind its links; None: nothing."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _of_kernel(path: Path) -> bool:
    return str(Path(os.path.abspath(path))).startswith(_KERNEL)  # noqa: PTH100  (keeps links)


def check_writable(path: Path | None, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse an output file that could not be written, before hours of work.

    Parameters
    ----------
    path : the output (None: there is none)
    inputs : files, and folders of files, that are read and must not be overwritten

    Raises
    ------
    InputError
        If its directory does not exist or is not writable, or the path is a directory or an input.
    """
    if path is None:
        return
    try:
        mode = _mode(path)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from error
    if mode is not None and stat.S_ISDIR(mode):
        raise InputError(f"cannot write {str(path)!r}: it is a directory")
    for source in inputs:
        if source is not None and _overwrites(path, source):
            raise InputError(f"cannot write {str(path)!r}: it is an input; give another name")
    if mode is not None and not os.access(path, os.W_OK):
        raise InputError(f"cannot write {str(path)!r}: it is read-only")
    if (mode is not None and not stat.S_ISREG(mode)) or _of_kernel(path):
        return
    folder = Path(os.path.realpath(path)).parent
    shown = path.parent if folder == Path(os.path.realpath(path.parent)) else folder
    if not folder.is_dir():
        raise InputError(f"cannot write {str(path)!r}: directory {str(shown)!r} does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {str(path)!r}: directory {str(shown)!r} is read-only")


def check_folder(folder: Path) -> None:
    """Refuse a folder that could not be created or written to, before hours of work.

    Raises
    ------
    InputError
        If it, or what it would be created in, is no directory or read-only.
    """
    try:
        mode = _mode(folder)
    except OSError as error:
        raise InputError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    if mode is not None and not stat.S_ISDIR(mode):
        raise InputError(f"cannot write to {str(folder)!r}: it is no directory")
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        raise InputError(
            f"cannot write to {str(folder)!r}: directory {str(place)!r} is read-only"
        )


def _overwrites(path: Path, source: Path) -> bool:
    with contextlib.suppress(OSError):
        if source.is_dir():
            return path.exists() and path.resolve().parent == source.resolve()
        return path.samefile(source) and source.is_file()
    return False


def npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """What ``numpy.load`` reads as arrays of these names, whatever the names.

    (``numpy.savez`` takes them as keywords: ``file`` and ``allow_pickle`` are its own.)
    Characters that no name in a zip file can have become backslash escapes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = name.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
            with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()
