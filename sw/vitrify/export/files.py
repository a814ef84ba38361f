"""All files of an export."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from vitrify.arch.c_header import HEADER
from vitrify.arch.c_header import c_header as registers
from vitrify.arch.errors import InputError
from vitrify.arch.text import short
from vitrify.program import Program, UInt8, output_mask

from .c_program import c_header, c_source
from .layout import Layout
from .testbench import testbench

#: The C driver, which is copied beside the program; the example names the program.
DRIVER = Path(__file__).parent / "c"
EXAMPLE = "example.c"
MEMORY_MAP = "memory_map.json"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Run:
    """Jobs of a program and what golden makes of them.

    Attributes
    ----------
    inputs, outputs : uint8 ``[jobs, input_bytes]`` and ``[jobs, output_bytes]``
    tasks : register TASK of every job
    """

    inputs: UInt8
    tasks: tuple[int, ...]
    outputs: UInt8


def check_name(name: str) -> None:
    """Refuse what C would not take for the name of a program, or the driver has taken.

    Raises
    ------
    InputError
    """
    if not _NAME.fullmatch(name) or name.startswith("vitrify"):
        raise InputError(
            f"--name must be up to 32 small letters, digits and _ (the first a letter, not "
            f"'vitrify…', which is the driver's), not {short(name)}"
        )


def export_files(program: Program, run: Run, name: str = "model") -> dict[str, bytes]:
    """Every file, by its path in the folder.

    Parameters
    ----------
    program : Program
    run : Run
    name : of the C arrays, and of the files that hold them

    Raises
    ------
    InputError
        As :func:`check_name`.
    """
    check_name(name)
    layout = Layout(program, run.tasks)
    contents = (program.image[None], run.inputs, run.outputs)
    files: dict[str, bytes] = {}
    for region, data in zip(layout.regions, contents, strict=True):
        padded = region.pieces(data)
        files[f"{region.name}.bin"] = padded.tobytes()
        files[f"{region.name}.mem"] = readmemh(padded, program.arch.port_bytes)
    mask = layout.regions[-1].pieces(output_mask(program))
    files["output_mask.mem"] = readmemh(mask, program.arch.port_bytes)
    files[MEMORY_MAP] = (json.dumps(layout.to_dict(), indent=2) + "\n").encode()
    files["testbench.v"] = testbench(layout).encode()
    files[f"c/{HEADER}"] = registers(program.arch).encode()
    files[f"c/{name}.h"] = c_header(name, program, run.inputs, run.outputs).encode()
    files[f"c/{name}.c"] = c_source(name, program, run.inputs, run.tasks, run.outputs).encode()
    for path in sorted(DRIVER.iterdir()):
        text = path.read_text()
        if path.name == EXAMPLE:
            text = text.replace("@NAME@", name).replace("@UPPER@", name.upper())
        files[f"c/{path.name}"] = text.encode()
    return files


def readmemh(data: UInt8, width: int) -> bytes:
    """Lines for ``$readmemh``: words of ``width`` bytes, byte 0 in the lowest bits."""
    words = data.reshape(-1, width)[:, ::-1]
    return words.tobytes().hex("\n", width).encode() + b"\n"
