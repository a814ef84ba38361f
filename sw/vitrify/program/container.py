r"""The program file (``.vfy``): plain, checked, and without anything that executes.

====================  ==========================================================
bytes                 content
====================  ==========================================================
8                     magic ``VITRIFY\0``
4                     container version, little endian
4                     length of the header
4                     CRC-32 of the header
header                JSON, UTF-8: everything but the sections
sections              raw bytes, in the order of the header's ``sections`` table
====================  ==========================================================

Each row of ``sections`` has ``name``, ``size`` and ``sha256``.  There is one section, ``image``.
Readers refuse other versions, unknown fields, wrong checksums, missing or surplus bytes, values
out of the bounds in :mod:`vitrify.program.header`, and instructions that leave the memories of the
core (:mod:`vitrify.program.verify`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vitrify.arch.errors import ConfigError, InputError, ProgramError
from vitrify.arch.text import short

from . import header
from .files import write_atomic
from .program import Program
from .verify import verify

MAGIC = b"VITRIFY\0"
VERSION = 2
#: Largest file, and header in it.
MOST_BYTES = 1 << 30
MOST_HEADER = 1 << 26
_PREAMBLE = struct.Struct("<8sIII")


def save(program: Program, path: Path) -> None:
    """Write ``program`` to ``path``: complete, or not at all, and so that :func:`load` takes it.

    Raises
    ------
    ProgramError
        If a value is beyond what a program file may hold.
    """
    image = program.image.tobytes()
    fields = {
        "model": program.model,
        "arch": program.arch.to_dict(),
        "arch_hash": f"{program.arch.hash:08x}",
        "instruction_count": program.instruction_count,
        "input": dataclasses.asdict(program.input),
        "outputs": [dataclasses.asdict(out) for out in program.outputs],
        "tasks": [dataclasses.asdict(task) for task in program.tasks],
        "batch": program.batch,
        "layers": [dataclasses.asdict(layer) for layer in program.layers],
        "metadata": program.metadata,
        "sections": [
            {"name": "image", "size": len(image), "sha256": hashlib.sha256(image).hexdigest()}
        ],
    }
    text = json.dumps(fields, default=_plain).encode()
    preamble = _PREAMBLE.pack(MAGIC, VERSION, len(text), zlib.crc32(text))
    data = preamble + text + image
    parse(data, program.model)
    write_atomic(path, data)


def load(path: Path) -> Program:
    """Read and verify a program file.

    Raises
    ------
    ProgramError
        If the file cannot be read, is no program, of another version, truncated or corrupt.
    """
    try:
        if path.exists() and not path.is_file():
            raise ProgramError(f"cannot read program {str(path)!r}: it is no regular file")
        if path.stat().st_size > MOST_BYTES:
            raise ProgramError(f"program {str(path)!r} is larger than {MOST_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ProgramError(f"cannot read program {str(path)!r}: {error.strerror}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Program:
    """As :func:`load`, for the content of a file called ``name`` in messages."""
    text, rest = _split(data, name)
    try:
        fields = header.parse(text)
        image = _image(fields.pop("sections"), rest)
        program = _build(header.checked(fields), image)
        verify(program)
    except (ProgramError, ConfigError, InputError) as error:
        raise ProgramError(f"program {name!r}: {error}") from error
    return program


def is_program(path: Path) -> bool:
    """Whether the file begins like a program (it may still be corrupt)."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _split(data: bytes, name: str) -> tuple[bytes, memoryview]:
    """Header, verified, and what follows it."""
    if data[: len(MAGIC)] != MAGIC:
        raise ProgramError(f"{name!r} is not a Vitrify program; `vitrify compile` makes one")
    if len(data) < _PREAMBLE.size:
        raise ProgramError(f"program {name!r} is truncated: {len(data)} bytes")
    _, version, length, crc = _PREAMBLE.unpack_from(data)
    if version != VERSION:
        raise ProgramError(
            f"program {name!r} has container version {version}, this Vitrify reads {VERSION}; "
            f"compile it again"
        )
    if length > MOST_HEADER:
        raise ProgramError(f"program {name!r} has a header of {length:,} bytes; at most "
                           f"{MOST_HEADER:,}")
    text = data[_PREAMBLE.size : _PREAMBLE.size + length]
    if len(text) < length:
        raise ProgramError(f"program {name!r} is truncated inside its header")
    if zlib.crc32(text) != crc:
        raise ProgramError(f"program {name!r} is corrupt: its header does not match its checksum")
    return text, memoryview(data)[_PREAMBLE.size + length :]


def _image(table: Any, data: memoryview) -> memoryview:
    """The one section there is, its checksum verified."""
    (row,) = header.sections("sections", table)
    name, size = row["name"], row["size"]
    if name != "image":
        raise ProgramError(f"it has an unknown section {short(name)}")
    section, rest = data[:size], data[size:]
    if len(section) < size:
        raise ProgramError(f"it is truncated: section {name!r} has {len(section)} of {size} bytes")
    if hashlib.sha256(section).hexdigest() != row["sha256"]:
        raise ProgramError(f"it is corrupt: section {name!r} does not match its checksum")
    if rest:
        raise ProgramError(f"it is corrupt: {len(rest)} bytes follow its end")
    return section


def _build(fields: dict[str, Any], image: memoryview) -> Program:
    arch, there = fields["arch"], fields.pop("arch_hash")
    if f"{arch.hash:08x}" != there:
        raise ProgramError(
            f"{fields['model']!r} was compiled under another contract: its arch "
            f"{arch.name!r} hashes to {arch.hash:08x} here and to {short(there)} there; "
            f"compile it again"
        )
    header.check_sizes(fields["input"], fields["outputs"], arch.depth, fields["batch"])
    return Program(image=np.frombuffer(image, np.uint8), **fields)


def _plain(value: Any) -> Any:
    """JSON form of NumPy values; floats keep every bit."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no place in a program header")
