"""Where the tensors of one compilation are: places, statistics entries, lifetimes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
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

    The tensors of ``graph`` hold the rows of ``images`` images, one behind the other; while ops
    run image by image (:meth:`parts`), those of one.
    """

    def __init__(
        self, graph: QuantGraph, arch: ArchConfig, strategy: PlacementStrategy, images: int = 1
    ) -> None:
        #: The whole network, and the rows of all images.
        self.job, self.job_images = graph, images
        #: What is lowered at present: ops, rows of how many images, and the first of these.
        self.graph, self.images, self.image = graph, images, 0
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
        self._groups: dict[str, int] = {}
        self._last: dict[str, int] = {}
        #: Words that were taken at the same time by each step.
        self._taken: dict[int, int] = {}
        #: Tensors that are read while this one is: a bank of their own avoids stalls.
        self._beside: dict[str, Sequence[str]] = {}
        #: Logits: the router reads them where others leave it the banks.
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
        #: Tensors made image by image that are read when all images go on together: at the far end
        #: of the memory, so that the other images find room in one piece.
        self._kept = self.kept(strategy.alone)
        #: Their places for all images, while :attr:`placed` has those of one.
        self._whole: dict[str, Placed] = {}

    def kept(self, cut: int) -> frozenset[str]:
        """Tensors that an op before number ``cut`` uses and one behind it reads, or the user."""
        made = {n for op in self.job.ops[:cut] for n in (*op.sources(), *op.results())}
        for names in [self._planes[name] for name in made if name in self._planes]:
            made |= {*names, pair_name(*names)}
        return frozenset(name for name in made if self._last[name] >= cut)

    def kept_words(self, cut: int) -> int:
        """Words that they take for all images."""
        tensors = (self.job.tensors[n] for n in self.kept(cut) if n in self.job.tensors)
        return sum(t.rows * self.spread_of(t.name).words * (t.bits // 8) for t in tensors)

    def parts(self) -> Iterator[range]:
        """Numbers of the ops to lower: of those before ``strategy.alone`` once for each image.

        Meanwhile the network is cut there: what is kept are its outputs.
        """
        alone, count, job = self.strategy.alone, self.job_images, self.job
        one = replace(
            job, ops=job.ops[:alone], outputs={name: name for name in self._kept},
            tensors={n: replace(t, rows=t.rows // count) for n, t in job.tensors.items()},
            macs={name: macs // count for name, macs in job.macs.items()},
        )
        for image in range(count if alone else 0):
            self.graph, self.images, self.image = one, 1, image
            self._known.clear()
            for placed in self._whole.values():
                self._enter(placed)
            yield range(alone)
        self.graph, self.images, self.image = job, count, 0
        self.placed |= self._whole
        self._whole, self._kept = {}, frozenset()
        yield range(alone, len(job.ops))

    @property
    def is_last(self) -> bool:
        """Whether no op that has been lowered is lowered again, for another image."""
        return self.image + self.images == self.job_images

    def _enter(self, placed: Placed) -> None:
        """A place that was found; of what is kept, for all images."""
        if placed.name in self._kept:
            self._whole[placed.name] = placed
            placed = placed.of_image(self.image, self.job_images)
        elif not placed.first:
            placed = replace(placed, first=self.image * placed.rows)
        self.placed[placed.name] = placed

    def _rows_to_place(self, tensor: QTensor) -> int:
        """Its rows, of all images if it is kept for them."""
        return tensor.rows * (self.job_images if tensor.name in self._kept else 1)

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

    def statistics(self, rows: int, what: str, *, last: bool = False) -> int:
        """Reserve entries of the row statistics memory, the first that are free or the last."""
        # Free entries before each: where their number grows by ``rows``, there are as many.
        free = np.concatenate([[0], np.cumsum(~self._stat_used)])
        fits = np.flatnonzero(free[rows:] - free[:-rows] == rows)
        if not len(fits):
            taken = int(self._stat_used.sum())
            error = PlacementError(
                f"{what} needs {rows} row statistics and arch {self.arch.name!r} has "
                f"{self.arch.stat_rows}, of which {taken} are taken: raise stat_rows, or use fewer "
                f"tokens"
            )
            error.scattered = taken + rows <= self.arch.stat_rows
            raise error
        base = int(fits[-1 if last else 0])
        self._stat_used[base : base + rows] = True
        return base

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
        rows = self._rows_to_place(tensor)
        block = self.memory.place(
            tensor.name, rows * spread.words, wide=wide, apart=owners,
            last=last or tensor.name in self.strategy.far | self._kept,
        )
        self._enter(Placed(tensor.name, rows, spread, block.address, wide, spread.words))
        self._owner[tensor.name] = tensor.name
        return self.placed[tensor.name]

    def was_placed(self, name: str) -> bool:
        """Whether a tensor has had a place by now, even if it is gone."""
        return name in self._known

    def pair(self, low: str, high: str) -> Placed:
        """Two tensors of a pair as one of double width."""
        return self.placed[pair_name(low, high)]

    def _place_pair(self, low: str, high: str, apart: list[str]) -> None:
        """Both planes, between whose words lies one bank."""
        name, spread = pair_name(low, high), self.spread_of(low)
        rows = self._rows_to_place(self.graph.tensors[low])
        block = self.memory.place(
            name, rows * spread.words, wide=True, apart=apart, in_bank=True,
            last=name in self.strategy.far | self._kept,
        )
        both = Placed(name, rows, spread, block.address, True, spread.words, planes=(low, high))
        self._enter(both)
        for plane, address in zip(
            (low, high), memmap.pair_banks(self.arch, block.address), strict=True
        ):
            self._enter(replace(both, name=plane, address=address, wide=False, planes=()))
        self._owner |= dict.fromkeys((name, low, high), name)

    def place_near(self, name: str, *, apart: Iterable[str] = ()) -> Placed:
        """:meth:`place` by name, away from the residual stream and ``apart``."""
        wide = self._wide()
        if name in self._logits:
            return self.place(self.graph.tensors[name], beside=wide)
        return self.place(
            self.graph.tensors[name], apart=[*wide, *apart], beside=self._beside.get(name, ())
        )

    def buffer(self, name: str, of: str, rows: int, until: int) -> Placed:
        """A buffer for ``rows`` rows at a time of tensor ``of``, freed behind op ``until``."""
        tensor = replace(self.graph.tensors[of], name=name, rows=rows)
        placed = replace(self.place(tensor, apart=self._wide()), first=self.image * self.rows(of))
        self.placed[name] = placed
        self.release_later(name, until)
        return placed

    def _wide(self) -> list[str]:
        """The residual stream, and weights that are loaded ahead."""
        return [p.name for p in self.placed.values() if p.wide and p.name not in self._logits]

    def with_statistics(self, placed: Placed) -> Placed:
        """The same tensor with statistics entries (reserved once)."""
        known = self._whole.get(placed.name, self.placed[placed.name])
        if known.stat < 0:
            base = self.statistics(
                known.rows, f"tensor {placed.name!r}", last=placed.name in self.strategy.far
            )
            self._enter(replace(known, stat=base))
        return self.placed[placed.name]

    def alias(self, name: str, of: str) -> Placed:
        """Give tensor ``name`` the memory of ``of``, which it overwrites piece by piece.

        What is kept for all images gets a place of its own.
        """
        if name in self._kept:
            return self.place_near(name)
        placed = replace(self.placed[of], name=name)
        self.placed[name] = placed
        self._owner[name] = self._owner[of]
        return placed

    def turn(self, name: str, apart: str) -> tuple[Placed | None, Placed]:
        """Where the values of a tensor are, and its place from now on, in other banks.

        What streams past the weights meanwhile is ``apart`` from both.
        Without room for two, or if it is kept for all images, it stays where it is, and the first
        is ``None``.
        """
        old = self.placed[name]
        if name in self._kept:
            return None, old
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

    def set_aside(self, name: str, new: str) -> None:
        """What tensor ``name`` holds becomes tensor ``new``; ``name`` gets another place."""
        owner = self._owner.pop(name)
        assert owner == name
        self._owner[new], self.placed[new] = new, replace(self.placed.pop(name), name=new)
        self.memory.rename(name, new)
        if name in self._twins:
            self._twins[new] = self._twins.pop(name)
            self.memory.rename(_in_turn(name), _in_turn(new))

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
