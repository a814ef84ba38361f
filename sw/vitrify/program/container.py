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

Each row of ``sections`` has ``name``, ``size`` and ``sha256``.  A program has one section,
``image``.  An application in parts has a section ``part I`` for each: a whole program file, or an
ONNX model (:mod:`vitrify.program.onnx_graph`).
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
from .application import Application, CorePart, HostPart, Part
from .files import write_atomic
from .program import Program
from .verify import verify

MAGIC = b"VITRIFY\0"
VERSION = 3
#: Largest file, and header in it.
MOST_BYTES = 1 << 30
MOST_HEADER = 1 << 26
_PREAMBLE = struct.Struct("<8sIII")


def save(program: Program | Application, path: Path) -> None:
    """Write ``program`` to ``path``: complete, or not at all, and so that :func:`load` takes it.

    Raises
    ------
    ProgramError
        If a value is beyond what a program file may hold.
    """
    data = content(program)
    parse(data, program.model)
    write_atomic(path, data)


def content(program: Program | Application) -> bytes:
    """The bytes of the file."""
    if isinstance(program, Application):
        fields = {
            "model": program.model,
            "inputs": [dataclasses.asdict(spec) for spec in program.inputs],
            "outputs": program.outputs,
            "parts": [_part_row(part) for part in program.parts],
            "metadata": program.metadata,
        }
        return _joined(fields, {
            f"part {number}": part.model if isinstance(part, HostPart) else content(part.program)
            for number, part in enumerate(program.parts)
        })
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
    }
    return _joined(fields, {"image": program.image.tobytes()})


def _part_row(part: Part) -> dict[str, Any]:
    on_core = isinstance(part, CorePart)
    return {
        "place": "core" if on_core else "host",
        "reads": part.reads,
        "axes": part.axes if on_core else (),
        "gains": part.gains if on_core else (),
        "offsets": part.offsets if on_core else (),
        "why": () if on_core else part.why,
        "macs": part.macs,
    }


def _joined(fields: dict[str, Any], sections: dict[str, bytes]) -> bytes:
    table = [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sections.items()
    ]
    text = json.dumps({**fields, "sections": table}, default=_plain).encode()
    preamble = _PREAMBLE.pack(MAGIC, VERSION, len(text), zlib.crc32(text))
    return b"".join((preamble, text, *sections.values()))


def load(path: Path) -> Program | Application:
    """Read and verify the file of a program or of an application in parts.

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


def parse(data: bytes | memoryview, name: str) -> Program | Application:
    """As :func:`load`, for the content of a file called ``name`` in messages."""
    return _parse(data, name, nested=False)


def _parse(data: bytes | memoryview, name: str, *, nested: bool) -> Program | Application:
    text, rest = _split(data, name)
    try:
        fields = header.parse(text)
        table, values = fields.pop("sections"), header.checked(fields)
        if "parts" in fields:
            if nested:
                raise ProgramError("it is an application within an application")
            names = [f"part {number}" for number in range(len(values["parts"]))]
            return _application(values, _sections(table, rest, names))
        found = _sections(table, rest, ["image"])
        program = _build(values, found["image"])
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


def _split(data: bytes | memoryview, name: str) -> tuple[bytes, memoryview]:
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
    text = bytes(data[_PREAMBLE.size : _PREAMBLE.size + length])
    if len(text) < length:
        raise ProgramError(f"program {name!r} is truncated inside its header")
    if zlib.crc32(text) != crc:
        raise ProgramError(f"program {name!r} is corrupt: its header does not match its checksum")
    return text, memoryview(data)[_PREAMBLE.size + length :]


def _sections(table: Any, data: memoryview, names: list[str]) -> dict[str, memoryview]:
    """The sections of these names, in this order, their checksums verified."""
    found: dict[str, memoryview] = {}
    for row, wanted in zip(header.sections(len(names))("sections", table), names, strict=True):
        name, size = row["name"], row["size"]
        if name != wanted:
            raise ProgramError(f"it has an unknown section {short(name)}")
        section, data = data[:size], data[size:]
        if len(section) < size:
            raise ProgramError(
                f"it is truncated: section {short(name)} has {len(section)} of {size} bytes"
            )
        if hashlib.sha256(section).hexdigest() != row["sha256"]:
            raise ProgramError(f"it is corrupt: section {short(name)} does not match its checksum")
        found[name] = section
    if data:
        raise ProgramError(f"it is corrupt: {len(data)} bytes follow its end")
    return found


def _application(fields: dict[str, Any], sections: dict[str, memoryview]) -> Application:
    rows = fields.pop("parts")
    parts: list[Part] = []
    for row, (name, data) in zip(rows, sections.items(), strict=True):
        if row["place"] == "core":
            program = _parse(data, name, nested=True)
            assert isinstance(program, Program), "it is nested"
            fields_of_it = {key: row[key] for key in ("reads", "axes", "gains", "offsets")}
            parts.append(CorePart(program=program, **fields_of_it))
        else:
            parts.append(HostPart(model=bytes(data), why=row["why"], macs=row["macs"]))
            if parts[-1].reads != row["reads"]:
                raise ProgramError(f"{name!r} does not read what the header says")
    return Application(parts=tuple(parts), **fields)


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
