"""The bias of scores: tables in the token memory that the epilogue adds."""

from __future__ import annotations

from vitrify.arch.errors import CapacityError
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import At
from vitrify.quant.tensors import Int8, QTensor

from .integer import QAttention

#: All tables stay in the token memory if they take this part of it at most.
_SHARE = 8
#: Otherwise each comes when it is needed, while the one before is in use.
_BUFFERS = 2


class ScoreBias:
    """The tables of op number ``step``: one for every head of every row group, or for all alike.

    Those of groups that are equal, such as all windows that no border cuts, are the same.
    """

    def __init__(self, state: Lowering, op: QAttention, step: int) -> None:
        if not (state.arch.addends and state.arch.patterns):
            raise CapacityError(
                f"attention {op.name!r} adds a bias or a mask to its scores, and arch "
                f"{state.arch.name!r} is without 'addends' and 'patterns'; choose an "
                f"architecture that has them"
            )
        assert op.bias is not None
        self._state, self._op, self._step = state, op, step
        self._queries, keys = op.bias.shape[2:]
        kinds = {run.tobytes(): number for number, run in enumerate(op.bias)}
        #: By row group, the number of one that is like it: of all alike the same.
        self._kinds = [kinds[run.tobytes()] for run in op.bias]
        words = len(kinds) * op.bias.shape[1] * self._queries * -(-keys // state.arch.depth)
        #: Whether all tables are there at the same time.
        self._whole = words * _SHARE <= state.arch.token_words
        self._buffers: dict[int, Placed] = {}
        #: What lies in each buffer, and the latest MATMUL that adds it.
        self._holds: dict[int, tuple[int, int]] = {}
        self._users: dict[int, int] = {}
        self._next = 0

    def load(self) -> None:
        """Bring all tables that stay."""
        for kind in sorted(set(self._kinds)) if self._whole else ():
            self._of_group(kind)

    def take(self, group: int, head: int, start: int) -> At:
        """Where the rows from query ``start`` on are of a table that the next MATMUL adds."""
        bias, kind = self._op.bias, self._kinds[group % len(self._kinds)]
        assert bias is not None
        head %= bias.shape[1]
        if self._whole:
            return At(self._of_group(kind), head * self._queries + start)
        found = next((slot for slot, held in self._holds.items() if held == (kind, head)), None)
        if found is None:
            found, self._next = self._next, (self._next + 1) % _BUFFERS
            if found not in self._buffers:
                self._buffers[found] = self._place(f"bias{found}", self._queries)
            self._bring(self._buffers[found], bias[kind, head], self._users.get(found))
            self._holds[found] = kind, head
        self._users[found] = len(self._state.builder.matmuls)
        return At(self._buffers[found], start)

    def _of_group(self, kind: int) -> Placed:
        """The tables of all heads, one behind the other, loaded at their first use."""
        bias, name = self._op.bias, f"bias{kind}"
        assert bias is not None
        known = self._state.was_placed(f"{self._op.name}.{name}")
        placed = self._place(name, bias.shape[1] * self._queries)
        if not known:
            self._bring(placed, bias[kind].reshape(-1, bias.shape[3]), None)
        return placed

    def _place(self, name: str, rows: int) -> Placed:
        bias, state, op = self._op.bias, self._state, self._op
        assert bias is not None
        tensor = QTensor(f"{op.name}.{name}", rows, bias.shape[3], 8, 1.0)
        # Reads of a bias take both banks of a pair: far from whatever streams, made or to come.
        placed = state.place(tensor, apart=[op.q], beside=[op.k], last=True)
        state.release_later(tensor.name, self._step)
        return placed

    def _bring(self, placed: Placed, table: Int8, after: int | None) -> None:
        self._state.load_constant(placed, table, after=after)
