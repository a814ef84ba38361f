"""Where the tensors of one compilation are: places, statistics entries, lifetimes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.quant.graph import QuantGraph
from vitrify.quant.tensors import QTensor

from .alloc import Allocator, PlacementError
from .placement import Placed, Spread
from .strategy import PlacementStrategy, Separation


def pair_name(low: str, high: str) -> str:
    """Of the block that holds two tensors as planes."""
    return f"{low} * {high}"


def _in_turn(name: str) -> str:
    """Of the block of a tensor's other place."""
    return f"{name} in turn"


class TensorMemory:
    """Places tensors as ops need them and frees them behind their last use.

    The tensors of ``graph`` hold the rows of ``images`` images, one behind the other.
    """

    def __init__(
        self, graph: QuantGraph, arch: ArchConfig, strategy: PlacementStrategy, images: int = 1
    ) -> None:
        self.graph = graph
        self.images = images
        self.arch = arch
        self.strategy = strategy
        self.memory = Allocator(arch)
        self.placed: dict[str, Placed] = {}
        self._owner: dict[str, str] = {}
        #: The other place of a tensor that has two (:meth:`turn`).
        self._twins: dict[str, Placed] = {}
        #: Tensors that are there, or were.
        self._known: set[str] = set()
        #: Entries of the row statistics memory that are taken.
        self._stat_used = np.zeros(arch.stat_rows, bool)
        self._stat_shared: dict[str, tuple[int, int]] = {}
        self._groups: dict[str, int] = {}
        self._last: dict[str, int] = {}
        #: Words that were taken at the same time by each step.
        self._taken: dict[int, int] = {}
        #: Tensors that are read while this one is: a bank of their own avoids stalls.
        self._beside: dict[str, Sequence[str]] = {}
        #: Logits of gated heads: the router reads them where others leave it the banks.
        self._logits: set[str] = set()
        #: Low and high plane of the pair that a tensor belongs to.
        self._planes: dict[str, tuple[str, str]] = {}
        for i, op in enumerate(graph.ops):
            for name in (*op.sources(), *op.results()):
                self._last[name] = i
            for name, groups in op.groups().items():
                known = self._groups.setdefault(name, groups)
                assert known == groups, f"{op.name}: {name} is laid out in {known} groups"
            self._logits |= set(op.routed_by())
            for pair in op.pairs():
                known_pairs = {self._planes.setdefault(name, pair) for name in pair}
                assert known_pairs == {pair}, f"{op.name}: {pair} are planes of other pairs"
                self._last[pair_name(*pair)] = i
            if op.streamed():
                self._beside |= dict.fromkeys(op.streamed(), op.stationary())
                self._beside |= dict.fromkeys(op.stationary(), op.streamed())
        for name in graph.outputs.values():
            self._last[name] = len(graph.ops)

    def spread(self, name: str, channels: int) -> Spread:
        """How a tensor's channels lie in a row."""
        return Spread(channels, self._groups.get(name, 1), self.arch.depth)

    def spread_of(self, name: str) -> Spread:
        """How the channels of a tensor of the graph lie in a row."""
        return self.spread(name, self.graph.tensors[name].channels)

    def rows(self, name: str) -> int:
        """Rows of a tensor of the graph."""
        return self.graph.tensors[name].rows

    def image_rows(self, name: str) -> int:
        """Rows of one image of it."""
        return self.rows(name) // self.images

    def statistics(self, rows: int, what: str) -> int:
        """Reserve entries of the row statistics memory."""
        # Free entries before each: where their number grows by ``rows``, there are as many.
        free = np.concatenate([[0], np.cumsum(~self._stat_used)])
        fits = np.flatnonzero(free[rows:] - free[:-rows] == rows)
        if not len(fits):
            raise CapacityError(
                f"{what} needs {rows} row statistics and arch {self.arch.name!r} has "
                f"{self.arch.stat_rows}, of which {self._stat_used.sum()} are taken: raise "
                f"stat_rows, or use fewer tokens"
            )
        base = int(fits[0])
        self._stat_used[base : base + rows] = True
        return base

    def shared_statistics(self, key: str, rows: int) -> int:
        """Entries that every op with the same key reuses (softmax rows)."""
        known = self._stat_shared.get(key)
        if known is None or known[1] < rows:
            known = self._stat_shared[key] = (self.statistics(rows, key), rows)
        return known[0]

    def release_later(self, name: str, step: int) -> None:
        """Free a temporary tensor behind op ``step``."""
        self._last[name] = step

    def place(
        self, tensor: QTensor, *, apart: Iterable[str] = (), beside: Iterable[str] = (),
        last: bool = False,
    ) -> Placed:
        """The place of a tensor, allocated at its first use.

        ``apart`` are tensors that row fetch or epilogue use together with it, ``beside`` those
        that the tile loader reads meanwhile.  ``last``: at the far end of the memory.
        """
        # A plane may have its place before, by the other one.
        self._known.add(tensor.name)
        if tensor.name in self.placed:
            return self.placed[tensor.name]
        spread = self.spread(tensor.name, tensor.channels)
        wide = tensor.bits == 16
        avoid: list[str] = {
            Separation.ALL: [*apart, *beside], Separation.RESIDUAL: [*apart], Separation.NONE: [],
        }[self.strategy.separation]
        owners = [self._owner.get(name, name) for name in avoid]
        owners += [_in_turn(owner) for owner in owners if owner in self._twins]
        if tensor.name in self._planes:
            self._place_pair(*self._planes[tensor.name], owners)
            return self.placed[tensor.name]
        block = self.memory.place(
            tensor.name, tensor.rows * spread.words, wide=wide, apart=owners,
            last=last or tensor.name in self.strategy.far,
        )
        placed = Placed(tensor.name, tensor.rows, spread, block.address, wide, spread.words)
        self.placed[tensor.name] = placed
        self._owner[tensor.name] = tensor.name
        return placed

    def was_placed(self, name: str) -> bool:
        """Whether a tensor has had a place by now, even if it is gone."""
        return name in self._known

    def pair(self, low: str, high: str) -> Placed:
        """Two tensors of a pair as one of double width."""
        return self.placed[pair_name(low, high)]

    def _place_pair(self, low: str, high: str, apart: list[str]) -> None:
        """Both planes, between whose words lies one bank."""
        name, tensor, spread = pair_name(low, high), self.graph.tensors[low], self.spread_of(low)
        block = self.memory.place(
            name, tensor.rows * spread.words, wide=True, apart=apart, in_bank=True,
            last=name in self.strategy.far,
        )
        both = Placed(
            name, tensor.rows, spread, block.address, True, spread.words, planes=(low, high)
        )
        self.placed[name] = both
        for plane, address in zip(
            (low, high), memmap.pair_banks(self.arch, block.address), strict=True
        ):
            self.placed[plane] = replace(
                both, name=plane, address=address, wide=False, planes=()
            )
        self._owner |= dict.fromkeys((name, low, high), name)

    def place_near(self, name: str, *, apart: Iterable[str] = ()) -> Placed:
        """:meth:`place` by name, away from the residual stream and ``apart``."""
        wide = [p.name for p in self.placed.values() if p.wide and p.name not in self._logits]
        if name in self._logits:
            return self.place(self.graph.tensors[name], beside=wide)
        return self.place(
            self.graph.tensors[name], apart=[*wide, *apart], beside=self._beside.get(name, ())
        )

    def buffer(self, name: str, of: str, rows: int, until: int) -> Placed:
        """A buffer for ``rows`` rows at a time of tensor ``of``, freed behind op ``until``."""
        tensor = replace(self.graph.tensors[of], name=name, rows=rows)
        wide = [placed.name for placed in self.placed.values() if placed.wide]
        placed = self.place(tensor, apart=wide)
        self.release_later(name, until)
        return placed

    def with_statistics(self, placed: Placed) -> Placed:
        """The same tensor with statistics entries (reserved once)."""
        known = self.placed[placed.name]
        if known.stat < 0:
            base = self.statistics(known.rows, f"tensor {placed.name!r}")
            known = self.placed[placed.name] = replace(known, stat=base)
        return known

    def alias(self, name: str, of: str) -> Placed:
        """Give tensor ``name`` the memory of ``of``, which it overwrites piece by piece."""
        placed = replace(self.placed[of], name=name)
        self.placed[name] = placed
        self._owner[name] = self._owner[of]
        return placed

    def turn(self, name: str, apart: str) -> tuple[Placed | None, Placed]:
        """Where the values of a tensor are, and its place from now on, in other banks.

        What streams past the weights meanwhile is ``apart`` from both.
        Without room for two, it stays where it is, and the first is ``None``.
        """
        old = self.placed[name]
        twin = self._twins.get(name)
        if twin is None:
            try:
                block = self.memory.place(
                    _in_turn(name), old.rows * old.stride, wide=old.wide,
                    apart=[name, self._owner[apart]],
                )
            except PlacementError:
                return None, old
            twin = replace(old, address=block.address)
        self._twins[name] = old
        self.placed[name] = replace(twin, stat=old.stat)
        return old, self.placed[name]

    def dies_at(self, name: str, step: int) -> bool:
        """Whether op ``step`` is the last one to use a tensor."""
        return self._last[name] <= step

    def free_from(self, step: int) -> int:
        """Words that no op from number ``step`` on has taken, of a network that was lowered."""
        taken = max((words for at, words in self._taken.items() if at >= step), default=0)
        return self.arch.token_words - taken

    def release_dead(self, step: int) -> None:
        """Free every tensor whose last use was op ``step``."""
        self._taken[step] = self.memory.most_words()
        for name in [n for n in self.placed if self._last.get(n, -1) <= step]:
            owner, placed = self._owner.pop(name), self.placed.pop(name)
            if name == owner and placed.stat >= 0:
                self._stat_used[placed.stat : placed.stat + placed.rows] = False
            if owner not in self._owner.values():
                self.memory.release(owner)
                if self._twins.pop(owner, None) is not None:
                    self.memory.release(_in_turn(owner))
