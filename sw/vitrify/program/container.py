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
Readers refuse other versions, unknown fields, wrong checksums and missing or surplus bytes.
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

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError, InputError, ProgramError

from .files import write_atomic
from .program import Program
from .spec import InputSpec, LayerInfo, OutputSpec, TaskSpec, TensorInfo

MAGIC = b"VITRIFY\0"
VERSION = 2
_PREAMBLE = struct.Struct("<8sIII")


def save(program: Program, path: Path) -> None:
    """Write ``program`` to ``path``: complete, or not at all."""
    image = program.image.tobytes()
    header = {
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
    text = json.dumps(header, default=_plain, ensure_ascii=False).encode()
    preamble = _PREAMBLE.pack(MAGIC, VERSION, len(text), zlib.crc32(text))
    write_atomic(path, preamble + text + image)


def load(path: Path) -> Program:
    """Read and verify a program file.

    Raises
    ------
    ProgramError
        If the file cannot be read, is no program, of another version, truncated or corrupt.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProgramError(f"cannot read program {str(path)!r}: {error.strerror}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Program:
    """As :func:`load`, for the content of a file called ``name`` in messages."""
    header, sections = _split(data, name)
    try:
        return _build(header, sections)
    except (KeyError, TypeError, ValueError, ConfigError, InputError, AttributeError) as error:
        raise ProgramError(f"program {name!r} has a malformed header: {error}") from error


def is_program(path: Path) -> bool:
    """Whether the file begins like a program (it may still be corrupt)."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _split(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Header and sections of a file, all checksums verified."""
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
    text = data[_PREAMBLE.size : _PREAMBLE.size + length]
    if len(text) < length:
        raise ProgramError(f"program {name!r} is truncated inside its header")
    if zlib.crc32(text) != crc:
        raise ProgramError(f"program {name!r} is corrupt: its header does not match its checksum")
    header = json.loads(text)
    at, sections = _PREAMBLE.size + length, {}
    for row in header["sections"]:
        section = data[at : at + row["size"]]
        if len(section) < row["size"]:
            raise ProgramError(
                f"program {name!r} is truncated: section {row['name']!r} has {len(section)} of "
                f"{row['size']} bytes"
            )
        if hashlib.sha256(section).hexdigest() != row["sha256"]:
            raise ProgramError(
                f"program {name!r} is corrupt: section {row['name']!r} does not match its checksum"
            )
        sections[row["name"]] = section
        at += row["size"]
    if at != len(data):
        raise ProgramError(f"program {name!r} is corrupt: {len(data) - at} bytes follow its end")
    return header, sections


def _build(header: dict[str, Any], sections: dict[str, bytes]) -> Program:
    arch = ArchConfig.from_dict(header["arch"])
    if f"{arch.hash:08x}" != header["arch_hash"]:
        raise ProgramError(
            f"program {header['model']!r} was compiled under another contract: its arch "
            f"{arch.name!r} hashes to {arch.hash:08x} here and to {header['arch_hash']} there; "
            f"compile it again"
        )
    source = header["input"]
    return Program(
        model=header["model"],
        arch=arch,
        image=np.frombuffer(sections["image"], np.uint8),
        instruction_count=header["instruction_count"],
        input=InputSpec(
            **{
                **source,
                "shape": tuple(source["shape"]),
                "patch": tuple(source["patch"]),
                "blocks": tuple((first, rows) for first, rows in source["blocks"]),
                "multiplier": np.asarray(source["multiplier"], np.float64),
                "offset": np.asarray(source["offset"], np.float64),
            }
        ),
        outputs=tuple(
            OutputSpec(
                **{
                    **out,
                    "shape": tuple(out["shape"]),
                    "scale": (
                        np.asarray(out["scale"], np.float64)
                        if isinstance(out["scale"], list)
                        else float(out["scale"])
                    ),
                }
            )
            for out in header["outputs"]
        ),
        layers=tuple(
            LayerInfo(**{**layer, "tensor": TensorInfo(**layer["tensor"])})
            for layer in header["layers"]
        ),
        tasks=tuple(TaskSpec(**task) for task in header["tasks"]),
        batch=header["batch"],
        metadata=header["metadata"],
    )


def _plain(value: Any) -> Any:
    """JSON form of NumPy values; floats keep every bit."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no place in a program header")
