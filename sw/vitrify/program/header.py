"""The header of a program file: every field has its type and its bounds here, before any use."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import isa
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError
from vitrify.arch.text import short

from .spec import (
    ImageSpec,
    InputSpec,
    LayerInfo,
    OutputSpec,
    TaskSpec,
    TensorInfo,
    TensorSpec,
)

#: A check: what a field is called, and its value in the header; returns the value to use.
Check = Callable[[str, Any], Any]

MOST_TEXT = 4096
MOST_OUTPUTS = 256
MOST_PARTS = 256
MOST_SIZE = 1 << 16
MOST_ROWS = 1 << 20
#: Pixels times channels of an image, and bytes of a job's input or output region.
MOST_VALUES = 1 << 26
MOST_REGION = 1 << 30
MOST_METADATA = 1 << 16
_MOST_COUNT = 1 << 60
_MOST_FACTOR = 1e30


def _wrong(what: str, wanted: str, value: object) -> ProgramError:
    return ProgramError(f"{what} must be {wanted}, not {short(value)}")


def text(what: str, value: Any) -> str:
    """At most 4096 characters."""
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise _wrong(what, f"a text of at most {MOST_TEXT} characters", value)
    return value


def maybe(check: Check) -> Check:
    """``None``, or what ``check`` takes."""
    return lambda what, value: None if value is None else check(what, value)


def whole(low: int, high: int) -> Check:
    """An integer from ``low`` to ``high``."""
    def check(what: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(what, f"an integer from {low} to {high}", value)
        return value

    return check


def real(low: float, high: float) -> Check:
    """A number from ``low`` to ``high``."""
    def check(what: str, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise _wrong(what, f"a number from {low:g} to {high:g}", value)
        return float(value)

    return check


def truth(what: str, value: Any) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise _wrong(what, "true or false", value)
    return value


def several(check: Check, most: int, least: int = 0) -> Check:
    """A list, as a tuple."""
    def checked(what: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            count = f"{most}" if least == most else f"{least} to {most}"
            raise _wrong(what, f"a list of {count}", value)
        return tuple(check(f"{what}[{i}]", item) for i, item in enumerate(value))

    return checked


def reals(what: str, value: Any) -> npt.NDArray[np.float64]:
    """Finite numbers, one a channel."""
    return np.array(several(real(-_MOST_FACTOR, _MOST_FACTOR), MOST_SIZE)(what, value), np.float64)


def scale(what: str, value: Any) -> float | npt.NDArray[np.float64]:
    """One number, or one a channel."""
    many = isinstance(value, list)
    return reals(what, value) if many else real(-_MOST_FACTOR, _MOST_FACTOR)(what, value)


def made(kind: type, checks: Mapping[str, Check]) -> Check:
    """An object of the dataclass ``kind`` whose fields pass ``checks``."""
    fields = dataclasses.fields(kind)
    assert {f.name for f in fields} == checks.keys(), kind
    required = {
        f.name for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def check(what: str, value: Any) -> Any:
        given = mapping(what, value, checks.keys(), required)
        return kind(**{k: checks[k](f"{what}.{k}", item) for k, item in given.items()})

    return check


def mapping(what: str, value: Any, known: Any, required: Any) -> dict[str, Any]:
    """A JSON object with ``required`` keys and no others than ``known``."""
    if not isinstance(value, dict):
        raise _wrong(what, "an object", value)
    for key in value:
        if key not in known:
            raise ProgramError(f"{what} has an unknown field {short(key)}")
    for key in sorted(required):
        if key not in value:
            raise ProgramError(f"{what} lacks the field {key!r}")
    return value


def record(checks: Mapping[str, Check]) -> Check:
    """A JSON object with exactly these fields."""
    def check(what: str, value: Any) -> dict[str, Any]:
        row = mapping(what, value, checks, checks)
        return {key: checks[key](f"{what}.{key}", item) for key, item in row.items()}

    return check


def metadata(what: str, value: Any) -> dict[str, Any]:
    """Free facts, of which a few are used."""
    facts = mapping(what, value, value, ())
    if len(json.dumps(facts)) > MOST_METADATA:
        raise ProgramError(f"{what} takes more than {MOST_METADATA} bytes")
    for key, check in _FACTS.items():
        if key in facts:
            check(f"{what}.{key}", facts[key])
    return facts


def arch(what: str, value: Any) -> ArchConfig:
    """The core; its own errors name the setting."""
    return ArchConfig.from_dict(mapping(what, value, value, ()))


_size = whole(1, MOST_SIZE)
_bits = whole(8, 16)
_word = whole(0, (1 << 32) - 1)

_IMAGE: dict[str, Check] = {
    "name": text, "shape": several(_size, 3, 3), "preprocess": maybe(text), "channels_last": truth,
}
_IMAGE_INPUT = made(ImageSpec, _IMAGE)
_INPUT = made(InputSpec, {
    **_IMAGE,
    "patch": several(_size, 2, 2),
    "prefix": whole(0, MOST_SIZE),
    "rows": whole(1, MOST_ROWS),
    "multiplier": reals,
    "offset": reals,
    "blocks": several(several(whole(0, MOST_ROWS), 2, 2), MOST_ROWS),
    "strides": maybe(several(_size, 2, 2)),
    "pads": several(whole(0, MOST_SIZE), 4, 4),
})
_OUTPUT = made(OutputSpec, {
    "name": text,
    "rows": whole(1, MOST_ROWS),
    "channels": whole(1, MOST_ROWS),
    "bits": _bits,
    "scale": scale,
    "zero_point": whole(-(1 << 16), 1 << 16),
    "factor": scale,
    "shift": scale,
    "offset": whole(0, MOST_REGION),
    "shape": several(whole(1, MOST_VALUES), 16),
    "start": whole(0, MOST_VALUES),
    "grid": maybe(several(whole(1, MOST_VALUES), 16)),
    "steps": maybe(several(whole(-MOST_VALUES, MOST_VALUES), 16)),
    "dtype": text,
})
_TENSOR = made(TensorInfo, {
    "name": text,
    "rows": whole(0, MOST_ROWS),
    "channels": whole(0, MOST_ROWS),
    "bits": _bits,
    "address": _word,
    "stride": _word,
    "first_row": whole(0, MOST_ROWS),
    "first_channel": whole(0, MOST_ROWS),
})
_LAYER = made(LayerInfo, {
    "name": text,
    "instruction": _word,
    "macs": whole(0, _MOST_COUNT),
    "tensor": _TENSOR,
    "stream_bytes": _word,
})
_TASK = made(TaskSpec, {"name": text, "count": whole(1, 1 << isa.TASK_BITS)})

#: Of the free facts, those that are read.
_FACTS: dict[str, Check] = {
    "source": lambda what, value: {
        key: text(f"{what}.{key}", item) for key, item in mapping(what, value, value, ()).items()
    },
    "token_memory_bytes": _word,
    "macs_left_out": whole(0, _MOST_COUNT),
    "labels": several(text, MOST_SIZE),
    "quantisers": record({
        "kept": _word, "left_out": _word,
        "changed": several(
            record(dict.fromkeys(("tensor", "file", "core", "why"), text)), MOST_SIZE
        ),
    }),
}
#: Every field of the header, but the table of sections.
FIELDS: dict[str, Check] = {
    "model": text,
    "arch": arch,
    "arch_hash": text,
    "instruction_count": whole(1, 1 << 24),
    "input": _INPUT,
    "outputs": several(_OUTPUT, MOST_OUTPUTS, 1),
    "tasks": several(_TASK, isa.TASKS),
    "batch": whole(1, isa.TASKS),
    "layers": several(_LAYER, 1 << 24),
    "metadata": metadata,
}


def _place(what: str, value: Any) -> str:
    if value not in ("core", "host"):
        raise _wrong(what, "'core' or 'host'", value)
    return value


_PART: dict[str, Check] = {
    "place": _place,
    "reads": several(text, MOST_OUTPUTS, 1),
    "axes": several(whole(1, 16), MOST_OUTPUTS),
    "gains": several(reals, MOST_OUTPUTS),
    "offsets": several(reals, MOST_OUTPUTS),
    "why": several(text, MOST_SIZE),
    "macs": whole(0, _MOST_COUNT),
}
_TENSOR_INPUT = made(TensorSpec, {
    "name": text, "shape": several(_size, 16), "dtype": text,
})


def _either(what: str, value: Any) -> ImageSpec | TensorSpec:
    check = _TENSOR_INPUT if isinstance(value, dict) and "dtype" in value else _IMAGE_INPUT
    spec = check(what, value)
    if math.prod(spec.shape) > MOST_VALUES:
        raise ProgramError(f"{what} of {spec.shape} has more than {MOST_VALUES:,} values")
    return spec


#: Those of an application in parts, whose sections are programs and ONNX models.
APPLICATION: dict[str, Check] = {
    "model": text,
    "inputs": several(_either, MOST_OUTPUTS, 1),
    "outputs": several(text, MOST_OUTPUTS, 1),
    "parts": several(record(_PART), MOST_PARTS, 1),
    "metadata": metadata,
}
_SECTION: dict[str, Check] = {"name": text, "size": whole(0, 1 << 40), "sha256": text}


def sections(count: int) -> Check:
    """The table of so many sections."""
    return several(record(_SECTION), count, count)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a header, without what JSON itself does not forbid.

    Raises
    ------
    ProgramError
        For anything but an object, a name that comes twice, a number that is none.
    """
    def no_number(name: str) -> float:
        raise ProgramError(f"the header holds {name}, which is no number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
            raise ProgramError(f"the header has the field {short(twice)} twice")
        return found

    try:
        header = json.loads(data, parse_constant=no_number, object_pairs_hook=once)
    # RecursionError: brackets nested a thousand deep; ValueError: also 5,000 digits.
    except (ValueError, RecursionError) as error:
        if isinstance(error, ProgramError):
            raise
        raise ProgramError("the header is no JSON that can be read") from error
    known = {*_schema(header), "sections"}
    return mapping("the header", header, known, known)


def _schema(header: Any) -> dict[str, Check]:
    return APPLICATION if isinstance(header, dict) and "parts" in header else FIELDS


def checked(header: Mapping[str, Any]) -> dict[str, Any]:
    """The values of every field, but ``sections``: of a program, or of an application in parts.

    Raises
    ------
    ProgramError
        For a wrong type, or a value out of its bounds; the message names the field.
    """
    return {key: check(key, header[key]) for key, check in _schema(header).items()}


def check_sizes(spec: InputSpec, outputs: tuple[OutputSpec, ...], depth: int, batch: int) -> None:
    """Refuse what would take too much memory before anything of it is allocated.

    Raises
    ------
    ProgramError
        For images of more than 64 Mi values, or regions of more than 1 GiB.
    """
    if math.prod(spec.shape) > MOST_VALUES:
        raise ProgramError(f"the input of {spec.shape} has more than {MOST_VALUES:,} values")
    sizes = {"input": spec.size(depth), **{
        f"output {out.name[:80]!r}": out.offset + out.size(depth) for out in outputs
    }}
    for name, size in sizes.items():
        if batch * size > MOST_REGION:
            raise ProgramError(f"the {name} takes {batch * size:,} bytes; at most {MOST_REGION:,}")
    names = [out.name for out in outputs]
    if len(set(names)) != len(names):
        raise ProgramError("two outputs have the same name")

