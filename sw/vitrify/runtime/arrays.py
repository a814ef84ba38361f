"""Arrays from ``.npy`` and ``.npz`` files: bounded, and nothing of them is executed."""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError
from vitrify.arch.text import short

#: Most bytes of an array that is read at once.
MOST_BYTES = 1 << 30
#: Most arrays in a ``.npz``; most names in a message, and characters of each.
_MOST_ARRAYS, _MOST_NAMES, _MOST_NAME = 10_000, 8, 64
#: What Python's and NumPy's readers raise for damaged, encrypted or unknown content.
_DAMAGED = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, RuntimeError, SyntaxError,
    NotImplementedError, OverflowError, MemoryError, AttributeError, struct.error, zlib.error,
    zipfile.BadZipFile, zipfile.LargeZipFile, tokenize.TokenError, RecursionError,
)


def read_array(path: Path, name: str) -> npt.NDArray[Any]:
    """The array in a ``.npy``, or the one called ``name`` (or the only one) in a ``.npz``.

    Raises
    ------
    InputError
        If the file is damaged, encrypted or none of NumPy's, holds objects, is larger than 1 GiB,
        or has no such array.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                return _from_zip(path, name)
            size = file.seek(0, 2)
            file.seek(0)
            return _read(file, size, path)
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{str(path)!r} is no NumPy file, or it is damaged") from error


def read_arrays(given: Sequence[str], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of inputs called ``names``.

    Parameters
    ----------
    given : files, each ``NAME=FILE``, or one ``.npz`` with all that no other has; one ``FILE`` may
        also be a ``.npy`` where one input is left

    Raises
    ------
    InputError
        As :func:`read_array`; for a name that is none, and for several files of the same.
    """
    files: dict[str, Path] = {}
    rest: list[Path] = []
    for text in given:
        name, equals, path = text.partition("=")
        if Path(text).exists() or not equals:
            rest.append(Path(text))
        elif name not in names or name in files:
            raise InputError(
                f"{short(text)} is of no input that is left; the inputs are "
                f"{', '.join(map(repr, names))}"
            )
        else:
            files[name] = Path(path)
    left = [name for name in names if name not in files]
    if len(rest) > 1 or bool(rest) != bool(left):
        raise InputError(
            f"the inputs are {', '.join(map(repr, names))}: give one .npz with an array for each, "
            f"or NAME=FILE for each"
        )
    files |= dict.fromkeys(left, *rest) if left else {}
    for path in files.values():
        if not path.is_file():
            raise InputError(f"input file {str(path)!r} does not exist")
    if len(left) > 1 and not zipfile.is_zipfile(rest[0]):
        raise InputError(
            f"{str(rest[0])!r} is no .npz, which the arrays of {', '.join(map(repr, left))} need"
        )
    return {name: read_array(files[name], name) for name in names}


def _from_zip(path: Path, name: str) -> npt.NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) > _MOST_ARRAYS:
            raise InputError(f"{str(path)!r} has {len(members)} arrays; at most {_MOST_ARRAYS}")
        key = name if name in members else next(iter(members)) if len(members) == 1 else None
        if key is None:
            listed = ", ".join(key[:_MOST_NAME] for key in list(members)[:_MOST_NAMES]) or "none"
            more = ", …" if len(members) > _MOST_NAMES else ""
            raise InputError(
                f"{str(path)!r} has no array {name!r}; its arrays are: {listed}{more}"
            )
        if members[key].flag_bits & 1:
            raise InputError(f"{str(path)!r} is encrypted; give it without a password")
        with archive.open(members[key]) as file:
            return _read(file, members[key].file_size, path)


def _read(file: IO[bytes], size: int, path: Path) -> npt.NDArray[Any]:
    """The array of ``size`` bytes with its header; the header is looked at before memory is."""
    start = file.tell()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if reader is None:
            raise ValueError(f"format version {version}")
        shape, fortran, dtype = reader(file)
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise InputError(f"{str(path)!r} holds objects or records, not numbers")
    content = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or content > MOST_BYTES:
        raise InputError(
            f"{str(path)!r} holds an array of the shape {short(list(shape))}, {content:,} bytes; "
            f"at most {MOST_BYTES:,} are read at once: split it"
        )
    if content > size - (file.tell() - start):
        raise ValueError("the file ends before its array")
    array = np.frombuffer(bytearray(file.read(content)), dtype, math.prod(shape))
    return array.reshape(shape, order="F" if fortran else "C")
