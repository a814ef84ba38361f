"""Gains and tables: two halves each, filled by the weight streams, used until the next filling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vitrify.arch import access
from vitrify.arch.isa import Instruction, Transform

from .order import MATMUL, Moments, implies


class SlotFault(NamedTuple):
    """A MATMUL that fills or uses a half against an ``earlier`` one (or itself)."""

    name: str
    slot: int
    earlier: int
    what: str
    missing: str


def _gain_words(op: Instruction) -> int:
    """Words of gains that a MATMUL uses."""
    return int(access.streamed(op).row_words(op.c_tiles - 1)[-1]) + 1


class _Halves:
    """Fillings ``(MATMUL, size)`` and uses of the two halves of a memory."""

    def __init__(self) -> None:
        self.loads: tuple[list[tuple[int, int]], ...] = ([], [])
        self.uses: tuple[list[int], ...] = ([], [])


class Slots:
    """Follows the MATMULs of a program."""

    def __init__(self) -> None:
        self._moments: list[Moments] = []
        self._halves = {"gain": _Halves(), "table": _Halves()}

    def matmul(self, op: Instruction, moments: Moments) -> Iterator[SlotFault]:
        """What is wrong with the halves that ``op`` fills or uses.

        They must be filled by somebody who is executed whenever ``op`` is, and not as long as an
        earlier MATMUL may still use them.
        """
        self._moments.append(moments)
        norm = op.transform in (Transform.NORM, Transform.SCALE)
        for name, loads, slot, uses, size, finished in (
            ("gain", op.load_gain, op.gain_slot, norm, _gain_words(op), moments.gains.fetch),
            ("table", op.load_table, op.table_slot, bool(op.activation), 1,
             moments.table.epilogue // MATMUL),
        ):
            halves = self._halves[name]
            if loads:
                for other in halves.uses[slot]:
                    if other >= finished and self._may_follow(other, moments.number):
                        yield SlotFault(name, slot, other, "may overwrite the",
                                        "only MATMULs before the last one are waited for")
                sent = (op.gain_words or op.k_tiles) if name == "gain" else 1
                halves.loads[slot].append((moments.number, sent))
            if uses:
                halves.uses[slot].append(moments.number)
                yield from self._filled(moments, name, slot, size)

    def _filled(
        self, moments: Moments, name: str, slot: int, size: int
    ) -> Iterator[SlotFault]:
        for other, count in reversed(self._halves[name].loads[slot]):
            if not implies(moments.key, self._moments[other].key):
                yield SlotFault(name, slot, other, "counts on the",
                                "that is left out if its expert has no rows")
                return
            if count >= size:
                return
        yield SlotFault(name, slot, moments.number, "needs the", "nobody has filled it")

    def _may_follow(self, other: int, number: int) -> bool:
        """Whether MATMUL ``number`` may be executed directly behind ``other``."""
        keys = [moment.key for moment in self._moments[other : number + 1]]
        return not any(
            implies(keys[-1], key) or implies(keys[0], key) for key in keys[1:-1]
        )
