"""Which instructions a core executes: its mechanisms, and what fields exclude each other."""

from __future__ import annotations

from collections.abc import Mapping

from . import limits
from .config import ArchConfig
from .errors import ProgramError
from .isa import NO_PATTERN, Instruction
from .modes import (
    ADDING_OUTPUTS,
    WITH_PARAMETERS,
    Opcode,
    Output,
    RowScale,
    Stationary,
    Stats,
    Transform,
)

#: Values of fields; a MATMUL meets a condition if it has one of the values of every field.
Condition = Mapping[str, tuple[int, ...]]
#: Stands for every value but zero.
NONZERO: tuple[int, ...] = ()

#: Attribute of the architecture: what needs it, and how a MATMUL shows that it wants it.
_NEEDS: dict[str, tuple[str, tuple[Condition, ...]]] = {
    "stored_weights": ("tiles STORED in the token memory",
                       ({"stationary": (Stationary.STORED,)},)),
    "addends": ("output ADD8", ({"output": (Output.ADD8,)},)),
    "products": ("transform PRODUCT", ({"transform": (Transform.PRODUCT,)},)),
    "row_sums": ("statistics RMS or SUM, or rows divided by sums that are not those of EXP2", (
        {"stats": (Stats.RMS, Stats.SUM)},
        {"row_scale": (RowScale.STATISTIC,)},
        {"row_scale": NONZERO,
         "transform": tuple(mode for mode in Transform if mode is not Transform.EXP2)},
    )),
    "nibbles": ("weights of 4 bits", ({"nibbles": NONZERO},)),
    "experts": ("rows or gates of experts", ({"gate": NONZERO}, {"expert_rows": NONZERO})),
}

#: What a MATMUL may not have together.
_CONTRADICTIONS: tuple[tuple[str, Condition], ...] = (
    ("has either gate or row_scale", {"gate": NONZERO, "row_scale": NONZERO}),
    ("has either gate or add_source", {"gate": NONZERO, "add_source": NONZERO}),
    ("reads stat_src either in its transform or for row_scale",
     {"row_scale": (RowScale.STATISTIC,), "transform": (Transform.NORM, Transform.EXP2)}),
    ("has either a maximum with old values or an activation",
     {"combine": NONZERO, "output": ADDING_OUTPUTS, "activation": NONZERO}),
    ("is repeated only if its tiles are ROWS or COLUMNS of the token memory",
     {"repeats": NONZERO, "stationary": WITH_PARAMETERS}),
    *(("follows a load word by word only if it is not repeated",
       {"repeats": NONZERO, field: NONZERO}) for field in ("load_stream", "epi_load_stream")),
    *(("of an expert cannot be repeated", {"repeats": NONZERO, field: NONZERO})
      for field in ("expert_rows", "gate")),
    *(("follows a load word by word only if it streams all words of rows in order",
       {"load_stream": NONZERO, field: NONZERO}) for field in ("tapped", "k_step")),
)
#: The same of a core whose token memory has no tiles of nibbles, and of others.
_STREAMED_NIBBLES: Condition = {
    "nibbles": NONZERO,
    "stationary": tuple(source for source in Stationary if source is not Stationary.WEIGHTS),
}
_KEPT_NIBBLES: Condition = {
    "nibbles": NONZERO,
    "stationary": tuple(source for source in Stationary if source not in WITH_PARAMETERS),
}
#: The same with two c tiles in a pass.
_IN_PAIRS: tuple[tuple[str, Condition], ...] = (
    ("takes two c tiles at once, which stream the same words",
     {"nibbles": NONZERO, "k_step": NONZERO}),
)


def _in_thirds(arch: ArchConfig) -> tuple[tuple[str, Condition], ...]:
    """The same with c tiles of 4-bit weights that are wider than others."""
    return (
        (f"has more than {arch.width} columns in a tile only with weights of 4 bits",
         {"nibbles": (0,), "c_last": tuple(range(arch.width + 1, arch.nibble_width + 1))}),
        ("has weights of 4 bits or c tiles that stream words of their own",
         {"nibbles": NONZERO, "k_step": NONZERO}),
        ("multiplies weights of 4 bits by signed bytes, which those of EXP2 are not",
         {"nibbles": NONZERO, "transform": (Transform.EXP2,)}),
    )


def _contradictions(arch: ArchConfig) -> tuple[tuple[str, Condition], ...]:
    found = (*_CONTRADICTIONS, (
        ("has weights of 4 bits only if they are in its stream or STORED", _KEPT_NIBBLES)
        if arch.stored_nibbles else
        ("has weights of 4 bits only in its stream", _STREAMED_NIBBLES)))
    if arch.nibble_thirds:
        return found + _in_thirds(arch)
    return found + (_IN_PAIRS if arch.nibble_tiles > 1 else ())


def forbidden(arch: ArchConfig) -> list[Condition]:
    """Conditions that no MATMUL may meet, without those that fields within limits cannot meet.

    Beside them, :func:`check` compares ``k_tiles`` with the taps, and gains with their memory.
    """
    ends = {name: (value, value) for name, value in NO_PATTERN.items()}
    ends |= limits.limits(arch, Opcode.MATMUL)
    if arch.patterns:
        ends |= limits.limits(arch, Opcode.PATTERN)
    absent = [condition for name, (_, wants) in _NEEDS.items() if not getattr(arch, name)
              for condition in wants]

    def possible(name: str, values: tuple[int, ...]) -> bool:
        low, high = ends[name]
        return any(low <= value <= high for value in values) if values else (low, high) != (0, 0)

    return [condition for condition in (*(c for _, c in _contradictions(arch)), *absent)
            if all(possible(name, values) for name, values in condition.items())]


def _meets(op: Instruction, condition: Condition) -> bool:
    return all(op.values[name] in values if values else op.values[name] != 0
               for name, values in condition.items())


def check(arch: ArchConfig, op: Instruction) -> None:
    """Refuse an instruction (a MATMUL with its PATTERN) that ``arch`` does not execute.

    Raises
    ------
    ProgramError
        Naming what is missing or contradicts itself.
    """
    if op.opcode is Opcode.PATTERN and not arch.patterns:
        raise ProgramError(_lacks(arch, "patterns", "a PATTERN"))
    if op.opcode is Opcode.ROUTE and not arch.experts:
        raise ProgramError(_lacks(arch, "experts", "a ROUTE"))
    if op.opcode is Opcode.MATMUL:
        for problem in _problems(arch, op):
            raise ProgramError(f"a MATMUL {problem}")
        for name, what in lacking(arch, op):
            raise ProgramError(_lacks(arch, name, what))
    limits.check(arch, op)


def lacking(arch: ArchConfig, op: Instruction) -> list[tuple[str, str]]:
    """Mechanisms that a MATMUL needs and ``arch`` is without, and what it needs them for."""
    return [
        (name, what) for name, (what, wants) in _NEEDS.items()
        if not getattr(arch, name) and any(_meets(op, condition) for condition in wants)
    ]


def _lacks(arch: ArchConfig, name: str, what: str) -> str:
    return f"arch {arch.name!r} is without {name!r}, which {what} would need"


def _problems(arch: ArchConfig, op: Instruction) -> list[str]:
    """What contradicts itself."""
    found = [problem for problem, condition in _contradictions(arch) if _meets(op, condition)]
    if op.tapped and op.k_tiles != op.taps_y * op.taps_x * op.tap_k:
        found.append(
            f"of {op.taps_y} x {op.taps_x} taps of {op.tap_k} k tiles cannot have {op.k_tiles}")
    if op.load_gain and (op.gain_words or op.k_tiles) > arch.max_dim_words:
        found.append(f"has more gains than the {arch.max_dim_words} words that there is room for")
    return found
