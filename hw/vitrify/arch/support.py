"""Which instructions a core executes: its mechanisms, and what fields exclude each other."""

from __future__ import annotations

from . import limits
from .config import ArchConfig
from .errors import ProgramError
from .isa import Instruction
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

#: Attribute of the architecture: what a MATMUL wants that needs it.
_NEEDS = {
    "stored_weights": ("tiles STORED in the token memory",
                       lambda op: op.stationary == Stationary.STORED),
    "addends": ("output ADD8", lambda op: op.output == Output.ADD8),
    "products": ("transform PRODUCT", lambda op: op.transform == Transform.PRODUCT),
    "row_sums": ("statistics RMS or SUM, or rows divided by sums that are not those of EXP2",
                 lambda op: op.stats in (Stats.RMS, Stats.SUM)
                 or op.row_scale == RowScale.STATISTIC
                 or (op.row_scale and op.transform != Transform.EXP2)),
    "experts": ("rows or gates of experts", lambda op: op.gate or op.expert_rows),
}


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
        for name, (what, wants) in _NEEDS.items():
            if not getattr(arch, name) and wants(op):
                raise ProgramError(_lacks(arch, name, what))
    limits.check(arch, op)


def _lacks(arch: ArchConfig, name: str, what: str) -> str:
    return f"arch {arch.name!r} is without {name!r}, which {what} would need"


def _problems(arch: ArchConfig, op: Instruction) -> list[str]:
    """What contradicts itself."""
    found = []
    if op.gate and op.row_scale:
        found.append("has either gate or row_scale")
    if op.gate and op.add_source:
        found.append("has either gate or add_source")
    if op.row_scale == RowScale.STATISTIC and op.transform in (Transform.NORM, Transform.EXP2):
        found.append("reads stat_src either in its transform or for row_scale")
    if op.combine and op.output in ADDING_OUTPUTS and op.activation:
        found.append("has either a maximum with old values or an activation")
    if op.tapped and op.k_tiles != op.taps_y * op.taps_x * op.tap_k:
        found.append(
            f"of {op.taps_y} x {op.taps_x} taps of {op.tap_k} k tiles cannot have {op.k_tiles}")
    if op.repeats:
        found += _not_repeated(op)
    if op.load_gain and (op.gain_words or op.k_tiles) > arch.max_dim_words:
        found.append(f"has more gains than the {arch.max_dim_words} words that there is room for")
    if op.load_stream and (op.tapped or op.k_step):
        found.append("follows a load word by word only if it streams all words of rows in order")
    return found


def _not_repeated(op: Instruction) -> list[str]:
    """What a MATMUL that is repeated may not do."""
    found = []
    if op.stationary in WITH_PARAMETERS:
        found.append("is repeated only if its tiles are ROWS or COLUMNS of the token memory")
    if op.load_stream or op.epi_load_stream:
        found.append("follows a load word by word only if it is not repeated")
    if op.expert_rows or op.gate:
        found.append("of an expert cannot be repeated")
    return found
