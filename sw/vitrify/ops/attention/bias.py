"""The bias of scores: tables in the token memory that the epilogue adds."""

from __future__ import annotations

from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Region
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import At
from vitrify.program import to_words
from vitrify.quant.tensors import QTensor

from .integer import QAttention

#: All tables stay in the token memory if they take this part of it at most.
_SHARE = 8
#: Otherwise each comes when it is needed, while the one before is in use.
_BUFFERS = 2


class ScoreBias:
    """The tables of op number ``step``, one for each row group and head that has its own.

    Equal ones, such as those of all windows that no border cuts, are one.
    """

    def __init__(self, state: Lowering, op: QAttention, step: int) -> None:
        if not (state.arch.addends and state.arch.patterns):
            raise CapacityError(
                f"attention {op.name!r} adds a bias or a mask to its scores, and arch "
                f"{state.arch.name!r} is without 'addends' and 'patterns'; choose an "
                f"architecture that has them"
            )
        assert op.bias is not None
        self._state, self._op = state, op
        self._queries, keys = op.bias.shape[2:]
        count = len({table.tobytes() for run in op.bias for table in run})
        words = count * self._queries * -(-keys // state.arch.depth)
        self._whole = words * _SHARE <= state.arch.token_words
        held = count if self._whole else min(count, _BUFFERS)
        self._held = [self._place(i, keys, step) for i in range(held)]
        #: What lies where, and the latest MATMUL that adds it.
        self._keys: list[bytes | None] = [None] * held
        self._users: list[int | None] = [None] * held
        self._next = 0

    def _place(self, number: int, keys: int, step: int) -> Placed:
        tensor = QTensor(f"{self._op.name}.bias{number}", self._queries, keys, 8, 1.0)
        placed = self._state.place(tensor, apart=[self._op.q], beside=[self._op.k])
        self._state.release_later(tensor.name, step)
        return placed

    def take(self, group: int, head: int, start: int) -> At:
        """Where the rows from query ``start`` on are of a table that the next MATMUL adds."""
        table = self._op.bias_of(group, head)
        assert table is not None
        key = table.tobytes()
        if key in self._keys:
            slot = self._keys.index(key)
        else:
            slot, self._next = self._next, (self._next + 1) % len(self._held)
            builder = self._state.builder
            builder.load(
                self._held[slot], Region.PROGRAM,
                builder.image.add(to_words(table, self._state.arch.depth)),
                after=self._users[slot],
            )
            self._keys[slot] = key
        self._users[slot] = len(self._state.builder.matmuls)
        return At(self._held[slot], start)
