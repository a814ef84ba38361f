"""A program and a run as C: a header, and the arrays that it declares."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import CONTRACT_VERSION
from vitrify.arch.memmap import SIGNATURE_BYTES
from vitrify.program import InputSpec, OutputSpec, Program, UInt8, integers, preprocess

_LINE = 16


def c_header(name: str, program: Program, inputs: UInt8, outputs: UInt8) -> str:
    """Declarations for :func:`c_source`."""
    guard = f"VITRIFY_PROGRAM_{name.upper()}_H"
    jobs = len(inputs)
    return f"""\
/* Program {_comment(program.model)!r} for the core {program.arch.name}, and {jobs} jobs of it. */
#ifndef {guard}
#define {guard}

#include "vitrify.h"

#define {name.upper()}_JOBS {jobs}u
#define {name.upper()}_INPUT_BYTES {program.input_bytes}u
#define {name.upper()}_OUTPUT_BYTES {program.output_bytes}u

extern const vitrify_program {name}_program;
/* Of each job: input region, register TASK, and the output region as golden has it. */
extern const uint8_t {name}_input[{inputs.size}];
extern const uint32_t {name}_task[{jobs}];
extern const uint8_t {name}_expected[{outputs.size}];

#endif
"""


def c_source(
    name: str, program: Program, inputs: UInt8, tasks: Sequence[int], outputs: UInt8
) -> str:
    """Arrays of the program image and of the jobs, and how numbers become bytes and back."""
    digest = hashlib.sha256(program.image.tobytes())
    digest.update(f"{program.instruction_count} {program.arch.hash}".encode())
    signature = np.frombuffer(digest.digest()[:SIGNATURE_BYTES], np.uint8)
    parts = [
        f'#include "{name}.h"',
        _bytes("static const", "image", program.image),
        _bytes("static const", "signature", signature),
        _input(program.input),
        *(_arrays(i, out) for i, out in enumerate(program.outputs)),
        "static const vitrify_output outputs[] = {\n"
        + "".join(_output(i, out) for i, out in enumerate(program.outputs)) + "};",
        f"""\
const vitrify_program {name}_program = {{
    0x{program.arch.hash:08x}u, {CONTRACT_VERSION}u,
    {program.arch.depth}u,
    {program.instruction_count}u,
    {len(program.image)}u, {program.input_bytes}u, {program.output_bytes}u,
    {program.batch}u,
    image, signature, &input, outputs, {len(program.outputs)}u
}};""",
        _bytes("const", f"{name}_input", inputs),
        _numbers("const uint32_t", f"{name}_task", [f"{task}u" for task in tasks]),
        _bytes("const", f"{name}_expected", outputs),
    ]
    return "\n\n".join(parts) + "\n"


def _input(spec: InputSpec) -> str:
    channels, height, width = spec.shape
    top, left, _, _ = spec.pads
    stride = spec.strides or spec.patch
    blocks = spec.blocks or ((0, spec.rows),)
    outside = integers(spec, np.zeros((channels, 1, 1))).reshape(-1)
    parts = [
        _numbers("static const uint32_t", "blocks", [f"{n}u" for block in blocks for n in block]),
        _doubles("multiplier", spec.multiplier),
        _doubles("offset", spec.offset),
        _numbers("static const int8_t", "padding", outside),
    ]
    if spec.preprocess is not None:
        pixels = np.broadcast_to(np.arange(256, dtype=np.uint8), (channels, 1, 256))
        levels = integers(spec, preprocess.parse(spec.preprocess).normalise(pixels))
        parts.append(_numbers("static const int8_t", "pixels", levels.reshape(-1)))
    shape = [channels, height, width, *spec.patch, *stride, top, left, spec.patches[1],
             spec.prefix, spec.rows, len(blocks)]
    pixels_or_not = "NULL" if spec.preprocess is None else "pixels"
    return "\n\n".join(parts) + (
        f"\n\nstatic const vitrify_input input = {{\n"
        f"    {', '.join(f'{n}u' for n in shape)},\n"
        f"    blocks, multiplier, offset, padding, {pixels_or_not}\n}};"
    )


def _arrays(number: int, out: OutputSpec) -> str:
    parts = [
        _doubles(f"{what}_{number}", values)
        for what, values in (("scale", out.scale), ("factor", out.factor), ("shift", out.shift))
    ]
    # C has no arrays without elements; a single number has one dimension of one.
    parts.append(_numbers(
        "static const uint32_t", f"shape_{number}", [f"{n}u" for n in out.places or (1,)]
    ))
    if out.steps is not None:
        parts.append(_numbers("static const int32_t", f"steps_{number}", out.steps or (0,)))
    return "\n\n".join(parts)


def _output(number: int, out: OutputSpec) -> str:
    kind = np.dtype(out.dtype)
    # C99 has no float16: its values come as float32, not rounded to it.
    name = "INTEGER" if kind.kind in "iu" else "FLOAT64" if kind.itemsize == 8 else "FLOAT32"
    bounds = (np.iinfo(kind).min, np.iinfo(kind).max) if name == "INTEGER" else (0, 0)
    steps = [f"{int(np.size(v) > 1)}u" for v in (out.scale, out.factor, out.shift)]
    fields = [
        _string(out.name),
        f"{out.offset}u, {out.rows}u, {out.channels}u, {out.bits}u, {out.zero_point}",
        f"scale_{number}, factor_{number}, shift_{number}",
        ", ".join(steps),
        f"{math.prod(out.shape)}u, {len(out.places or (1,))}u, shape_{number}",
        f"{out.start}, {'NULL' if out.steps is None else f'steps_{number}'}",
        f"VITRIFY_{name}, {', '.join(float(b).hex() for b in bounds)}",
    ]
    lines = ",\n        ".join(fields)
    return f"    {{\n        {lines}\n    }},\n"


def _bytes(kind: str, name: str, data: UInt8) -> str:
    flat = data.tobytes()
    lines = (flat[i : i + _LINE].hex(",") for i in range(0, len(flat), _LINE))
    text = ",\n    0x".join(line.replace(",", ",0x") for line in lines)
    return f"{kind} uint8_t {name}[{len(flat)}] = {{\n    0x{text}\n}};"


def _doubles(name: str, values: float | npt.NDArray[Any]) -> str:
    # Hexadecimal, hence exact.
    return _numbers("static const double", name, [float(v).hex() for v in np.ravel(values)])


def _numbers(kind: str, name: str, values: Iterable[Any]) -> str:
    texts = [str(value) for value in values]
    lines = [", ".join(texts[i : i + _LINE]) for i in range(0, len(texts), _LINE)]
    return f"{kind} {name}[{len(texts)}] = {{\n    " + ",\n    ".join(lines) + "\n};"


def _comment(text: str) -> str:
    """``text`` as it may stand in a comment."""
    return "".join(c if c.isascii() and c.isprintable() and c not in "*/\\?" else "_" for c in text)


def _string(text: str) -> str:
    """A C string of the UTF-8 bytes of ``text``."""
    plain = [chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}"
             for b in text.encode("utf-8", "surrogateescape")]
    return '"' + "".join(plain) + '"'
