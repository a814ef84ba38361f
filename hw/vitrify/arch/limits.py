"""What a core can execute: legal values of every field, as far as its architecture has them."""

from __future__ import annotations

from .config import ArchConfig
from .errors import ProgramError
from .isa import FORMATS, Instruction
from .modes import Opcode, Output, RowScale, Stationary, Stats, Transform


def opcodes(arch: ArchConfig) -> list[Opcode]:
    """Opcodes that a core knows."""
    lacking = {Opcode.ROUTE: not arch.experts, Opcode.PATTERN: not arch.patterns}
    return [opcode for opcode in FORMATS if not lacking.get(opcode)]


def limits(arch: ArchConfig, opcode: Opcode) -> dict[str, tuple[int, int]]:
    """``{field: (least, most)}`` on a core; those that its architecture lowers included.

    A core checks them in front of its engines, golden machine and program do as well.
    """
    found = {f.name: (f.low, f.max) for f in FORMATS[opcode].fields}

    def lower(name: str, most: int) -> None:
        low, high = found[name]
        found[name] = (low, min(high, most))

    if opcode is Opcode.MATMUL:
        lower("rows", arch.max_rows)
        lower("k_last", arch.depth)
        lower("c_last", arch.nibble_width)
        for mechanism, field, least in (
            (arch.nibbles, "nibbles", 1),
            (arch.stored_weights, "stationary", Stationary.STORED),
            (arch.addends, "output", Output.ADD8),
            (arch.products, "transform", Transform.PRODUCT),
            (arch.row_sums, "stats", Stats.RMS), (arch.row_sums, "row_scale", RowScale.STATISTIC),
        ):
            if not mechanism:
                lower(field, least - 1)
        if arch.experts:
            lower("expert", arch.experts - 1)
        else:
            lower("expert_rows", 0)
            lower("gate", 0)
    elif opcode is Opcode.ROUTE:
        lower("experts", arch.experts)
    return found


def check(arch: ArchConfig, instruction: Instruction) -> None:
    """Refuse what the core ``arch`` refuses.

    Raises
    ------
    ProgramError
        For a field out of range; the message names it.
    """
    opcode, values = instruction.opcode, instruction.values
    for name, (low, high) in limits(arch, opcode).items():
        value = values[name]
        if not low <= value <= high:
            raise ProgramError(
                f"{opcode.name}.{name} must be {low} to {high} on arch {arch.name!r}, not {value}"
            )
    if opcode is Opcode.ROUTE and values["choices"] > values["experts"]:
        raise ProgramError(f"ROUTE to {values['choices']} of {values['experts']} experts")
